"""The panel Why this class?, in a real window, on real cells."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from napari.layers import Image
from qtpy.QtWidgets import QCheckBox, QComboBox, QPushButton, QSpinBox

from napari_mambamic import classify_layer, explain_tiles
from napari_mambamic._napari.explained import explained_of
from napari_mambamic._napari.to_layers import results_of
from napari_mambamic._napari.why_panel import WhyPanel


@pytest.fixture
def why(docked):
    return docked(WhyPanel)


@pytest.fixture
def image(viewer, sheet):
    """Two rows of three cells, somewhere in the world."""
    return viewer.add_image(
        sheet[:192, :288], name="cells", rgb=True, scale=(0.5, 0.5), translate=(10, 20), rotate=30
    )


@pytest.fixture
def classes(viewer, image):
    return classify_layer(viewer, image, device="cpu")[-1]


def drag(viewer, place, layer, *, then):
    """Press the mouse over a pixel of a layer, and move or release it."""
    event = SimpleNamespace(
        type="mouse_press", position=layer.data_to_world(place), modifiers=(), button=1
    )
    running = [callback(viewer, event) for callback in viewer.mouse_drag_callbacks]
    going = [steps for steps in running if steps is not None and next(steps, "over") != "over"]
    event.type = then
    for steps in going:
        next(steps, None)


def click(viewer, place, layer):
    drag(viewer, place, layer, then="mouse_release")


def corners(layer):
    """World coordinates of the outer corners of a layer's pixels."""
    height, width = layer.data.shape[-2:]
    ends = [(-0.5, -0.5), (-0.5, width - 0.5), (height - 0.5, width - 0.5)]
    return [layer.data_to_world(end) for end in ends]


def test_without_results_a_sentence_says_what_to_do(why):
    assert "Open an image and press Classify" in why.message.text()
    assert not why.run_button.isEnabled()
    assert not why.one_button.isEnabled()


def test_a_click_shows_the_map_exactly_over_its_tile(
    why, viewer, image, classes, finish, classifier
):
    why.click.click()
    click(viewer, (150, 200), image)  # row 1, column 2
    finish(why)
    layer = viewer.layers["cells why: tile 6, eosinophil"]
    expected = [image.data_to_world(p) for p in ((95.5, 191.5), (95.5, 287.5), (191.5, 287.5))]
    np.testing.assert_allclose(corners(layer), expected)
    heatmap = explain_tiles(image.data, classifier, results_of(classes)[0])
    np.testing.assert_allclose(layer.data, heatmap.pixels[96:192, 192:288], atol=1e-4)
    probability = results_of(classes)[0].probabilities[5].max()
    assert why.message.text().startswith(f"Tile 6: eosinophil, {probability:.1%}. By Grad-CAM")
    assert layer.metadata["mambamic"]["explanation"]["method"] == "grad-cam"
    assert layer.metadata["mambamic"]["weights"]["name"] == "blood-cells-t"
    assert (layer.units, layer.axis_labels) == (image.units, image.axis_labels)
    assert viewer.layers.selection.active == classes


def test_the_next_click_moves_the_same_layer(why, viewer, image, classes, finish):
    why.click.click()
    click(viewer, (10, 10), image)
    finish(why)
    first = next(layer for layer in viewer.layers if "why" in layer.name)
    first.opacity = 0.4
    click(viewer, (100, 100), image)
    finish(why)
    shown = [layer for layer in viewer.layers if "why" in layer.name]
    assert shown == [first]
    assert first.opacity == 0.4
    assert first.name.startswith("cells why: tile 5")
    np.testing.assert_allclose(corners(first)[0], image.data_to_world((95.5, 95.5)))


def test_a_drag_and_a_click_beside_the_image_explain_nothing(why, viewer, image, classes):
    why.click.click()
    click(viewer, (-50, 10), image)
    assert why.message.text() == "There is no tile or object where you clicked."
    drag(viewer, (10, 10), image, then="mouse_move")
    assert not why.is_running
    why.click.click()
    click(viewer, (10, 10), image)
    assert not why.is_running


def test_a_number_is_explained_with_the_keyboard_for_another_class(
    why, viewer, image, classes, finish
):
    why.target.setCurrentText("platelet")
    why.number.setValue(2)
    why.one_button.click()
    finish(why)
    assert "cells why: tile 2, platelet" in viewer.layers
    assert "(predicted: basophil" in why.message.text()


def test_occlusion_is_a_second_opinion(why, viewer, image, classes, finish):
    why.number.setValue(1)
    why.one_button.click()
    finish(why)
    layer = viewer.layers["cells why: tile 1, basophil"]
    before = layer.data.copy()
    why.method.setCurrentIndex(1)
    why.one_button.click()
    finish(why)
    assert "By occlusion, yellow" in why.message.text()
    assert not np.allclose(layer.data, before, atol=0.1)


def test_explain_all_is_one_layer_over_the_image(why, viewer, image, classes, finish, classifier):
    why.run_button.click()
    assert why.is_running
    assert not why.one_button.isEnabled()
    finish(why)
    layer = viewer.layers["cells why: each class"]
    assert isinstance(layer, Image)
    heatmap = explain_tiles(image.data, classifier, results_of(classes)[0])
    np.testing.assert_allclose(layer.data, heatmap.pixels, atol=1e-4)
    ends = [image.data_to_world(p) for p in ((-0.5, -0.5), (-0.5, 287.5), (191.5, 287.5))]
    np.testing.assert_allclose(corners(layer), ends)
    assert why.message.text().startswith("6 tiles, each for its own class, by Grad-CAM.")
    assert why.one_button.isEnabled()


def test_cancel_keeps_what_is_done(why, viewer, sheet, finish, qtbot):
    image = viewer.add_image(sheet, name="sheet", rgb=True)
    classify_layer(viewer, image, device="cpu")
    why.run_button.click()
    qtbot.waitUntil(lambda: "sheet why: each class" in viewer.layers, timeout=60_000)
    why.cancel_button.click()
    finish(why)
    layer = viewer.layers["sheet why: each class (partial)"]
    assert why.message.text().startswith("Stopped; what is done is kept: ")
    done = np.isfinite(layer.data).mean()
    assert 0.3 < done < 1


def test_a_click_on_an_object_explains_that_object(why, viewer, sheet, finish):
    image = viewer.add_image(sheet[:192, :288], name="cells", rgb=True)
    data = np.zeros((192, 288), np.int32)
    data[30:60, 30:60], data[62:80, 30:60] = 7, 12  # beside each other: tiles overlap
    labels = viewer.add_labels(data, name="objects")
    classify_layer(viewer, image, objects=labels, device="cpu")
    why.click.click()
    click(viewer, (61.8, 40), image)
    finish(why)
    assert why.message.text().startswith("Object 12: ")
    click(viewer, (59, 40), image)
    finish(why)
    assert why.message.text().startswith("Object 7: ")
    why.number.setValue(9)
    why.one_button.click()
    assert "There is no object 9 on this plane." in why.message.text()


def test_the_plane_in_view_of_a_stack_is_explained(why, viewer, sheet, finish):
    image = viewer.add_image(np.stack([sheet[:96, :96], sheet[96:192, :96]]), name="stack")
    image_2 = viewer.add_image(image.data[..., 1], name="grey")
    viewer.dims.set_point(0, 1)
    layer = classify_layer(viewer, image_2, device="cpu", planes="all")[-1]
    why.number.setValue(1)
    why.one_button.click()
    finish(why)
    shown = next(each for each in viewer.layers if "why" in each.name)
    assert shown.data.shape == (1, 96, 96)
    np.testing.assert_allclose(shown.data_to_world((0, 0, 0)), (1, 0, 0))
    assert explained_of(viewer, layer).results is results_of(layer)[1]


def test_channels_of_a_run_are_found_again(why, viewer, sheet, finish):
    image = viewer.add_image(np.moveaxis(sheet[:96, :192], 2, 0), name="channels")
    classify_layer(viewer, image, device="cpu", channels=[2, 1, 0], channel_axis=0)
    why.number.setValue(2)
    why.one_button.click()
    finish(why)
    shown = next(each for each in viewer.layers if "why" in each.name)
    assert shown.data.shape == (3, 96, 96)
    np.testing.assert_allclose(shown.data_to_world((0, 0, 0)), (0, 0, 96))


def test_the_result_that_is_selected_is_the_one_to_explain(why, viewer, image, classes):
    other = classify_layer(viewer, image, device="cpu", tile_size=192)[-1]
    assert why.result.layer == other
    assert why.number.maximum() == 2
    viewer.layers.selection.active = classes
    assert why.result.layer == classes
    viewer.layers.selection.active = image
    assert why.result.layer == classes


def test_a_closed_image_is_a_sentence(why, viewer, image, classes):
    viewer.layers.remove(image)
    why.run_button.click()
    assert "image that layer 'cells classes' was made of is closed" in (why.message.text().lower())
    assert not why.is_running


def test_every_input_has_a_name_and_a_tooltip(why):
    for kind in (QComboBox, QSpinBox, QCheckBox, QPushButton):
        for widget in why.findChildren(kind):
            name = widget.accessibleName() or getattr(widget, "text", str)()
            assert name
            assert widget.toolTip()
