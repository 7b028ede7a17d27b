"""Scripts of runs on stacks run as they stand, and give the labels of the run."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tifffile
import zarr

from napari_mambamic import classify_layer, classify_objects
from napari_mambamic._napari.export_commands import put_script_on_clipboard
from napari_mambamic._napari.to_layers import results_of
from napari_mambamic.as_script import gaps_of

KEEP_LABELS = """
import numpy
numpy.savez("labels.npz", **{repr(at): each.labels for at, each in results.items()})
"""


@pytest.fixture
def planes(sheet):
    """Planes (z, y, x, 3) of three cells each, of another class in each plane."""
    return np.stack([sheet[192 * z : 192 * z + 96, :288] for z in range(4)])


@pytest.fixture
def stack(viewer, planes, tmp_path):
    """The planes as napari opens them from a TIFF file."""
    path = tmp_path / "cells 'z'.tif"
    tifffile.imwrite(path, planes, photometric="rgb", metadata={"axes": "ZYXS"})
    (layer,) = viewer.open(path, plugin="napari")
    assert layer.data.shape == planes.shape
    return layer


@pytest.fixture
def script(viewer, script_by):
    """The script of a layer of classes."""

    def copy(layer):
        run = layer.metadata["mambamic"]
        return script_by(lambda: put_script_on_clipboard(viewer, layer, run, lambda said: None))

    return copy


@pytest.fixture
def run(script, tmp_path):
    """Labels by plane that the script of a layer computes in a process of its own."""

    def labels_of(layer):
        text = script(layer)
        assert gaps_of(text) == []
        (tmp_path / "again.py").write_text(text + KEEP_LABELS, encoding="utf-8")
        command = [sys.executable, "again.py"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return dict(np.load(tmp_path / "labels.npz"))

    return labels_of


def in_process(text, **given):
    """What a script computes here, with what is given for its gaps."""
    assert gaps_of(text) == list(given)
    names = {f"given_{name}": value for name, value in given.items()}
    for name in given:
        text = text.replace(f"{name} = ...", f"{name} = given_{name}")
    exec(text, names)
    results = names["results"]
    return {repr(at): each.labels for at, each in results.items()}


def labels_by_plane(layer):
    return {
        repr(tuple(each.provenance["layer"]["plane"])): each.labels for each in results_of(layer)
    }


def assert_same(again, layer, n_planes):
    expected = labels_by_plane(layer)
    assert len(expected) == n_planes
    assert list(again) == list(expected)
    for at, labels in expected.items():
        assert (labels >= 0).any()
        np.testing.assert_array_equal(again[at], labels)


def test_objects_of_a_stack_of_labels(viewer, stack, run, tmp_path):
    """They were never a file, and one plane has none."""
    labels = np.zeros(stack.data.shape[:3], np.int32)
    labels[0, 20:76, 24:70], labels[1, 20:76, 120:166] = 7, 8
    labels[3, 20:76, 24:70], labels[3, 20:76, 216:262] = 70_000, 9
    cells = viewer.add_labels(labels, name="cells")
    layer = classify_layer(viewer, stack, objects=cells, planes="all", device="cpu")[-1]
    assert_same(run(layer), layer, 3)
    (written,) = (tmp_path / "data").rglob("*.zarr")
    np.testing.assert_array_equal(zarr.open(written, mode="r")[:], labels)


@pytest.mark.parametrize("deep", [True, False])
def test_a_mask_of_each_plane_or_of_all(viewer, stack, run, deep):
    mask = np.zeros(stack.data.shape[:3], bool)
    mask[1, :, :192], mask[3, :, 192:] = True, True
    tissue = viewer.add_labels(mask if deep else mask[1], name="tissue")
    layer = classify_layer(viewer, stack, within=tissue, planes="all", device="cpu")[-1]
    done = [np.flatnonzero(each.is_done).tolist() for each in results_of(layer)]
    assert done == ([[0, 1], [2]] if deep else [[0, 1]] * 4)
    assert_same(run(layer), layer, len(done))


def test_shapes_of_each_plane(viewer, stack, run):
    around = [
        [(z, 0, x), (z, 0, x + 95), (z, 95, x + 95), (z, 95, x)] for z, x in ((0, 96), (2, 0))
    ]
    shapes = viewer.add_shapes(around, shape_type="polygon", name="regions")
    layer = classify_layer(viewer, stack, within=shapes, planes="all", device="cpu")[-1]
    assert_same(run(layer), layer, 2)


def test_points_of_a_layer_with_its_own_scale(viewer, stack, run, classifier):
    points = np.array([[3, 48.25, 48], [0, 48, 144], [3.2, 40, 240], [1, 50, 150]])
    marks = viewer.add_points(points * [1, 0.5, 0.5], name="marks", scale=(1, 2, 2))
    layer = classify_layer(viewer, stack, objects=marks, planes="all", device="cpu")[-1]
    again = run(layer)
    assert_same(again, layer, 3)
    expected = classify_objects(stack.data[3], points[[0, 2], 1:], classifier)
    np.testing.assert_array_equal(again["(3,)"], expected.labels)


def test_only_the_planes_of_the_run_are_written(viewer, stack, script, tmp_path):
    labels = np.zeros(stack.data.shape[:3], np.uint8)
    labels[:, 20:76, 24:70] = 1
    cells = viewer.add_labels(labels, name="cells")
    layer = classify_layer(viewer, stack, objects=cells, planes={0: (1, 3)}, device="cpu")[-1]
    assert_same(in_process(script(layer)), layer, 2)
    (written,) = (tmp_path / "data").rglob("*.zarr")
    assert zarr.open(written, mode="r").nchunks_initialized == 2


def test_one_plane_of_a_stack_with_its_mask(viewer, stack, script):
    mask = np.zeros(stack.data.shape[:3], np.uint8)
    mask[2, :, 96:] = 1
    tissue = viewer.add_labels(mask, name="tissue")
    viewer.dims.set_point(0, 2)
    layer = classify_layer(viewer, stack, within=tissue, device="cpu")[-1]
    text = script(layer)
    assert "z=2" in text
    names = {}
    assert gaps_of(text) == []
    exec(text, names)
    np.testing.assert_array_equal(names["results"].labels, results_of(layer)[0].labels)


def test_pixels_that_are_not_those_of_the_file_are_put_in_by_hand(viewer, stack, script):
    stack.data = stack.data[:, ::-1].copy()
    layer = classify_layer(viewer, stack, planes="all", device="cpu")[-1]
    assert_same(in_process(script(layer), stack=stack.data), layer, 4)


@pytest.fixture
def channels(viewer, planes, tmp_path):
    """A file of time points, planes and channels, (t, z, c, y, x), each as long as the next."""
    grey = planes[:3, :, :, 1]
    data = np.stack([[grey[[z, t, (z + t) % 3]] for z in range(3)] for t in range(3)])
    path = tmp_path / "film.ome.tif"
    tifffile.imwrite(path, data, photometric="minisblack", metadata={"axes": "TZCYX"})
    return path, data


def test_channels_along_an_axis(viewer, channels, script):
    path, _ = channels
    (film,) = viewer.open(path, plugin="napari")
    layer = classify_layer(
        viewer, film, channels=[2, 0, 1], channel_axis=2, planes="all", device="cpu"
    )[-1]
    text = script(layer)
    assert ".with_channels([2, 0, 1])" in text
    assert_same(in_process(text), layer, 9)


def test_each_channel_as_a_plane(viewer, channels, script):
    """Grey stands in for colours; the axes of the file are told apart by their pixels."""
    path, data = channels
    (film,) = viewer.open(path, plugin="napari")
    film.data = np.moveaxis(data, 0, 1)  # as some readers do: (z, t, c, y, x)
    layer = classify_layer(viewer, film, planes="all", device="cpu")[-1]
    assert_same(in_process(script(layer)), layer, 27)


def test_channels_that_a_reader_made_layers_of(viewer, channels, script):
    path, data = channels
    layers = []
    for number in range(3):
        (layer,) = viewer.open(path, plugin="napari", name=f"channel {number}")
        layer.data = data[:, :, number]
        layers.append(layer)
    shown = classify_layer(viewer, layers[0], channels=layers[::-1], planes="all", device="cpu")[-1]
    assert_same(in_process(script(shown)), shown, 9)
    alone = classify_layer(viewer, layers[1], device="cpu")[-1]
    names = {}
    exec(script(alone), names)
    np.testing.assert_array_equal(names["results"].labels, results_of(alone)[0].labels)


@pytest.fixture
def stains(viewer, channels, tmp_path):
    """A file for each channel: of all planes, of each z alone, and one of a stack of channels."""
    _, data = channels
    written = [("first.ome.tif", data[:, :, 0], "TZYX"), ("second.tif", data[0, :, 1], "ZYX")]
    written.append(("third.ome.tif", data, "TZCYX"))
    layers = []
    for name, pixels, axes in written:
        tifffile.imwrite(tmp_path / name, pixels, photometric="minisblack", metadata={"axes": axes})
        (layer,) = viewer.open(tmp_path / name, plugin="napari", name=name)
        layers.append(layer)
    layers[2].data = data[:, :, 2]  # as some readers make a layer of each channel
    return layers


def test_channels_from_several_files(viewer, stains, run):
    """The layer of one has no time points, and shows the same at all of them."""
    layer = classify_layer(viewer, stains[0], channels=stains, planes="all", device="cpu")[-1]
    assert_same(run(layer), layer, 9)


def test_one_plane_of_channels_from_several_files(viewer, stains, script):
    first, _, third = stains
    viewer.dims.set_point(0, 2)
    viewer.dims.set_point(1, 1)
    channels = [third, first, third]
    layer = classify_layer(viewer, first, channels=channels, device="cpu")[-1]
    text, names = script(layer), {}
    assert gaps_of(text) == []
    exec(text, names)
    (expected,) = results_of(layer)
    assert expected.provenance["layer"]["plane"] == [2, 1]
    np.testing.assert_array_equal(names["results"].labels, expected.labels)
    np.testing.assert_allclose(names["results"].probabilities, expected.probabilities, atol=1e-5)


def test_a_channel_that_is_in_no_file_is_put_in_by_hand(viewer, stains, script, tmp_path):
    first, _, third = stains
    third.data = third.data[..., ::-1].copy()
    channels = [first, third, first]
    layer = classify_layer(viewer, first, channels=channels, planes="all", device="cpu")[-1]
    text = script(layer)
    assert f"layer 'third.ome.tif', an array (..., 96, 288) of uint8, of {tmp_path}" in text
    assert_same(in_process(text, stack_1=first.data, stack_2=third.data), layer, 9)
    alone = classify_layer(viewer, first, channels=channels, device="cpu")[-1]
    (gap,) = (line for line in script(alone).splitlines() if "<-- put here" in line)
    assert f"made of first.ome.tif of {tmp_path / 'first.ome.tif'}, third.ome.tif of" in gap


# ---- levels --------------------------------------------------------------------------------------

TILES = {"tile_size": 192, "planes": "all", "device": "cpu"}  # twice as large as the patches


@pytest.fixture
def levels(sheet):
    """Two levels (z, y, x) of other cells each, to tell which was read, and smaller in (y, x)."""
    fine = np.stack([sheet[192 * z : 192 * z + 192, :384, 2] for z in range(3)])
    coarse = np.stack([sheet[96 * z : 96 * z + 96, 600:792, 2] for z in (5, 3, 1)])
    return [fine, coarse]


def without_coarse(viewer, levels):
    alone = viewer.add_image(levels[0], name="finest")
    return labels_by_plane(classify_layer(viewer, alone, **TILES)[-1])


def differ(one, other):
    return any((one[at] != other[at]).any() for at in one)


def test_all_levels_of_ome_zarr(viewer, levels, run, tmp_path):
    path = tmp_path / "levels.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=2)
    for number, level in enumerate(levels):
        group.create_array(str(number), data=level, chunks=(1, 64, 64))
    axes = [{"name": name, "type": "space"} for name in "zyx"]
    datasets = [
        {
            "path": str(number),
            "coordinateTransformations": [{"type": "scale", "scale": [1, 2**number, 2**number]}],
        }
        for number in range(2)
    ]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    (image,) = viewer.open(path, plugin="napari")
    assert image.multiscale
    layer = classify_layer(viewer, image, **TILES)[-1]
    assert differ(labels_by_plane(layer), without_coarse(viewer, levels))
    assert_same(run(layer), layer, 3)


def test_no_more_levels_than_the_program_opened(viewer, levels, run, tmp_path):
    path = tmp_path / "levels.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        about = {"photometric": "minisblack", "tile": (64, 64)}
        file.write(levels[0], subifds=1, metadata={"axes": "ZYX"}, **about)
        file.write(levels[1], subfiletype=1, **about)
    (image,) = viewer.open(path, plugin="napari")
    assert not image.multiscale  # napari's own reader takes the finest
    layer = classify_layer(viewer, image, **TILES)[-1]
    assert_same(run(layer), layer, 3)
    image.visible = False
    whole = viewer.add_image(levels, multiscale=True)
    assert differ(
        labels_by_plane(classify_layer(viewer, whole, **TILES)[-1]), labels_by_plane(layer)
    )


def test_levels_in_memory_are_put_in_by_hand(viewer, levels, script):
    levels = [levels[0], levels[1][[0, 2]]]  # of fewer planes
    image = viewer.add_image(levels, multiscale=True, name="levels")
    layer = classify_layer(viewer, image, **TILES)[-1]
    text = script(layer)
    assert "a list of its 2 levels, finest first: (..., 192, 384) of uint8" in text
    assert differ(labels_by_plane(layer), without_coarse(viewer, levels))
    assert_same(in_process(text, levels=levels), layer, 3)
