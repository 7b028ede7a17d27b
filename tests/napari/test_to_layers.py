"""Result layers lie exactly where the tiles do."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.components import ViewerModel
from napari.layers import Image, Labels, Points

from napari_mambamic._napari.from_layer import plane_of_layer
from napari_mambamic._napari.to_layers import ResultLayers
from napari_mambamic.colours import class_colours
from napari_mambamic.results import TileResults
from napari_mambamic.stitching import label_geometry
from napari_mambamic.tiling import plan_tiles, tiles_at_points, tiles_of_objects

NAMES = ("a", "b", "c")


def results_for(tiles, done=None):
    probabilities = np.random.default_rng(len(tiles)).dirichlet(np.ones(3), len(tiles))
    if done is not None:
        probabilities[done:] = np.nan
    return TileResults(NAMES, tiles, probabilities.astype(np.float32), None, {}, done is None)


def show(shape, results, *, heatmaps=(), objects=None, **transform):
    viewer = ViewerModel()
    layer = Image(da.zeros(shape, dtype=np.uint8), **transform)
    viewer.add_layer(layer)
    plane = plane_of_layer(viewer, layer)
    return layer, ResultLayers(viewer, [plane], results, heatmaps=heatmaps, objects=objects), viewer


transforms = st.fixed_dictionaries(
    {
        "scale": st.tuples(st.floats(0.05, 20), st.floats(0.05, 20)),
        "translate": st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)),
        "rotate": st.floats(-180, 180),
        "shear": st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=1),
        "affine": st.builds(
            lambda a, b, c, t: np.array([[1 + a, b, t], [c, 1 - a, -t], [0, 0, 1]]),
            *[st.floats(-0.3, 0.3)] * 3,
            st.floats(-50, 50),
        ),
    }
)
grids = st.tuples(st.integers(2, 60), st.integers(2, 60), st.integers(1, 25)).flatmap(
    lambda g: st.tuples(st.just(g[:2]), st.just(g[2]), st.integers(0, g[2] - 1))
)


def are_few(shape, size, overlap):
    """Whether each tile gets a colour of its own."""
    return len(plan_tiles(shape, tile_size=size, overlap=overlap)) <= 2500


@settings(deadline=None, max_examples=60)
@given(grid=grids.filter(lambda g: are_few(*g)), transform=transforms)
def test_every_label_pixel_lies_in_the_tile_that_it_speaks_for(grid, transform):
    (height, width), size, overlap = grid
    tiles = plan_tiles((height, width), tile_size=size, overlap=overlap)
    layer, shown, _ = show((height, width), results_for(tiles), heatmaps=["b"], **transform)
    labels = shown.main
    assert labels.data.shape == tiles.shape
    for (row, column), value in np.ndenumerate(np.asarray(labels.data)):
        tile = tiles[int(value) - 1]
        corners = []
        for corner in ((-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)):
            world = labels.data_to_world(np.add((row, column), corner))
            corners.append(layer.world_to_data(world))
        low, high = np.min(corners, axis=0), np.max(corners, axis=0)
        # In px of the image a pixel is a square whose side is the stride.
        np.testing.assert_allclose(high - low, tiles.stride, atol=1e-5)
        # A tile that was moved back inside by more than the overlap: what is on the plane counts.
        high = np.minimum(high, np.array([height, width]) - 0.5)
        if min(height, width) >= size:
            assert (low >= np.array([tile.y, tile.x]) - 0.5 - 1e-5).all()
            assert (high <= np.array([tile.y, tile.x]) + size - 0.5 + 1e-5).all()
            assert (high > low).all()
    for heatmap in shown.layers[:-1]:
        np.testing.assert_allclose(
            heatmap.data_to_world((0, 0)), labels.data_to_world((0, 0)), rtol=1e-9
        )


@settings(deadline=None, max_examples=30)
@given(transform=transforms)
def test_without_overlap_pixels_and_tiles_have_the_same_corners(transform):
    tiles = plan_tiles((40, 60), tile_size=20)
    layer, shown, _ = show((40, 60), results_for(tiles), **transform)
    for number, tile in enumerate(tiles):
        pixel = np.array(divmod(number, 3))
        for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
            of_tile = layer.data_to_world(
                np.array([tile.y, tile.x]) + np.multiply(corner, 20) - 0.5
            )
            of_pixel = shown.main.data_to_world(pixel + np.array(corner) - 0.5)
            np.testing.assert_allclose(of_pixel, of_tile, rtol=1e-7, atol=1e-6)


def test_with_overlap_a_pixel_is_in_the_middle_of_its_tile():
    (y, x), side = label_geometry(plan_tiles((100, 100), tile_size=40, overlap=20))
    assert side == 20
    assert (y, x) == (19.5, 19.5)


def test_transform_and_units_are_those_of_the_image():
    tiles = plan_tiles((40, 60), tile_size=20, overlap=10)
    layer, shown, _ = show(
        (40, 60),
        results_for(tiles),
        heatmaps=NAMES,
        scale=(0.5, 0.25),
        units=("um", "um"),
        axis_labels=("down", "right"),
    )
    for made in shown.layers:
        assert made.units == layer.units
        assert made.axis_labels == ("down", "right")
        np.testing.assert_allclose(made.scale, (5, 2.5))


def test_the_plane_of_a_volume_gets_its_result_at_its_depth():
    tiles = plan_tiles((40, 60), tile_size=20)
    viewer = ViewerModel()
    layer = Image(np.zeros((5, 40, 60), np.uint8), scale=(3, 1, 1), translate=(7, 0, 0))
    viewer.add_layer(layer)
    viewer.dims.set_point(0, 7 + 3 * 2)
    plane = plane_of_layer(viewer, layer)
    assert plane.index == (2,)
    assert "axis -3 = 2" in plane.note or "= 2" in plane.note
    shown = ResultLayers(viewer, [plane], results_for(tiles))
    assert shown.main.data.shape == (1, 2, 3)
    np.testing.assert_allclose(shown.main.data_to_world((0, 0, 0)), (13, 9.5, 9.5))


def test_features_colours_and_heatmaps_tell_the_results():
    tiles = plan_tiles((40, 60), tile_size=20)
    results = results_for(tiles)
    _, shown, viewer = show((40, 60), results, heatmaps=["c"])
    labels, colours = shown.main, class_colours(3)
    assert labels.features["index"].tolist() == [1, 2, 3, 4, 5, 6]
    assert labels.features["class"].tolist() == [NAMES[i] for i in results.labels]
    np.testing.assert_allclose(labels.features["probability"], results.probabilities.max(1))
    for number, label in enumerate(results.labels):
        np.testing.assert_allclose(labels.get_color(number + 1), colours[label], atol=1e-6)
    np.testing.assert_array_equal(shown.layers[0].data, results.probabilities[:, 2].reshape(2, 3))
    status = labels.get_status((25, 45), world=True)["coordinates"]
    assert f"class: {NAMES[results.labels[5]]}" in status
    assert "probability: 0." in status
    assert viewer.layers.selection.active is labels


def test_layers_fill_while_a_run_goes_on_and_a_stopped_one_is_marked():
    tiles = plan_tiles((40, 60), tile_size=20)
    results = results_for(tiles, done=2)
    whole = results_for(tiles)
    _, shown, _ = show((40, 60), results, heatmaps=["a"])
    assert len(shown.main.features) == 2
    assert shown.main.get_color(3)[3] == 0
    assert np.isnan(shown.layers[0].data).sum() == 4
    results.probabilities[2:4] = whole.probabilities[2:4]
    shown.finish(results)
    assert len(shown.main.features) == 4
    assert shown.main.get_color(3)[3] == 1
    assert np.isnan(shown.layers[0].data).sum() == 2
    assert all(layer.name.endswith("(partial)") for layer in shown.layers)


def test_objects_keep_their_shapes_and_get_the_colour_of_their_class():
    labels = np.zeros((40, 60), np.int32)
    labels[5:10, 5:10], labels[20:30, 30:50] = 4, 9
    results = results_for(tiles_of_objects(labels, tile_size=12))
    transform = {"scale": (2, 3), "translate": (5, 6), "rotate": 30}
    layer, shown, _ = show((40, 60), results, objects=Labels(labels, **transform), **transform)
    assert isinstance(shown.main, Labels)
    np.testing.assert_array_equal(shown.main.data, labels)
    np.testing.assert_allclose(shown.main.data_to_world((3, 4)), layer.data_to_world((3, 4)))
    assert shown.main.features["index"].tolist() == [4, 9]
    np.testing.assert_allclose(
        shown.main.get_color(9), class_colours(3)[results.labels[1]], atol=1e-6
    )


def test_points_keep_their_places_and_get_the_colour_of_their_class():
    places = np.array([[5.0, 6], [20, 30], [33, 50]])
    points = Points(places, size=[3, 4, 5], scale=(2, 2), translate=(1, 1))
    results = results_for(tiles_at_points(places, tile_size=9), done=2)
    _, shown, _ = show((40, 60), results, objects=points)
    assert isinstance(shown.main, Points)
    np.testing.assert_array_equal(shown.main.data, places)
    np.testing.assert_allclose(shown.main.data_to_world((3, 4)), points.data_to_world((3, 4)))
    np.testing.assert_allclose(
        shown.main.face_color[:2], class_colours(3)[results.labels[:2]], atol=1e-6
    )
    assert shown.main.face_color[2, 3] == 0
    assert shown.main.features["class"].tolist()[:2] == [NAMES[i] for i in results.labels[:2]]


@pytest.mark.parametrize("n", [2, 8, 17])
def test_classes_have_different_colours(n):
    assert len(np.unique(class_colours(n), axis=0)) == n


def test_many_tiles_are_coloured_by_class_and_filled_batch_by_batch():
    tiles = plan_tiles((600, 800), tile_size=10)
    results = results_for(tiles)
    everything = results.probabilities.copy()
    results.probabilities[:] = np.nan
    _, shown, _ = show((600, 800), results, heatmaps=["b"])
    assert not shown.main.data.any()
    batch = np.array([5, 80, 4799])
    results.probabilities[batch] = everything[batch]
    shown.update(results, tiles=batch)
    flat = shown.main.data.ravel()
    np.testing.assert_array_equal(flat[batch], everything[batch].argmax(axis=1) + 1)
    assert np.count_nonzero(flat) == 3
    assert np.isfinite(shown.layers[0].data).sum() == 3
    results.probabilities[:], results.complete = everything, True
    shown.finish(results)
    np.testing.assert_array_equal(shown.main.data.ravel(), everything.argmax(axis=1) + 1)
    features = shown.main.features
    assert features["class"].tolist() == [*NAMES, "unsure"]
    assert features["tiles"].tolist() == [*results.counts.values(), 0]
    for value, colour in enumerate(class_colours(3), 1):
        np.testing.assert_allclose(shown.main.colormap.color_dict[value], colour)


def test_planes_of_a_stack_are_filled_each_at_its_depth():
    viewer = ViewerModel()
    layer = Image(da.zeros((5, 40, 60), dtype=np.uint8), scale=(3, 1, 1), translate=(7, 0, 0))
    viewer.add_layer(layer)
    planes = [plane_of_layer(viewer, layer, index=(z,)) for z in (1, 2, 3)]
    tiles = plan_tiles((40, 60), tile_size=20)
    results = [results_for(tiles) for _ in planes]
    results[1].probabilities[:] = results[1].probabilities[::-1].copy()
    shown = ResultLayers(viewer, planes, results[0])
    for number, each in enumerate(results):
        shown.finish(each, plane=number)
    assert shown.main.data.shape == (3, 2, 3)
    for number, each in enumerate(results):
        np.testing.assert_array_equal(shown.main.data[number].ravel(), each.labels + 1)
    np.testing.assert_allclose(
        shown.main.data_to_world((2, 0, 0)), layer.data_to_world((3, 9.5, 9.5))
    )


def test_objects_of_a_stack_get_the_colour_of_their_class_plane_by_plane():
    viewer = ViewerModel()
    layer = Image(np.zeros((3, 40, 60), np.uint8))
    viewer.add_layer(layer)
    data = np.zeros((3, 40, 60), np.int32)
    data[0, 5:10, 5:10], data[1, 20:30, 30:40], data[1, 1, 1] = 9, 4, 9
    objects = Labels(data)
    planes = [plane_of_layer(viewer, layer, index=(z,)) for z in (0, 1)]
    results = [results_for(tiles_of_objects(data[z], tile_size=8)) for z in (0, 1)]
    shown = ResultLayers(viewer, planes, results[0], objects=objects)
    for number, each in enumerate(results):
        shown.finish(each, plane=number)
    assert shown.main.data[0, 7, 7] == results[0].labels[0] + 1
    assert shown.main.data[1, 25, 35] == results[1].labels[0] + 1
    assert shown.main.data[1, 1, 1] == results[1].labels[1] + 1
    assert np.count_nonzero(shown.main.data[0]) == 25


def test_a_result_is_shown_with_every_channel():
    viewer = ViewerModel()
    layer = Image(da.zeros((4, 3, 40, 60), dtype=np.uint8))
    viewer.add_layer(layer)
    planes = [plane_of_layer(viewer, layer, index=(t, 2)) for t in (1, 2)]
    results = results_for(plan_tiles((40, 60), tile_size=20))
    shown = ResultLayers(viewer, planes, results, heatmaps=["b"], channel_axis=1)
    for number in (0, 1):
        shown.finish(results, plane=number)
    assert shown.main.data.shape == (2, 3, 2, 3)
    for channel in range(3):
        np.testing.assert_array_equal(shown.main.data[1, channel].ravel(), results.labels + 1)
        np.testing.assert_array_equal(
            shown.layers[0].data[0, channel].ravel(), results.probabilities[:, 1]
        )
    np.testing.assert_allclose(
        shown.main.data_to_world((0, 0, 0, 0)), layer.data_to_world((1, 0, 9.5, 9.5))
    )
