"""The demo, as a user starts it on a machine without a screen."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from skimage.io import imread

WITHOUT_SCREEN = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}


@pytest.mark.skipif(sys.platform != "linux", reason="Xvfb is for Linux")
def test_the_demo_prints_counts_and_saves_a_picture(tmp_path):
    picture = tmp_path / "demo.png"
    command = [sys.executable, "-W", "ignore", "-m", "napari_mambamic", "demo", "--screenshot"]
    ended = subprocess.run(
        [*command, str(picture)],
        env=WITHOUT_SCREEN,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    assert "basophil" in ended.stdout
    assert sum(int(line.split()[-2]) for line in ended.stdout.splitlines()[:8]) == 96
    pixels = imread(picture)
    assert pixels.shape[0] > 600
    assert pixels[..., :3].std() > 20


def test_without_xvfb_the_demo_says_what_to_install(tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "napari_mambamic", "demo", "--screenshot"]
    environment = WITHOUT_SCREEN | {"PATH": str(tmp_path)}
    ended = subprocess.run(
        [*command, "demo.png"], env=environment, capture_output=True, text=True, timeout=300
    )
    if sys.platform == "linux":
        assert ended.returncode == 1
        assert "Install it (Debian and Ubuntu: apt-get install xvfb)" in ended.stderr
