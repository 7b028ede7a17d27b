"""Photograph the window for the README and the docs: python scripts/make_screenshots.py."""

from __future__ import annotations

from pathlib import Path

from napari_mambamic._napari.demo import classify_and_wait, open_demo, photograph
from napari_mambamic._napari.virtual_display import display_for_pictures

IMAGES = Path(__file__).parents[1] / "docs/images"


def main() -> None:
    """Open the sample, press Classify, photograph before and after."""
    IMAGES.mkdir(exist_ok=True)
    with display_for_pictures():
        viewer, panel = open_demo()
        viewer.layers.selection.active = viewer.layers["blood cells"]
        photograph(viewer, IMAGES / "before.png")
        classify_and_wait(panel)
        photograph(viewer, IMAGES / "after.png")
        viewer.close()


if __name__ == "__main__":
    main()
