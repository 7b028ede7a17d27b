"""Photograph the window for the README and the docs: python scripts/make_screenshots.py."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
from napari.components import ViewerModel
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QDockWidget, QWidget
from skimage import data

import napari
from napari_mambamic import (
    TrainConfig,
    classify_layer,
    fine_tune,
    open_image,
    samples_from_arrays,
)
from napari_mambamic._napari.demo import (
    HEIGHT,
    WIDTH,
    classify_and_wait,
    open_demo,
    photograph,
)
from napari_mambamic._napari.open_panel import open_panel
from napari_mambamic._napari.virtual_display import display_for_pictures

IMAGES = Path(__file__).parents[1] / "docs/images"
# OpenSlide's test data; without the file the picture of the slide stays as it is.
SLIDE = Path(os.environ.get("SLIDE", "CMU-1-Small-Region.svs"))


def main() -> None:
    """Open the sample, press Classify, photograph before and after."""
    IMAGES.mkdir(exist_ok=True)
    with display_for_pictures():
        viewer, panel = open_demo()
        viewer.layers.selection.active = viewer.layers["blood cells"]
        photograph(viewer, IMAGES / "before.png")
        classify_and_wait(panel)
        photograph(viewer, IMAGES / "after.png")
        photograph_light(viewer)
        photograph_table(viewer)
        photograph_map(viewer)
        photograph_why(viewer)
        photograph_comparison(viewer)
        photograph_review(viewer)
        viewer.layers.remove("blood cells classes")
        photograph_training(viewer)
        viewer.close()
        photograph_objects()
        photograph_warnings()
        photograph_slide()


def open_at(viewer: ViewerModel, name: str, *, width: int = 380) -> QWidget:
    """Open a panel as the menu does, and give it some px."""
    panel = open_panel(viewer, name)
    QApplication.processEvents()  # it becomes a tab
    window = panel.window()
    (dock,) = [dock for dock in window.findChildren(QDockWidget) if dock.isAncestorOf(panel)]
    window.resizeDocks([dock], [width], Qt.Orientation.Horizontal)
    QApplication.processEvents()
    viewer.reset_view()
    return panel


def photograph_light(viewer: ViewerModel) -> None:
    """The Classify panel after a run, in the light theme."""
    before, viewer.theme = viewer.theme, "light"
    photograph(viewer, IMAGES / "after-light.png")
    viewer.theme = before


def photograph_objects() -> None:
    """Outline the cells of the bundled smear in the Find objects panel."""
    viewer = napari.Viewer()
    viewer.window.resize(WIDTH, HEIGHT)
    image, _ = viewer.open_sample("napari-mambamic", "blood-smear")
    viewer.layers.remove("white cells and platelets")
    viewer.layers.selection.active = image
    panel = open_at(viewer, "Find objects")
    while panel.preview.is_busy:
        QApplication.processEvents()
        time.sleep(0.01)
    viewer.reset_view()
    photograph(viewer, IMAGES / "find-objects.png")
    viewer.close()


def photograph_warnings() -> None:
    """Classify tissue with the weights for blood cells."""
    viewer = napari.Viewer()
    viewer.window.resize(WIDTH, HEIGHT)
    viewer.add_image(data.immunohistochemistry(), name="H-DAB tissue", rgb=True)
    panel = open_at(viewer, "Classify tiles and cells")
    classify_and_wait(panel)
    viewer.reset_view()
    photograph(viewer, IMAGES / "trust.png")
    viewer.close()


def photograph_table(viewer: ViewerModel) -> None:
    """Count the classes in two regions."""
    left, right = ([(9, x), (9, x + 560), (759, x + 560), (759, x)] for x in (9, 583))
    shapes = viewer.add_shapes(
        [left, right],
        shape_type="polygon",
        name="regions",
        features={"name": ["slide A", "slide B"]},
        text={"string": "{name}", "size": 18, "color": "black", "anchor": "center"},
        face_color="transparent",
        edge_color="black",
        edge_width=8,
    )
    table = open_at(viewer, "Results table", width=650)
    table.regions.choose(shapes)
    while table.is_busy:
        QApplication.processEvents()
    viewer.reset_view()
    photograph(viewer, IMAGES / "results-table.png")
    viewer.window.remove_dock_widget(table)
    viewer.layers.remove(shapes)
    QApplication.processEvents()
    viewer.reset_view()


def photograph_map(viewer: ViewerModel) -> None:
    """Lay the cells out and find those that are most like a monocyte."""
    panel = open_at(viewer, "Embedding map")

    def wait() -> None:
        while panel.is_busy:
            QApplication.processEvents()
            time.sleep(0.01)

    panel.method.setCurrentText("t-SNE")
    panel.run_button.click()
    wait()
    panel.select(np.array([5 * 12 + 3]))
    panel.how_many.setValue(10)
    panel.similar_button.click()
    wait()
    viewer.reset_view()
    photograph(viewer, IMAGES / "embedding-map.png")
    panel.clear_button.click()
    wait()
    panel.highlight.clear()
    viewer.window.remove_dock_widget(panel)
    QApplication.processEvents()
    viewer.reset_view()


def photograph_why(viewer: ViewerModel) -> None:
    """Explain every cell, and look at some of them closely."""
    panel = open_at(viewer, "Why this class?")
    panel.run_button.click()
    while panel.is_running:
        QApplication.processEvents()
        time.sleep(0.01)
    classes, camera = viewer.layers["blood cells classes"], viewer.scene.camera
    classes.visible = False
    before = camera.center, camera.zoom
    camera.center, camera.zoom = (224, 288), 3 * camera.zoom
    photograph(viewer, IMAGES / "why.png")
    camera.center, camera.zoom = before
    classes.visible = True
    viewer.layers.remove("blood cells why: each class")
    viewer.window.remove_dock_widget(panel)


def photograph_comparison(viewer: ViewerModel) -> None:
    """Compare the bundled weights with a head that was trained on three cells of each class."""
    image = viewer.layers["blood cells"]
    cells = image.data.reshape(8, 96, 12, 96, 3).swapaxes(1, 2)[:, :3]
    names = viewer.layers["known classes"].features["known class"].to_numpy().reshape(8, 12)
    samples = samples_from_arrays(cells.reshape(-1, 96, 96, 3), names[:, :3].ravel())
    with tempfile.TemporaryDirectory() as folder:
        trained = fine_tune(samples, config=TrainConfig(mode="head"))
        path = trained.save(Path(folder, "own.safetensors"))
        before = viewer.layers["blood cells classes"]
        after = classify_layer(viewer, image, weights=str(path))[-1]
    before.name, after.name = "bundled weights", "own weights"
    panel = open_at(viewer, "Compare runs", width=520)
    panel.run_button.click()
    while panel.is_running:
        QApplication.processEvents()
        time.sleep(0.01)
    viewer.reset_view()
    panel.all_button.click()
    viewer.reset_view()
    photograph(viewer, IMAGES / "compare.png")
    viewer.window.remove_dock_widget(panel)
    viewer.layers.remove(panel.shown.layer)
    viewer.layers.remove(after)
    before.name, before.visible = "blood cells classes", True
    photograph_robustness(viewer)


def photograph_robustness(viewer: ViewerModel) -> None:
    """Measure how many labels of the sheet change when the picture does."""
    panel = open_at(viewer, "Robustness", width=480)
    panel.run_button.click()
    while panel.is_running:
        QApplication.processEvents()
        time.sleep(0.01)
    viewer.reset_view()
    photograph(viewer, IMAGES / "robustness-panel.png")
    viewer.window.remove_dock_widget(panel)
    QApplication.processEvents()
    viewer.reset_view()


def photograph_review(viewer: ViewerModel) -> None:
    """Go through cells as a user does: most are right, the wrong ones get their class."""
    panel = open_at(viewer, "Review and correct")
    known = viewer.layers["known classes"].features["known class"].tolist()

    def wait() -> None:
        while panel.is_busy:
            QApplication.processEvents()
            time.sleep(0.01)

    panel.run_button.click()
    wait()
    for _ in range(27):
        panel.act(str(panel.class_names.index(known[panel.review.current]) + 1))
        wait()
    photograph(viewer, IMAGES / "review.png")
    viewer.window.remove_dock_widget(panel)
    viewer.layers.remove("blood cells corrected")
    viewer.layers.remove("tile under review")
    viewer.layers["blood cells classes"].visible = True
    QApplication.processEvents()
    viewer.reset_view()


def photograph_slide() -> None:
    """Classify a slide of tissue, if it is there, with a heatmap of how far off its tiles are."""
    if not SLIDE.exists():
        return
    image = open_image(SLIDE)
    viewer = napari.Viewer()
    viewer.window.resize(WIDTH, HEIGHT)
    layer = viewer.add_image(
        np.asarray(image.levels[0].data),
        name=SLIDE.stem,
        rgb=True,
        scale=image.pixel_size_um,
        units="um",
    )
    viewer.scale_bar.visible = True
    panel = open_at(viewer, "Classify tiles and cells")
    panel.use_pixels.setChecked(True)
    panel.skip_background.setChecked(True)
    (item,) = panel.heatmaps.findItems("distance", Qt.MatchFlag.MatchExactly)
    item.setCheckState(Qt.CheckState.Checked)
    classify_and_wait(panel)
    viewer.layers[f"{layer.name} classes"].visible = False
    viewer.layers.selection.active = viewer.layers[f"{layer.name} distance"]
    viewer.reset_view()
    photograph(viewer, IMAGES / "slide.png")
    viewer.close()


def photograph_training(viewer: ViewerModel) -> None:
    """Label four kinds of cells, train the last stage, use the weights: a picture of each."""
    panel = open_at(viewer, "Train on your own classes", width=440)
    kinds = ("eosinophil", "lymphocyte", "monocyte", "neutrophil")
    panel.sources.class_names.setText(", ".join(kinds))
    panel.sources.start_labelling()
    for row, kind in ((1, 0), (4, 1), (5, 2), (6, 3)):
        for column in range(12):
            panel.sources.annotator.label(row * 12 + column, kinds[kind])
    photograph(viewer, IMAGES / "train-label.png")
    panel.sources.add_button.click()
    panel.mode.setCurrentText("Last stage: minutes")
    panel.epochs.setValue(8)
    panel.run_button.click()
    while panel.is_running:
        QApplication.processEvents()
        time.sleep(0.01)
    bar = panel.verticalScrollBar()
    bar.rangeChanged.connect(lambda _, bottom: bar.setValue(bottom))  # tables grow for a while
    bar.setValue(bar.maximum())
    photograph(viewer, IMAGES / "train-result.png")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_DATA_HOME"] = folder  # the labels of the pictures are nobody's
        main()
