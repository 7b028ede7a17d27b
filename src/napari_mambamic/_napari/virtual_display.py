"""A display in memory, for pictures of the window on a machine without a screen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from napari_mambamic.errors import DeviceError


def has_display() -> bool:
    """Whether a window can be shown as things are."""
    named = ("DISPLAY", "WAYLAND_DISPLAY")
    return not sys.platform.startswith("linux") or any(os.environ.get(name) for name in named)


@contextmanager
def display_for_pictures() -> Iterator[None]:
    """Start Xvfb when there is no display, and end it afterwards.

    Raises
    ------
    DeviceError
        Xvfb is needed and not installed.
    """
    if has_display():
        yield
        return
    if shutil.which("Xvfb") is None:
        raise DeviceError(
            "There is no display to draw on, and Xvfb, which draws in memory, is not installed. "
            "Install it (Debian and Ubuntu: apt-get install xvfb) or run this on a desktop."
        )
    read_end, write_end = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write_end), "-screen", "0", "1600x1000x24", "-nolisten", "tcp"],
        pass_fds=[write_end],
        stderr=subprocess.DEVNULL,
    )
    os.close(write_end)
    with os.fdopen(read_end) as numbers:
        number = numbers.readline().strip()
    os.environ["DISPLAY"] = f":{number}"
    try:
        yield
    finally:
        del os.environ["DISPLAY"]
        server.terminate()
        server.wait()
