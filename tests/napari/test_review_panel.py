"""The panel "Review and correct" in a real window."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QLineEdit, QPushButton
from skimage.io import imsave

from napari_mambamic._napari.classify_layer import classifier_for, classify_layer
from napari_mambamic._napari.disagreement_layer import DisagreementLayer
from napari_mambamic._napari.from_layer import plane_of_layer
from napari_mambamic._napari.open_panel import open_panel
from napari_mambamic._napari.review_panel import ReviewPanel
from napari_mambamic._napari.to_layers import ResultLayers, results_of
from napari_mambamic.classify import classify_image
from napari_mambamic.compare import compare_runs
from napari_mambamic.training.corrections import SUFFIX, Sidecar, samples_from_corrections


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    """No test writes into the user's folders."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("MAMBAMIC_WEIGHTS_DIR", str(tmp_path / "weights"))


@pytest.fixture
def sheet_file(tmp_path, sheet):
    """Four rows of the sample sheet, as a file: 48 cells."""
    path = tmp_path / "cells.tif"
    imsave(path, sheet[:384], check_contrast=False)
    return path


@pytest.fixture
def classes(viewer, sheet_file):
    """The layer of classes of the cells."""
    (image,) = viewer.open(sheet_file, plugin="napari")
    return classify_layer(viewer, image, device="cpu", tile_size=96)[-1]


@pytest.fixture
def panel(viewer, qtbot, classes):
    widget = ReviewPanel(viewer)
    viewer.window.add_dock_widget(widget)
    yield widget
    if widget.is_running:
        widget.cancel()
    qtbot.waitUntil(lambda: not widget.is_busy, timeout=60_000)


@pytest.fixture
def begun(panel, qtbot):
    """The panel with a review going on, and the tiles looked at."""
    qtbot.mouseClick(panel.run_button, Qt.MouseButton.LeftButton)
    settle(panel, qtbot)
    assert panel.review is not None, panel.message.text()
    return panel


def settle(panel, qtbot):
    qtbot.waitUntil(lambda: not panel.is_busy, timeout=120_000)


def press(panel, qtbot, key):
    qtbot.keyClick(panel.area, key)


def labels_in(path):
    return {c.tile: c.new for c in Sidecar.read(path).corrections.values()}


def test_a_review_shows_its_classes_alone(panel, viewer, classes, qtbot):
    """Colours of a comparison or another run over them would be of no class."""
    image = viewer.layers["cells"]
    (results,) = results_of(classes)
    other = ResultLayers(viewer, [plane_of_layer(viewer, image)], results, name="other").main
    compared = DisagreementLayer(viewer, classes, compare_runs(results, results), name="a vs b")
    drawn = viewer.add_points([[5, 5]], name="drawn")
    classes.visible = False  # as a comparison leaves it
    panel.layer.choose(classes)
    qtbot.mouseClick(panel.run_button, Qt.MouseButton.LeftButton)
    settle(panel, qtbot)
    shown = [classes, other, compared.layer, image, drawn, panel.frame.layer]
    assert [layer.visible for layer in shown] == [True, False, False, True, True, True]


def test_the_view_goes_to_the_tile_with_a_frame_and_a_picture(begun, viewer):
    number = begun.review.current
    tile = begun.review.results.tiles[number]
    assert begun.frame.layer.data.tolist() == [[tile.y + 47.5, tile.x + 47.5]]
    assert begun.frame.layer.size.tolist() == [96]
    assert begun.frame.layer.visible
    assert viewer.scene.camera.center[-2:] == pytest.approx((tile.y + 47.5, tile.x + 47.5))
    assert not begun.area.picture.pixmap().isNull()
    shares = begun.review.results.probabilities[number]
    best = begun.review.results.class_names[int(shares.argmax())]
    assert f"{best} {shares.max():.0%}" in begun.area.said.text()
    assert begun.area.said.text().count("%") == 3


def test_the_least_certain_tile_comes_first(begun):
    shares = np.sort(begun.review.results.probabilities, axis=1)
    assert begun.review.current == int((shares[:, -1] - shares[:, -2]).argmin())


def test_keys_give_classes_and_are_kept_beside_the_image(begun, qtbot, sheet_file):
    first = begun.review.current
    press(begun, qtbot, Qt.Key.Key_3)
    second = begun.review.current
    press(begun, qtbot, Qt.Key.Key_Return)
    settle(begun, qtbot)
    tiles, names = begun.review.results.tiles, begun.review.results.class_names
    assert second != first
    kept = labels_in(f"{sheet_file}{SUFFIX}")
    assert kept[tiles[first]] == names[2]
    assert set(kept) == {tiles[first], tiles[second]}
    assert begun.area.state.text().startswith("2 labelled")


def test_skip_undo_and_arrows(begun, qtbot):
    first = begun.review.current
    press(begun, qtbot, Qt.Key.Key_S)
    second = begun.review.current
    assert begun.review.class_of(first) is None
    press(begun, qtbot, Qt.Key.Key_2)
    third = begun.review.current
    press(begun, qtbot, Qt.Key.Key_Left)
    assert begun.review.current == second
    assert "You: eosinophil" in begun.area.said.text()
    press(begun, qtbot, Qt.Key.Key_Right)
    assert begun.review.current == third
    press(begun, qtbot, Qt.Key.Key_U)
    assert begun.review.current == second
    assert begun.review.class_of(second) is None
    settle(begun, qtbot)
    press(begun, qtbot, Qt.Key.Key_U)
    assert "nothing to undo" in begun.message.text()


def test_keys_work_whichever_button_has_the_focus(begun, qtbot):
    first = begun.review.current
    qtbot.keyClick(begun.area.buttons["skip"], Qt.Key.Key_1)
    assert begun.review.class_of(first) == begun.class_names[0]
    at = begun.review.current
    qtbot.keyClick(begun.area.class_buttons[4], Qt.Key.Key_Left)
    assert begun.review.current == first
    qtbot.keyClick(begun.area.class_buttons[4], Qt.Key.Key_Right)
    assert begun.review.current == at


def test_buttons_do_what_keys_do(begun, qtbot):
    first = begun.review.current
    qtbot.mouseClick(begun.area.class_buttons[5], Qt.MouseButton.LeftButton)
    assert begun.review.class_of(first) == begun.class_names[5]
    qtbot.mouseClick(begun.area.buttons["undo"], Qt.MouseButton.LeftButton)
    assert begun.review.class_of(first) is None


def test_keys_work_on_the_canvas_while_the_frame_is_active(begun, viewer):
    first = begun.review.current
    assert viewer.layers.selection.active == begun.frame.layer
    keys = {str(key).lower(): bound for key, bound in begun.frame.layer.keymap.items()}
    keys["4"](begun.frame.layer)
    assert begun.review.class_of(first) == begun.class_names[3]


def test_labels_correct_the_classes_of_all_tiles_and_the_order(begun, qtbot, viewer, classes):
    number = begun.review.current
    told = begun.review.told(number)
    other = next(name for name in begun.class_names if name != told)
    press(begun, qtbot, str(begun.class_names.index(other) + 1))
    settle(begun, qtbot)
    (corrected,) = results_of(viewer.layers["cells corrected"])
    assert corrected.class_names[corrected.labels[number]] == other
    assert corrected.provenance["corrected"] == {"labels": 1}
    assert number not in begun.review.order.tolist()
    assert len(begun.review.order) == 47
    assert results_of(classes)[0].labels[number] != corrected.labels[number]
    assert "1 labelled, 1 corrected" in begun.area.state.text()


def test_labels_come_back_when_the_review_is_opened_again(begun, qtbot, viewer):
    first = begun.review.current
    press(begun, qtbot, Qt.Key.Key_3)
    settle(begun, qtbot)
    again = ReviewPanel(viewer)
    qtbot.addWidget(again)
    again.layer.choose(begun.layer.layer)
    again.start()
    settle(again, qtbot)
    assert again.review.class_of(first) == begun.class_names[2]
    assert again.review.current != first


def test_two_windows_keep_the_labels_of_both(begun, qtbot, viewer, sheet_file):
    again = ReviewPanel(viewer)
    qtbot.addWidget(again)
    again.layer.choose(begun.layer.layer)
    again.start()
    settle(again, qtbot)
    one = begun.review.current
    press(begun, qtbot, Qt.Key.Key_3)
    settle(begun, qtbot)
    again.act("forward")
    other = again.review.current
    again.act("4")
    settle(again, qtbot)
    tiles = begun.review.results.tiles
    assert one != other
    assert set(labels_in(f"{sheet_file}{SUFFIX}")) == {tiles[one], tiles[other]}
    assert again.review.class_of(one) == begun.class_names[2]


def test_corrected_weights_can_be_used_for_classify(begun, qtbot, viewer):
    number = begun.review.current
    told = begun.review.told(number)
    other = next(name for name in begun.class_names if name != told)
    begun.act(str(begun.class_names.index(other) + 1))
    settle(begun, qtbot)
    begun.name.setText("mine")
    qtbot.mouseClick(begun.use_button, Qt.MouseButton.LeftButton)
    settle(begun, qtbot)
    assert "Classify now uses 'mine'" in begun.message.text()
    tile = begun.review.results.tiles[number]
    pixels = viewer.layers["cells"].data[tile.y : tile.y + 96, tile.x : tile.x + 96]
    told_now = classifier_for("mine", "cpu").predict(pixels[np.newaxis])
    shares = begun.head.probabilities(begun.review.results.probabilities, begun._embeddings)[number]
    assert told_now.probabilities[0] == pytest.approx(shares, abs=0.01)
    assert begun.class_names[int(told_now.probabilities[0].argmax())] == other


def test_corrected_classes_are_not_corrected_once_more(begun, qtbot, viewer, classes):
    """What is learned of them would be added to weights that know nothing of the first labels."""
    press(begun, qtbot, Qt.Key.Key_3)
    settle(begun, qtbot)
    assert "cells corrected" in viewer.layers
    viewer.layers.selection.active = viewer.layers["cells corrected"]
    again = ReviewPanel(viewer)
    qtbot.addWidget(again)
    assert again.layer.layer is classes
    assert [again.layer.itemText(i) for i in range(again.layer.count())] == [classes.name]


def test_a_review_can_begin_anew_right_after_a_label(begun, qtbot):
    press(begun, qtbot, Qt.Key.Key_2)
    begun.start()
    settle(begun, qtbot)
    assert begun.area.state.text().startswith("1 labelled")


def test_weights_of_the_package_are_not_replaced(begun, qtbot):
    press(begun, qtbot, Qt.Key.Key_2)
    settle(begun, qtbot)
    begun.name.setText("default")
    begun.use_for_classify()
    assert "'default' are weights of the package" in begun.message.text()


def test_train_with_these_opens_the_train_panel_with_the_samples(begun, qtbot, sheet_file):
    for key in (Qt.Key.Key_1, Qt.Key.Key_2, Qt.Key.Key_2):
        press(begun, qtbot, key)
    settle(begun, qtbot)
    qtbot.mouseClick(begun.train_button, Qt.MouseButton.LeftButton)
    opened = open_panel(begun._viewer, "Train on your own classes")
    samples = opened.sources.reader()()
    assert samples.counts == {begun.class_names[0]: 1, begun.class_names[1]: 2}
    from_file = samples_from_corrections(f"{sheet_file}{SUFFIX}")
    assert from_file.counts == samples.counts
    assert {p.tobytes() for p in from_file.pixels} == {p.tobytes() for p in samples.pixels}


def test_a_class_that_the_weights_do_not_know_can_be_added(begun, qtbot, viewer):
    qtbot.keyClicks(begun.new_class, "artefact")
    qtbot.keyClick(begun.new_class, Qt.Key.Key_Return)
    number = begun.review.current
    press(begun, qtbot, Qt.Key.Key_9)
    settle(begun, qtbot)
    (corrected,) = results_of(viewer.layers["cells corrected"])
    assert corrected.class_names[-1] == "artefact"
    assert corrected.labels[number] == 8


def test_labelling_goes_on_while_the_network_looks_at_the_tiles(
    panel, qtbot, monkeypatch, sheet_file
):
    go_on = threading.Event()

    def slow(*arguments):
        go_on.wait(60)
        return classifier_for(*arguments)

    monkeypatch.setattr("napari_mambamic._napari.classify_layer.classifier_for", slow)
    panel.start()
    qtbot.waitUntil(lambda: panel.review is not None, timeout=30_000)
    first = panel.review.current
    press(panel, qtbot, Qt.Key.Key_3)
    qtbot.waitUntil(lambda: not panel._writing.is_busy, timeout=30_000)
    assert labels_in(f"{sheet_file}{SUFFIX}")[panel.review.results.tiles[first]]
    assert panel.is_running
    go_on.set()
    settle(panel, qtbot)
    assert panel.head is not None


def test_a_newer_file_is_refused_in_a_sentence_and_left_alone(panel, qtbot, sheet_file):
    path = sheet_file.with_name(sheet_file.name + SUFFIX)
    newer = json.dumps({"format": 99, "image": {}, "corrections": []})
    path.write_text(newer)
    panel.start()
    settle(panel, qtbot)
    assert "newer napari-mambamic" in panel.message.text()
    assert panel.review is None
    assert path.read_text() == newer


def test_cells_of_a_labels_layer_are_reviewed(viewer, qtbot):
    image, objects = viewer.open_sample("napari-mambamic", "blood-smear")
    classify_layer(viewer, image, objects=objects, device="cpu", object_scale=1.5)
    panel = ReviewPanel(viewer)
    qtbot.addWidget(panel)
    panel.start()
    settle(panel, qtbot)
    assert "kept in" in panel.message.text()
    for _ in range(3):
        panel.act("accept")
    settle(panel, qtbot)
    assert panel.review.current is None
    assert panel.area.said.text() == "Every tile has a class."
    assert not panel.area.class_buttons[0].isEnabled()


def test_without_the_objects_a_sentence_says_what_to_do(viewer, qtbot):
    image, objects = viewer.open_sample("napari-mambamic", "blood-smear")
    classify_layer(viewer, image, objects=objects, device="cpu", object_scale=1.5)
    viewer.layers.remove(objects)
    panel = ReviewPanel(viewer)
    qtbot.addWidget(panel)
    panel.start()
    assert "are closed, so that no corrections can be shown. Open them" in panel.message.text()


def test_channels_of_several_layers_are_reviewed_and_are_no_single_file(
    viewer, qtbot, tmp_path, sheet, classifier
):
    planes = []
    for i, name in enumerate("rgb"):
        imsave(tmp_path / f"{name}.tif", sheet[:96, :288, i], check_contrast=False)
        planes += viewer.open(tmp_path / f"{name}.tif", plugin="napari")
    classify_layer(viewer, planes[0], channels=planes, device="cpu")
    panel = ReviewPanel(viewer)
    qtbot.addWidget(panel)
    panel.start()
    settle(panel, qtbot)
    expected = classify_image(sheet[:96, :288], classifier).embeddings
    np.testing.assert_allclose(panel._embeddings, expected, atol=1e-4)
    panel.act("2")
    settle(panel, qtbot)
    assert results_of(viewer.layers["r corrected"])[0].provenance["corrected"] == {"labels": 1}
    assert not list(tmp_path.glob(f"*{SUFFIX}"))  # one file alone would be another image
    (kept,) = (tmp_path / "data").rglob(f"*{SUFFIX}")
    assert Sidecar.read(kept).image["name"] == "r + g + b"
    assert Sidecar.read(kept).image["path"] is None


def test_without_results_a_sentence_says_what_to_do(viewer, qtbot):
    panel = ReviewPanel(viewer)
    qtbot.addWidget(panel)
    panel.start()
    assert "Press Classify in the panel" in panel.message.text()


def test_every_input_has_a_name_and_a_tooltip(begun):
    inputs = [w for kind in (QComboBox, QLineEdit, QPushButton) for w in begun.findChildren(kind)]
    assert len(inputs) > 12
    for widget in inputs:
        assert widget.accessibleName() or widget.text(), widget
        assert widget.toolTip(), widget.text()
