"""The Find objects panel in a real window, on discs and on the bundled blood smear."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from napari.layers import Labels
from npe2 import PluginManifest
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QPushButton, QSlider, QSpinBox
from skimage.draw import disk
from skimage.io import imread

from napari_mambamic._napari.find_objects_panel import FindObjectsPanel
from napari_mambamic._napari.from_layer import plane_of_layer, region_in_view
from napari_mambamic._napari.sample_data import SAMPLES
from napari_mambamic.objects import ObjectSettings, find_objects

CENTRES = ((30, 30), (30, 90), (80, 60))


def discs(shape=(120, 160), centres=CENTRES, radius=14):
    image = np.full(shape, 200, np.uint8)
    for centre in centres:
        image[disk(centre, radius, shape=shape)] = 90
    return image


@pytest.fixture
def objects_panel(viewer, qtbot):
    widget = FindObjectsPanel(viewer)
    viewer.window.add_dock_widget(widget)
    yield widget
    widget.cancel()
    widget.preview.close()
    qtbot.waitUntil(lambda: not widget.is_running and not widget.preview.is_busy, timeout=60_000)


@pytest.fixture
def settle(qtbot, objects_panel):
    """Wait until the preview shows what the form says."""

    def wait():
        qtbot.waitUntil(lambda: not objects_panel.preview.is_busy, timeout=60_000)

    return wait


def test_the_preview_follows_the_form(viewer, objects_panel, settle):
    viewer.add_image(discs(), name="discs")
    settle()
    layer = viewer.layers["discs preview"]
    np.testing.assert_array_equal(layer.data, find_objects(discs()))
    assert objects_panel.found.text().startswith("3 objects, median ")
    assert viewer.layers.selection.active == viewer.layers["discs"]
    objects_panel.min_size.setValue(5000)
    settle()
    assert not layer.data.any()
    assert objects_panel.found.text() == "No objects"
    objects_panel.min_size.setValue(100)
    objects_panel.direction.setCurrentText("Brighter")
    settle()
    np.testing.assert_array_equal(
        layer.data, find_objects(discs(), ObjectSettings(bright=True, min_size_px=100))
    )


def test_the_form_is_what_the_core_gets(viewer, objects_panel):
    assert objects_panel.settings == ObjectSettings()
    viewer.add_image(np.dstack([discs()] * 3), rgb=True)
    objects_panel.channel.setCurrentText("Green")
    objects_panel.direction.setCurrentIndex(1)
    objects_panel.threshold.setValue(12.5)
    objects_panel.smoothing.setValue(2.5)
    objects_panel.min_size.setValue(77)
    objects_panel.split.setChecked(False)
    objects_panel.neck.setValue(70)
    objects_panel.fill_holes.setChecked(False)
    objects_panel.clear_border.setChecked(True)
    assert objects_panel.settings == ObjectSettings(
        channel=1,
        bright=False,
        threshold=0.125,
        smoothing_px=2.5,
        min_size_px=77,
        split=False,
        neck=0.7,
        fill_holes=False,
        clear_border=True,
    )


def test_the_automatic_threshold_is_shown_and_moving_it_ends_it(viewer, objects_panel, settle):
    image = discs()
    image[disk((80, 120), 14)] = 180  # a pale one
    viewer.add_image(image, name="discs")
    settle()
    assert objects_panel.automatic.isChecked()
    assert 0 < objects_panel.threshold.value() < 55
    objects_panel.threshold_slider.setValue(550)  # 0.55 squared: 30 %
    assert not objects_panel.automatic.isChecked()
    assert objects_panel.threshold.value() == pytest.approx(30.3)
    settle()
    assert viewer.layers["discs preview"].data.max() == 3
    objects_panel.threshold.setValue(5)
    assert objects_panel.threshold_slider.value() == 224
    settle()
    assert viewer.layers["discs preview"].data.max() == 4


def test_the_channel_is_asked_for_where_there_are_colours(viewer, objects_panel, settle):
    viewer.add_image(discs(), name="grey")
    assert not objects_panel.form.isRowVisible(objects_panel.channel)
    viewer.add_image(imread(SAMPLES / "blood-smear.jpg"), name="smear", rgb=True)
    objects_panel.image.choose(viewer.layers["smear"])
    assert objects_panel.form.isRowVisible(objects_panel.channel)
    objects_panel.channel.setCurrentText("Nuclei: purple, not pink")
    assert not objects_panel.split.isChecked()  # lobes are not cells
    objects_panel.min_size.setValue(1500)
    settle()
    assert viewer.layers["smear preview"].data.max() == 2  # the two white cells


def test_make_labels_adds_a_layer_and_takes_the_preview_away(viewer, objects_panel, settle, finish):
    viewer.add_image(discs(), name="discs")
    settle()
    objects_panel.run_button.click()
    finish(objects_panel)
    assert [layer.name for layer in viewer.layers] == ["discs", "discs objects"]
    layer = viewer.layers["discs objects"]
    assert isinstance(layer, Labels)
    np.testing.assert_array_equal(layer.data, find_objects(discs()))
    assert layer.metadata["found with"]["min_size_px"] == 200
    assert "3 objects, median" in objects_panel.message.text()
    assert objects_panel.preview.layer is None


PLACES = [
    {},
    {"scale": (0.5, 0.5), "units": ("um", "um")},
    {"scale": (0.5, 0.25), "translate": (7, -3), "rotate": 30},
    {"affine": [[0.8, 0.3, 5], [-0.2, 1.1, 9], [0, 0, 1]], "shear": [0.2]},
]


@pytest.mark.parametrize("place", PLACES)
def test_preview_and_labels_lie_on_the_image(viewer, objects_panel, settle, finish, place):
    image = viewer.add_image(discs(), name="discs", **place)
    settle()
    preview = viewer.layers["discs preview"]
    for centre in CENTRES:
        assert preview.get_value(image.data_to_world(centre), world=True) > 0
    objects_panel.run_button.click()
    finish(objects_panel)
    labels = viewer.layers["discs objects"]
    assert labels.units == image.units
    for corner in ((0, 0), (0, 159), (119, 0), *CENTRES):
        np.testing.assert_allclose(labels.data_to_world(corner), image.data_to_world(corner))


def test_the_preview_moves_with_its_image(viewer, objects_panel, settle):
    image = viewer.add_image(discs(), name="discs")
    settle()
    image.scale, image.translate, image.rotate = (2, 3), (10, 20), 45
    settle()
    preview = viewer.layers["discs preview"]
    for corner in ((0, 0), (119, 0), (0, 159)):
        np.testing.assert_allclose(preview.data_to_world(corner), image.data_to_world(corner))


def test_the_preview_follows_the_pixels(viewer, objects_panel, settle):
    image = viewer.add_image(discs(), name="discs")
    settle()
    image.data = discs(centres=CENTRES[:1])
    settle()
    assert viewer.layers["discs preview"].data.max() == 1


def test_switching_images_switches_the_preview(viewer, objects_panel, settle):
    first = viewer.add_image(discs(), name="first")
    second = viewer.add_image(discs(centres=CENTRES[:1]), name="second", scale=(3, 3))
    objects_panel.image.choose(second)
    settle()
    assert [n.name for n in viewer.layers] == ["first", "second", "second preview"]
    objects_panel.image.choose(first)
    settle()
    assert [n.name for n in viewer.layers] == ["first", "second", "first preview"]
    assert viewer.layers["first preview"].data.max() == 3


def test_other_layers_leave_the_preview_as_it_is(viewer, objects_panel, settle):
    viewer.add_image(discs(), name="discs")
    settle()
    preview = viewer.layers["discs preview"]
    viewer.add_points([[5, 5]])
    viewer.layers.selection.active = viewer.layers["discs"]
    objects_panel.min_size.setValue(250)
    settle()
    assert viewer.layers["discs preview"] == preview


def test_deleting_the_image_takes_its_preview_away(viewer, objects_panel, settle):
    viewer.add_image(discs(), name="discs")
    settle()
    viewer.layers.remove("discs")
    settle()
    assert len(viewer.layers) == 0
    assert not objects_panel.run_button.isEnabled()
    assert "Open an image" in objects_panel.message.text()


def test_deleting_the_preview_switches_it_off(viewer, objects_panel, settle):
    viewer.add_image(discs(), name="discs")
    settle()
    viewer.layers.remove("discs preview")
    assert not objects_panel.live.isChecked()
    objects_panel.min_size.setValue(5)
    settle()
    assert [layer.name for layer in viewer.layers] == ["discs"]
    objects_panel.live.setChecked(True)
    settle()
    assert "discs preview" in viewer.layers


def test_clearing_the_viewer_while_the_preview_looks_is_survived(viewer, objects_panel, settle):
    viewer.add_image(imread(SAMPLES / "blood-smear.jpg"), name="smear", rgb=True)
    objects_panel.preview._look()
    assert objects_panel.preview.is_busy
    viewer.layers.clear()
    settle()
    assert len(viewer.layers) == 0


@pytest.fixture
def shown(make_napari_viewer_proxy, qtbot):
    """A window on the screen with discs, their preview, the panel and its dock."""
    viewer = make_napari_viewer_proxy(show=True)
    viewer.add_image(discs(), name="discs")
    dock, panel = viewer.window.add_plugin_dock_widget("napari-mambamic", "Find objects")
    qtbot.waitUntil(lambda: "discs preview" in viewer.layers, timeout=60_000)
    qtbot.waitUntil(lambda: not panel.preview.is_busy, timeout=60_000)
    yield viewer, dock, panel
    panel.preview.close()
    qtbot.waitUntil(lambda: not panel.preview.is_busy, timeout=60_000)


def test_closing_the_panel_takes_its_preview_away(shown, qtbot):
    viewer, dock, panel = shown
    dock.destroyOnClose()
    assert [layer.name for layer in viewer.layers] == ["discs"]
    viewer.layers["discs"].scale = (2, 2)
    viewer.add_image(discs(), name="more")
    viewer.layers.remove("discs")  # another image is the chosen one now
    qtbot.wait(200)
    assert not panel.preview.is_busy
    assert [layer.name for layer in viewer.layers] == ["more"]


def test_behind_another_tab_there_is_no_preview_until_it_comes_back(shown, qtbot):
    viewer, dock, panel = shown
    dock.hide()
    assert "discs preview" not in viewer.layers
    panel.min_size.setValue(100)
    qtbot.wait(200)
    assert "discs preview" not in viewer.layers
    dock.show()
    qtbot.waitUntil(lambda: "discs preview" in viewer.layers, timeout=60_000)


def test_closing_the_window_while_the_preview_looks_is_survived(survives):
    # In a process of its own: whatever goes wrong at exit shows in its exit code and its words.
    script = """
import numpy as np, napari
from qtpy.QtCore import QTimer
viewer = napari.Viewer()
viewer.add_image(np.random.default_rng(0).integers(0, 255, (700, 700), np.uint8))
_, panel = viewer.window.add_plugin_dock_widget("napari-mambamic", "Find objects")
def close_while_it_looks():
    if panel.preview._worker is not None:
        viewer.close()
        timer.stop()
timer = QTimer()
timer.timeout.connect(close_while_it_looks)
timer.start(1)
napari.run()
print("survived")
"""
    survives(script)


def test_classify_takes_the_labels(viewer, objects_panel, finish):
    other = viewer.add_labels(np.zeros((5, 5), int), name="other")
    image = viewer.add_image(imread(SAMPLES / "blood-smear.jpg"), name="smear", rgb=True)
    objects_panel.run_button.click()
    finish(objects_panel)
    viewer.layers.move(viewer.layers.index(other), len(viewer.layers))
    viewer.add_image(discs(), name="another image")
    name = "Classify tiles and cells"
    dock, panel = viewer.window.add_plugin_dock_widget("napari-mambamic", name, tabify=True)
    dock.hide()  # closed by the user, or behind another tab
    objects_panel.classify_button.click()
    assert not dock.isHidden()
    assert panel.image.layer == image
    assert panel.cut.currentText() == "Objects of a Labels layer"
    assert panel.labels.layer == viewer.layers["smear objects"]
    panel.run_button.click()
    finish(panel)
    n_objects = viewer.layers["smear objects"].data.max()
    assert panel.results.object_ids.tolist() == list(range(1, n_objects + 1))


def test_classify_after_the_labels_were_deleted_gets_a_sentence(viewer, objects_panel, finish):
    viewer.add_image(discs(), name="discs")
    objects_panel.run_button.click()
    finish(objects_panel)
    viewer.layers.remove("discs objects")
    objects_panel.classify_button.click()
    assert "were deleted" in objects_panel.message.text()


def test_a_plane_of_a_stack_gets_labels_that_can_be_classified(
    viewer, objects_panel, settle, finish, panel
):
    stack = np.stack([np.full((120, 160), 200, np.uint8), discs(), discs(centres=CENTRES[:1])])
    viewer.add_image(stack, name="stack", scale=(2, 1, 1))
    viewer.dims.set_point(0, 2)  # the second plane
    settle()
    assert viewer.layers["stack preview"].data.max() == 3
    viewer.dims.set_point(0, 4)
    settle()
    assert viewer.layers["stack preview"].data.max() == 1
    viewer.dims.set_point(0, 2)
    objects_panel.run_button.click()
    finish(objects_panel)
    labels = viewer.layers["stack objects"]
    assert [int(plane.max()) for plane in labels.data] == [0, 3, 0]
    assert "the plane at axis 0 = 1" in objects_panel.message.text()
    panel.image.choose(viewer.layers["stack"])
    panel.cut.setCurrentIndex(1)
    panel.labels.choose(labels)
    panel.run_button.click()
    finish(panel)
    assert panel.results.object_ids.tolist() == [1, 2, 3]


def test_multiscale_images_are_looked_at_in_full(viewer, objects_panel, settle, finish):
    full = np.kron(discs(), np.ones((2, 2), np.uint8))
    viewer.add_image([full, full[::2, ::2]], name="pyramid", multiscale=True)
    settle()
    objects_panel.run_button.click()
    finish(objects_panel)
    np.testing.assert_array_equal(viewer.layers["pyramid objects"].data, find_objects(full))


def test_of_a_large_plane_the_part_in_view_is_previewed(viewer, objects_panel, settle):
    large = np.tile(discs(), (20, 20))
    viewer.add_image(large, name="large")
    settle()
    height, width = viewer.layers["large preview"].data.shape
    assert height * width <= 600_000
    assert f"Previewed: {height:,} x {width:,} px" in objects_panel.found.text()


def test_the_region_in_view_lies_inside_and_has_the_size_that_is_wanted(viewer):
    image = viewer.add_image(np.zeros((2400, 3200), np.uint8))
    plane = plane_of_layer(viewer, image)
    assert region_in_view(plane, most_pixels=10**8) == (0, 0, 2400, 3200)
    for corners in ([[100, 200], [300, 500]], [[-50, 2000], [900, 9000]], [[0, 0], [2400, 3200]]):
        image.corner_pixels = np.array(corners)
        y, x, height, width = region_in_view(plane, most_pixels=90_000)
        assert 0 < height * width <= 90_000
        assert y >= 0
        assert x >= 0
        assert y + height <= 2400
        assert x + width <= 3200
    image.corner_pixels = np.array([[100, 200], [300, 500]])
    assert region_in_view(plane, most_pixels=90_000) == (100, 200, 201, 301)


def test_too_large_a_plane_gets_a_sentence(viewer, objects_panel, settle, finish):
    objects_panel.live.setChecked(False)
    plane = da.zeros((20_000, 20_000), np.uint8)  # napari draws the small one
    levels = [plane, plane[::20, ::20]]
    viewer.add_image(levels, multiscale=True, name="slide", contrast_limits=(0, 255))
    objects_panel.run_button.click()
    finish(objects_panel)
    assert "too many to find objects in at once" in objects_panel.message.text()
    assert [layer.name for layer in viewer.layers] == ["slide"]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.full((50, 60), 7, np.uint8), "all pixels of the image have the same value"),
        (np.full((50, 60), np.nan), "no pixel that is a number"),
    ],
)
def test_images_without_objects_get_a_sentence(viewer, objects_panel, settle, finish, image, words):
    viewer.add_image(image, name="nothing", contrast_limits=(0, 255))
    settle()
    assert words in objects_panel.found.text()
    objects_panel.run_button.click()
    finish(objects_panel)
    assert objects_panel.message.text().startswith("⚠")
    assert "nothing objects" not in viewer.layers
    assert not objects_panel.classify_button.isVisibleTo(objects_panel)


def test_cancel_adds_nothing(viewer, objects_panel, finish, settle):
    viewer.add_image(np.tile(discs(), (25, 20)), name="many")
    settle()
    objects_panel.run_button.click()
    objects_panel.cancel_button.click()
    finish(objects_panel)
    assert "Stopped" in objects_panel.message.text()
    assert "many objects" not in viewer.layers


def test_the_preview_is_no_input(viewer, objects_panel, settle, panel):
    viewer.add_image(discs(), name="discs")
    settle()
    assert panel.labels.layer is None


def test_every_control_has_a_tooltip_and_every_field_a_name(objects_panel):
    kinds = (QPushButton, QComboBox, QSpinBox, QDoubleSpinBox, QSlider, QCheckBox)
    for kind in kinds:
        for control in objects_panel.findChildren(kind):
            assert control.toolTip(), control
            if kind not in (QPushButton, QCheckBox):
                assert control.accessibleName(), control


def test_it_is_in_the_menu_of_segmentation():
    menus = PluginManifest.from_distribution("napari-mambamic").contributions.menus
    commands = [item.command for item in menus["napari/layers/segment"]]
    assert commands == ["napari-mambamic.find_objects"]
