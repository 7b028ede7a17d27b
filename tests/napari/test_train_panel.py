"""Labelling and training in a real window, on real cells."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QFileDialog,
    QLineEdit,
    QPushButton,
    QSpinBox,
)

from napari_mambamic._napari.annotate import Annotator
from napari_mambamic._napari.classify_panel import ClassifyPanel
from napari_mambamic._napari.train_panel import TrainPanel
from napari_mambamic.tiling import Tile
from napari_mambamic.training import annotations
from napari_mambamic.weights.store import list_weights


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("MAMBAMIC_WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.setattr(annotations, "user_data_path", lambda name: tmp_path / name)
    return tmp_path


@pytest.fixture
def image(viewer, sheet):
    """Two rows of cells: 12 basophils and 12 eosinophils."""
    return viewer.add_image(sheet[:192], name="cells", rgb=True)


@pytest.fixture
def panel(docked, image):
    widget = docked(TrainPanel)
    widget.device.setCurrentText("CPU")
    return widget


@pytest.fixture
def labelled(panel):
    """The panel with both rows labelled by the tool, and added."""
    panel.sources.class_names.setText("basophil, eosinophil")
    panel.sources.label_button.click()
    tool = panel.sources.annotator
    for index in range(24):
        tool.label(index, "basophil" if index < 12 else "eosinophil")
    panel.sources.add_button.click()
    return panel


# ---- labelling ---------------------------------------------------------------------------------


def test_tiles_are_labelled_without_a_mouse(viewer, panel):
    panel.sources.class_names.setText("a, b")
    panel.sources.label_button.click()
    tool = panel.sources.annotator
    viewer.cursor.position = tuple(tool.layer.data_to_world((150, 1000)))  # tile 22
    for key in ("n", "2", "n", "1"):
        tool.layer.keymap[key_of(tool.layer, key)](tool.layer)
    labels = tool.annotations
    assert [labels.class_of(tool.tiles[i]) for i in (0, 1, 22)] == ["b", "a", None]
    viewer.cursor.position = tuple(tool.layer.data_to_world((150, 1001)))  # moved: as ever
    tool.layer.keymap[key_of(tool.layer, "2")](tool.layer)
    assert labels.class_of(tool.tiles[22]) == "b"


def press(viewer, layer, key, place):
    viewer.cursor.position = tuple(layer.data_to_world(place))
    layer.keymap[key](layer) if key in layer.keymap else pytest.fail(f"{key} is not bound")


def key_of(layer, text):
    return next(k for k in layer.keymap if str(k).lower() == text)


def test_keys_label_the_tile_under_the_cursor(viewer, panel):
    panel.sources.class_names.setText("basophil, eosinophil")
    panel.sources.label_button.click()
    tool = panel.sources.annotator
    layer = tool.layer
    assert viewer.layers.selection.active == layer
    press(viewer, layer, key_of(layer, "1"), (50, 50))
    press(viewer, layer, key_of(layer, "2"), (150, 250))
    assert tool.annotations.classes == ("basophil", "eosinophil")
    assert tool.annotations.tiles == (Tile(0, 0, 96), Tile(96, 192, 96))
    np.testing.assert_allclose(layer.data, [(47.5, 47.5), (143.5, 239.5)])
    assert layer.features["class"].tolist() == ["basophil", "eosinophil"]
    said = panel.sources.message.text()
    assert "1: basophil 1, 2: eosinophil 1 - of 24 tiles. A click gives 'eosinophil'." in said
    press(viewer, layer, key_of(layer, "2"), (50, 50))
    assert tool.annotations.classes == ("eosinophil", "eosinophil")
    press(viewer, layer, key_of(layer, "u"), (0, 0))
    assert tool.annotations.classes == ("basophil", "eosinophil")
    press(viewer, layer, key_of(layer, "0"), (50, 50))
    assert len(layer.data) == 1
    press(viewer, layer, key_of(layer, "3"), (50, 50))
    assert viewer.status == "There is no class 3 yet."
    press(viewer, layer, key_of(layer, "1"), (500, 500))
    assert len(layer.data) == 1  # outside of the image
    assert "A click gives 'basophil'." in panel.sources.message.text()


def test_a_click_gives_the_class_that_was_used_last(viewer, panel):
    panel.sources.class_names.setText("basophil, eosinophil")
    panel.sources.label_button.click()
    tool = panel.sources.annotator
    tool.current = 1

    class Event:
        button, type, position = 1, "mouse_press", (20.0, 120.0)

    event = Event()
    (callback,) = tool.layer.mouse_drag_callbacks[-1:]
    clicking = callback(tool.layer, event)
    next(clicking)
    event.type = "mouse_release"
    with pytest.raises(StopIteration):
        next(clicking)
    assert tool.annotations.tiles == (Tile(0, 96, 96),)
    assert tool.annotations.classes == ("eosinophil",)
    dragging = callback(tool.layer, event)
    next(dragging)
    event.type, event.position = "mouse_move", (150.0, 20.0)
    with pytest.raises(StopIteration):
        next(dragging)
    assert len(tool.annotations) == 1


def test_next_goes_to_a_tile_without_a_class(viewer, panel):
    panel.sources.class_names.setText("basophil, eosinophil")
    panel.sources.label_button.click()
    tool = panel.sources.annotator
    tool.label(0, "basophil")
    tool.layer.keymap[key_of(tool.layer, "n")](tool.layer)
    camera = getattr(viewer, "scene", viewer).camera
    np.testing.assert_allclose(camera.center[-2:], (47.5, 143.5))
    frame = viewer.layers["tile to label"]
    assert frame.visible
    np.testing.assert_allclose(frame.data[:, 0].mean(axis=0), (47.5, 143.5))
    assert viewer.layers.selection.active == tool.layer
    for index in range(24):
        tool.label(index, "basophil")
    assert not frame.visible
    tool.layer.keymap[key_of(tool.layer, "n")](tool.layer)
    assert viewer.status == "Every tile has a class."


def test_labels_of_another_image_of_the_same_name_and_size_stay_away(viewer, image, sheet):
    Annotator(viewer, image, tile_size=96, class_names=["a", "b"]).label(3, "a")
    viewer.layers.clear()
    other = viewer.add_image(sheet[192:384], name="cells", rgb=True)
    assert not len(Annotator(viewer, other, tile_size=96, class_names=["a", "b"]).annotations)
    viewer.layers.clear()
    again = viewer.add_image(sheet[:192].copy(), name="cells", rgb=True)
    assert len(Annotator(viewer, again, tile_size=96, class_names=["a", "b"]).annotations) == 1


def test_labels_are_there_again_after_a_crash(viewer, image):
    tool = Annotator(viewer, image, tile_size=96, class_names=["a", "b"])
    tool.label(3, "a")
    tool.label(4, "b")
    tool.label(3, None)
    journal = tool.annotations.journal
    with open(journal, "a", encoding="utf-8") as file:
        file.write('{"tile": [0, 96')  # what a crash leaves
    again = Annotator(viewer, image, tile_size=96, class_names=["a", "b"])
    assert again.annotations.tiles == (Tile(0, 4 * 96, 96),)
    assert again.annotations.classes == ("b",)
    assert len(Annotator(viewer, image, tile_size=48, class_names=["a", "b"]).annotations) == 0


def test_labelling_needs_names_and_an_image(viewer, panel):
    panel.sources.label_button.click()
    assert "at least two classes" in panel.sources.message.text()
    panel.sources.add_button.click()
    assert "Press Start labelling" in panel.sources.message.text()
    viewer.layers.clear()
    panel.sources.label_button.click()
    assert "no image to label" in panel.sources.message.text()


# ---- training ----------------------------------------------------------------------------------


def test_labelling_goes_on_in_the_layer_that_is_there(viewer, panel):
    sources = panel.sources
    sources.class_names.setText("a, b")
    sources.label_button.click()
    tool = sources.annotator
    tool.label(0, "a")
    tool.label(1, "b")
    sources.add_button.click()
    sources.label_button.click()
    assert sources.annotator is tool
    tool.label(2, "b")
    sources.add_button.click()
    assert sources.n_sources == 1
    assert sources.reader()().counts == {"a": 1, "b": 2}
    viewer.layers.remove(tool.layer)
    sources.label_button.click()  # anew, with what was labelled
    assert sources.annotator is not tool
    assert sources.annotator.layer in viewer.layers
    assert sources.annotator.annotations.counts == {"a": 1, "b": 2}
    sources.annotator.label(3, "a")
    sources.add_button.click()
    assert sources.n_sources == 1
    assert sources.reader()().counts == {"a": 2, "b": 2}
    sources.tile_size.setValue(48)
    sources.label_button.click()
    assert sources.annotator.tile_size == 48


def test_tiles_of_a_class_that_is_renamed_go_with_it(panel):
    sources = panel.sources
    sources.class_names.setText("a, b")
    sources.label_button.click()
    tool = sources.annotator
    for index, name in enumerate("aab"):
        tool.label(index, name)
    sources.class_names.setText("alpha, b")
    sources.class_names.editingFinished.emit()
    assert "1: alpha 2, 2: b 1 - of" in sources.message.text()
    assert tool.layer.features["class"].tolist() == ["alpha", "alpha", "b"]
    sources.class_names.setText("alpha, b, c")  # more of them
    sources.class_names.editingFinished.emit()
    assert "1: alpha 2, 2: b 1, 3: c 0 - of" in sources.message.text()
    sources.class_names.setText("b, c")  # its tiles are still there, and so is its key
    sources.class_names.editingFinished.emit()
    assert "1: b 1, 2: c 0, 3: alpha 2 - of" in sources.message.text()
    tool.annotations.undo()
    assert tool.annotations.counts == {"alpha": 2}


def test_of_a_stack_the_plane_where_labelling_began_is_labelled(viewer, docked, sheet):
    planes = np.stack([sheet[96 * i : 96 * (i + 1), :384] for i in range(3)])
    viewer.layers.clear()
    viewer.add_image(planes, rgb=True, name="stack")
    viewer.dims.set_current_step(0, 0)
    panel = docked(TrainPanel)
    sources = panel.sources
    sources.class_names.setText("a, b")
    sources.label_button.click()
    tool = sources.annotator
    press(viewer, tool.layer, key_of(tool.layer, "1"), (0, 50, 50))
    viewer.dims.set_current_step(0, 2)
    press(viewer, tool.layer, key_of(tool.layer, "2"), (2, 50, 150))
    assert len(tool.annotations) == 1
    assert "⚠ Plane 0 is labelled, and 2 is in view. Go back, or" in sources.message.text()
    sources.add_button.click()
    np.testing.assert_array_equal(sources.reader()().pixels[0], planes[0, :, :96])
    sources.label_button.click()
    press(viewer, sources.annotator.layer, key_of(tool.layer, "2"), (2, 50, 150))
    assert "2: b 1 - of 4 tiles" in sources.message.text()
    sources.add_button.click()
    assert sources.reader()().counts == {"a": 1, "b": 1}
    viewer.dims.set_current_step(0, 1)
    press(viewer, sources.annotator.layer, key_of(tool.layer, "n"), (1, 50, 150))
    assert "⚠ Plane 2 is labelled, and 1 is in view" in sources.message.text()
    press(viewer, sources.annotator.layer, key_of(tool.layer, "1"), (1, 50, 150))
    assert len(sources.annotator.annotations) == 1
    viewer.dims.set_current_step(0, 2)
    sources.label_button.click()
    assert "1: a 0, 2: b 1 - of 4 tiles" in sources.message.text()
    viewer.layers["stack"].data = 255 - planes
    sources.add_button.click()
    assert sources.n_sources == 2
    np.testing.assert_array_equal(sources.reader()().pixels[1], 255 - planes[2, :, 96:192])


def test_labels_that_cannot_be_kept_are_told_and_stay(viewer, panel, tmp_path):
    panel.sources.class_names.setText("a, b")
    panel.sources.label_button.click()
    tool = panel.sources.annotator
    (tmp_path / "napari-mambamic").write_text("in the way")
    tool.label(0, "a")
    assert "⚠ The labels cannot be kept in" in panel.sources.message.text()
    press(viewer, tool.layer, key_of(tool.layer, "u"), (0, 0))
    assert "⚠ The labels cannot be kept in" in panel.sources.message.text()
    assert len(tool.annotations) == len(tool.layer.data) == 0
    for index in range(3):
        tool.label(index, "a")
    tool.set_classes(["x", "y"])
    assert "⚠ The labels cannot be kept in" in panel.sources.message.text()
    assert tool.annotations.counts == {"x": 3}


def test_sources_of_one_name_are_kept_apart(viewer, panel, sheet, tmp_path):
    for day in ("monday", "tuesday"):
        (tmp_path / day / "cells").mkdir(parents=True)
    sources = panel.sources
    sources.add_path(tmp_path / "monday" / "cells")
    sources.add_path(tmp_path / "tuesday" / "cells")
    sources.add_path(tmp_path / "monday" / "cells")  # again
    assert sources.n_sources == 2
    sources.kind.setCurrentText("Points layer")
    for name in ("a", "b"):
        viewer.layers.clear()
        viewer.add_image(sheet[:96], rgb=True, name="cells")
        viewer.add_points([(48, 48)], features={"kind": [name]}, name="Points")
        sources.add_button.click()
    assert sources.n_sources == 4
    assert [sources.sources.item(i).text() for i in (2, 3)] == ["Points: a 1", "Points: b 1"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("default", "'default' are weights of the package"),
        ("blood-cells-t", "'blood-cells-t' are weights of the package"),
        ("blood-cells-s", "'blood-cells-s' are weights of the package"),
        ("my cells", "Name the weights with letters"),
    ],
)
def test_names_that_are_taken_are_refused(panel, name, said):
    panel.name.setText(name)
    panel.use_for_classify()
    assert f"⚠ {said}" in panel.message.text()


def test_where_no_weights_can_be_kept_a_sentence_says_so(panel, tmp_path):
    (tmp_path / "weights").write_text("in the way")
    panel.use_for_classify()
    assert f"⚠ No weights can be kept in {tmp_path / 'weights'}" in panel.message.text()
    assert "MAMBAMIC_WEIGHTS_DIR" in panel.message.text()


def test_from_clicks_to_a_better_classification(viewer, labelled, finish):
    panel = labelled
    assert panel.sources.sources.item(0).text() == ("cells annotations: basophil 12, eosinophil 12")
    panel.run_button.click()
    assert panel.is_running
    assert not panel.run_button.isEnabled()
    finish(panel)
    assert "Trained for" in panel.message.text()
    assert panel.checkpoint.report["validation"]["overall_accuracy"] == 1
    assert "100.0%" in panel.result.headline.text()
    diagonal = [int(panel.result.confusion.item(i, i).text()) for i in range(2)]
    assert sum(diagonal) == panel.checkpoint.report["validation"]["n"]
    assert panel.result.confusion.item(0, 1).text() == "0"
    panel.name.setText("two-kinds")
    panel.use_button.click()
    assert "Classify now uses 'two-kinds'" in panel.message.text()
    assert "two-kinds" in list_weights()
    (classify,) = (w for w in QApplication.allWidgets() if isinstance(w, ClassifyPanel))
    assert classify.weights.weights == "two-kinds"
    classify.device.setCurrentText("CPU")
    classify.run_button.click()
    finish(classify)
    assert classify.results.labels.tolist() == [0] * 12 + [1] * 12
    assert classify.results.class_names == ("basophil", "eosinophil")


def test_objects_can_be_clicked(viewer, panel, finish):
    data = np.zeros((192, 1152), np.int32)
    for i in range(6):
        data[40:56, 96 * i + 40 : 96 * i + 56] = i + 1
        data[136:152, 96 * i + 40 : 96 * i + 56] = i + 11
    viewer.add_labels(data, name="nuclei")
    panel.sources.kind.setCurrentText("Click objects of a Labels layer")
    panel.sources.class_names.setText("basophil, eosinophil")
    panel.sources.label_button.click()
    tool = panel.sources.annotator
    assert len(tool.tiles) == 12
    assert tool.tile_at((48, 500)) == 5
    assert tool.tile_at((48, 700)) is None  # no object there
    assert panel.message.text().startswith("Label some tiles or cells of each class")
    for index in range(12):
        tool.label(index, "basophil" if index < 6 else "eosinophil")
    assert panel.message.text() == "Label more, or press Add samples."
    panel.sources.add_button.click()
    panel.run_button.click()
    finish(panel)
    assert panel.samples.counts == {"basophil": 6, "eosinophil": 6}
    np.testing.assert_array_equal(panel.samples.pixels[0], viewer.layers["cells"].data[0:96, 0:96])


def test_live_colours_all_tiles_after_each_label(viewer, panel, docked, finish, qtbot):
    panel.live.setChecked(True)
    assert "press Start labelling" in panel.message.text()
    assert not panel.live.isChecked()
    panel.sources.class_names.setText("eosinophil, basophil")
    panel.sources.label_button.click()
    assert "press Start labelling" not in panel.message.text()  # it was done
    tool = panel.sources.annotator
    panel.live.setChecked(True)
    live = panel._live
    qtbot.waitUntil(lambda: live.results is not None, timeout=60_000)
    tool.label(0, "basophil")
    assert "cells live" not in viewer.layers
    tool.label(12, "eosinophil")
    qtbot.waitUntil(lambda: "cells live" in viewer.layers, timeout=10_000)
    for index in (3, 5, 7):
        tool.label(index, "basophil")
        tool.label(index + 12, "eosinophil")
    qtbot.waitUntil(lambda: not live.is_busy, timeout=10_000)
    layer = viewer.layers["cells live"]
    assert layer.features["class"].tolist() == ["basophil"] * 12 + ["eosinophil"] * 12
    viewer.layers.remove(layer)  # and the annotations: it goes on
    viewer.layers.remove(tool.layer)
    live.refresh()
    qtbot.waitUntil(lambda: not live.is_busy, timeout=10_000)
    assert "cells live" in viewer.layers
    viewer.layers.append(tool.layer)
    first = tool.layer.border_color[tool.layer.features["class"].to_list().index("eosinophil")]
    np.testing.assert_allclose(layer.colormap.color_dict[13], first, atol=0.01)
    assert viewer.layers.selection.active == tool.layer
    assert viewer.layers.index("cells live") < viewer.layers.index("cells annotations")
    tool.label(1, "thrombocyte")
    qtbot.waitUntil(
        lambda: "thrombocyte" in viewer.layers["cells live"].features["class"].cat.categories,
        timeout=10_000,
    )
    classify = docked(ClassifyPanel)
    classify.image.choose(viewer.layers["cells"])
    classify.run_button.click()
    finish(classify)
    assert not viewer.layers["cells live"].visible  # two colours on each other are a third
    panel.live.setChecked(False)
    assert "cells live" not in viewer.layers


def test_several_images_a_points_layer_and_a_folder(viewer, panel, sheet, tmp_path, finish):
    from skimage.io import imsave

    for row, name in ((0, "basophil"), (1, "eosinophil")):
        (tmp_path / "cells" / name).mkdir(parents=True)
        for i in range(5):
            cell = sheet[row * 96 : (row + 1) * 96, i * 96 : (i + 1) * 96]
            imsave(tmp_path / "cells" / name / f"{i}.png", cell)
    viewer.add_image(sheet[672:], name="platelets", rgb=True)
    viewer.add_points(
        [(48, 48 + 96 * i) for i in range(6)], features={"kind": ["platelet"] * 6}, name="dots"
    )
    sources = panel.sources
    sources.kind.setCurrentText("Points layer")
    sources.image.setCurrentText("platelets")
    sources.add_button.click()
    (tmp_path / "cells" / "basophil" / "broken.png").write_bytes(b"not an image")
    sources.add_path(tmp_path / "cells")
    panel.run_button.click()
    finish(panel)
    assert "broken.png cannot be read" in panel.message.text()
    sources.kind.setCurrentText("Folder of class folders")
    assert sources.form.isRowVisible(sources.size_on_disk)
    sources.lenient.setChecked(True)
    sources.add_path(tmp_path / "cells")
    panel.run_button.click()
    finish(panel)
    assert panel.checkpoint is not None, panel.message.text()
    report = panel.checkpoint.report
    assert report["class_names"] == ["platelet", "basophil", "eosinophil"]
    assert panel.samples.counts == {"platelet": 6, "basophil": 5, "eosinophil": 5}
    sources.sources.setCurrentRow(0)
    sources.remove_button.click()
    assert sources.sources.count() == 1


def test_a_table_of_places_wants_a_tile_size(panel, sheet, tmp_path, finish, monkeypatch):
    from skimage.io import imsave

    rows = []
    for i in range(3):
        imsave(tmp_path / f"{i}.png", sheet[:192, 192 * i : 192 * (i + 1)])
        rows += [f"{i}.png,{'ab'[y > 96]},{y},{x}" for y in (48, 144) for x in (48, 144)]
    table = tmp_path / "cells.csv"
    table.write_text("\n".join(["path,label,y,x", *rows]))
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *given: (str(table), ""))
    sources = panel.sources
    sources.kind.setCurrentText("File: .csv, .npz or corrections")
    sources.add_button.click()
    assert "cells.csv gives places in images. Set a tile size" in sources.message.text()
    assert sources.form.isRowVisible(sources.size_on_disk)
    sources.size_on_disk.setValue(96)
    sources.add_button.click()
    assert sources.message.text() == ""
    panel.mode.setCurrentText("Head only: seconds")
    panel.run_button.click()
    finish(panel)
    assert panel.checkpoint is not None, panel.message.text()
    assert panel.samples.counts == {"a": 6, "b": 6}
    assert panel.samples.tile_size == 96


def test_a_cancelled_run_keeps_its_best_weights(labelled, finish, qtbot):
    panel = labelled
    panel.mode.setCurrentText("Last stage: minutes")
    panel.epochs.setValue(500)
    panel.run_button.click()
    qtbot.waitUntil(lambda: panel.curves.isVisibleTo(panel), timeout=60_000)
    assert panel.cancel_button.isEnabled()
    panel.cancel_button.click()
    finish(panel)
    assert panel.message.text() == "Stopped. The best weights so far are kept."
    assert panel.use_button.isVisible() or not panel.isVisible()
    assert len(panel.checkpoint.report["history"]) < 500
    assert panel.curves.lines["accuracy"][0][0] == 1


def test_a_cell_of_the_confusion_matrix_opens_its_tiles(viewer, labelled, finish):
    panel = labelled
    panel.run_button.click()
    finish(panel)
    panel.result.confusion.cellClicked.emit(1, 1)
    layer = viewer.layers["eosinophil classified as eosinophil"]
    assert isinstance(layer, Image)
    assert layer.data.shape == (3, 96, 96, 3) or layer.data.shape == (2, 96, 96, 3)
    assert "cells at (y, x) = (96, " in panel.message.text()
    panel.result.confusion.cellClicked.emit(0, 1)
    assert panel.message.text() == "There is no such sample."


def test_report_and_weights_are_files(labelled, finish, tmp_path):
    panel = labelled
    panel.run_button.click()
    finish(panel)
    assert panel.save_weights(tmp_path / "mine.safetensors")
    assert (tmp_path / "mine.json").exists()
    panel.save_report(tmp_path / "report.html")
    assert "Confusion matrix" in (tmp_path / "report.html").read_text(encoding="utf-8")
    panel.save_report(tmp_path / "no" / "report.html")
    assert "There is no folder" in panel.message.text()
    panel.name.setText("blood-cells-t")
    panel.use_button.click()
    assert "weights of the package" in panel.message.text()
    panel.name.setText("a/b")
    panel.use_button.click()
    assert "letters, digits" in panel.message.text()


def test_one_class_only_is_told_in_a_sentence(viewer, panel, finish):
    panel.run_button.click()
    assert "no samples yet" in panel.message.text()
    panel.sources.class_names.setText("basophil, eosinophil")
    panel.sources.label_button.click()
    for index in range(5):
        panel.sources.annotator.label(index, "basophil")
    panel.sources.add_button.click()
    panel.run_button.click()
    finish(panel)
    assert "one class only (basophil)" in panel.message.text()
    assert panel.run_button.isEnabled()


def test_the_form_is_what_the_core_gets(panel):
    panel.start_from.setCurrentText("From scratch")
    panel.epochs.setValue(7)
    from napari_mambamic.training.config import TrainConfig

    config = TrainConfig(**panel._settings())
    assert (config.mode, config.epochs, config.device) == ("all", 7, "cpu")
    panel.start_from.setCurrentIndex(panel.start_from.findData("blood-cells-t"))
    panel.mode.setCurrentText("Last stage: minutes")
    assert TrainConfig(**panel._settings()).mode == "last stage"
    assert panel.sources.tile_size.value() == 96


def test_every_control_has_a_tooltip(panel):
    for kind in (QPushButton, QComboBox, QSpinBox, QLineEdit):
        for widget in panel.findChildren(kind):
            if widget.objectName().startswith("qt_"):
                continue
            assert widget.toolTip(), f"{kind.__name__} {widget.accessibleName()!r} has none"
