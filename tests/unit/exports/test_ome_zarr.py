"""OME-Zarr: where pixels lie, and what they mean."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from result_cases import CASES, NAMES, blobs, results_of

from napari_mambamic.colours import class_colours
from napari_mambamic.errors import ExportError
from napari_mambamic.tiling import plan_tiles, tiles_of_objects


def levels_of(path, group="/"):
    """Arrays of a group, and the scale and translation of each."""
    opened = (
        zarr.open_group(path, mode="r")[group] if group != "/" else zarr.open_group(path, mode="r")
    )
    (multiscale,) = opened.attrs["multiscales"]
    assert multiscale["version"] == "0.4"
    found = []
    for dataset in multiscale["datasets"]:
        scale, translation = dataset["coordinateTransformations"]
        assert (scale["type"], translation["type"]) == ("scale", "translation")
        found.append(
            (opened[dataset["path"]][:], np.array(scale["scale"]), translation["translation"])
        )
        assert len(multiscale["axes"]) == found[-1][0].ndim == len(scale["scale"])
    return found


def attributes_of(path, group):
    return zarr.open_group(path, mode="r")[group].attrs


@settings(deadline=None, max_examples=25)
@given(
    plane=st.tuples(st.integers(26, 90), st.integers(26, 90)),
    start=st.tuples(st.integers(0, 4), st.integers(5, 9)),
    overlap=st.integers(0, 15),
    has_size=st.booleans(),
)
def test_every_pixel_of_a_grid_lies_in_its_tile_and_tells_of_it(
    plane, start, overlap, has_size, tmp_path_factory
):
    region = (*start, plane[0] - start[0], plane[1] - start[1])
    grid = plan_tiles(plane, tile_size=16, overlap=overlap, region=region)
    results = results_of(grid, plane_shape=plane if has_size else None)
    pixel = np.array([0.5, 0.25]) if has_size else np.ones(2)
    path = results.to_ome_zarr(tmp_path_factory.mktemp("zarr") / "a.zarr")
    labels, scale, translation = levels_of(path, "labels/classes")[0]
    shares, scale_3d, translation_3d = levels_of(path)[0]
    assert labels.shape == grid.shape
    assert (list(scale_3d), translation_3d) == ([1, *scale], [0, *translation])
    np.testing.assert_array_equal(labels.ravel(), results.labels + 1)
    np.testing.assert_array_equal(shares.reshape(len(NAMES), -1).T, results.probabilities)
    for at, tile in zip(np.ndindex(grid.shape), grid, strict=True):
        centre = (np.array(at) * scale + translation) / pixel
        inside = np.minimum(centre, np.array(plane) - 0.5)  # the last may stick out of the plane
        assert (inside >= np.array([tile.y, tile.x]) - 0.5).all()
        assert (inside <= np.array([tile.y, tile.x]) + tile.size - 0.5).all()
    units = [
        axis.get("unit") for axis in zarr.open_group(path, mode="r").attrs["multiscales"][0]["axes"]
    ]
    assert units == [None, *(["micrometer"] * 2 if has_size else [None] * 2)]


def test_coarser_levels_lie_on_the_finest(tmp_path):
    grid = plan_tiles((1201, 777), tile_size=1)
    results = results_of(grid, names=("a", "b"))
    results.probabilities[:] = np.stack(
        [np.arange(len(grid)) % 2, np.arange(len(grid)) // 2 % 2], 1
    )
    results.probabilities[:5] = np.nan
    path = results.to_ome_zarr(tmp_path / "a.zarr")
    for group, axes in (("labels/classes", slice(None)), ("/", slice(1, None))):
        levels = levels_of(path, group)
        assert [level[0].shape[-2:] for level in levels] == [
            *((1201, 777), (601, 389), (301, 195), (151, 98))
        ]
        for n, (_, scale, translation) in enumerate(levels):
            np.testing.assert_allclose(scale[axes], 2.0**n)
            # A coarse pixel's upper left corner is that of the image.
            np.testing.assert_allclose(np.array(translation)[axes] - 2.0**n / 2, -0.5)
    finest, half = levels_of(path)[0][0], levels_of(path)[1][0]
    np.testing.assert_allclose(half[:, 3, 7], finest[:, 6:8, 14:16].mean(axis=(1, 2)))
    assert np.isnan(half[0, 0, 0]) == np.isnan(finest[0, 0:2, 0:2]).all()
    np.testing.assert_allclose(half[0, 0, 2], np.nanmean(finest[0, 0:2, 4:6]))
    assert half[0, 600, 388] == finest[0, 1200, 776]


def test_objects_keep_their_pixels_and_tell_class_and_probability(tmp_path):
    labels, results = blobs(), CASES["objects"]()
    path = results.to_ome_zarr(tmp_path / "a.zarr", labels=labels)
    (objects, scale, translation), *_ = levels_of(path, "labels/objects")
    np.testing.assert_array_equal(objects, labels)
    assert (list(scale), translation) == ([0.5, 0.25], [0, 0])
    classes, shares = levels_of(path, "labels/classes")[0][0], levels_of(path)[0][0]
    for object_id, label, probabilities in zip(
        (4, 9, 300), results.labels, results.probabilities, strict=True
    ):
        assert (classes[labels == object_id] == label + 1).all()
        assert (shares[:, labels == object_id] == probabilities[:, np.newaxis]).all()
    assert (classes[labels == 0] == 0).all()
    assert np.isnan(shares[:, labels == 0]).all()
    legend = attributes_of(path, "labels/objects")["image-label"]
    assert [p["label-value"] for p in legend["properties"]] == [0, 4, 9, 300]
    assert [p["class"] for p in legend["properties"][1:]] == [NAMES[i] for i in results.labels]


def test_names_and_colours_of_classes_are_in_the_legend(tmp_path):
    path = CASES["partial grid"]().to_ome_zarr(tmp_path / "a.zarr")
    root = zarr.open_group(path, mode="r")
    assert root["labels"].attrs["labels"] == ["classes"]
    legend = root["labels/classes"].attrs["image-label"]
    names = ["not classified", *NAMES]
    assert legend["properties"] == [
        {"label-value": i, "class": name} for i, name in enumerate(names)
    ]
    colours = {c["label-value"]: c["rgba"] for c in legend["colors"]}
    assert colours.pop(0)[3] == 0
    np.testing.assert_allclose(np.array([*colours.values()]) / 255, class_colours(6), atol=1e-6)
    assert [c["label"] for c in root.attrs["omero"]["channels"]] == list(NAMES)
    assert root.attrs["omero"]["channels"][0]["color"] == "E69F00"
    described = root.attrs["mambamic"]
    assert described["provenance"] == CASES["partial grid"]().provenance
    assert described["complete"] is False


def test_nothing_done_is_an_empty_picture(tmp_path):
    path = CASES["nothing done"]().to_ome_zarr(tmp_path / "a.zarr")
    assert np.isnan(levels_of(path)[0][0]).all()
    assert not levels_of(path, "labels/classes")[0][0].any()


@pytest.mark.parametrize("case", ["points", "objects", "no tiles"])
def test_results_that_fill_no_pixels_are_refused(case, tmp_path):
    with pytest.raises(ExportError, match="Give the label image"):
        CASES[case]().to_ome_zarr(tmp_path / "a.zarr")
    assert not list(tmp_path.iterdir())


def test_classes_and_objects_have_the_colours_that_are_given(tmp_path):
    colours = dict(zip(NAMES, class_colours(6)[::-1], strict=True))
    results = CASES["objects"]()
    path = results.to_ome_zarr(tmp_path / "a.zarr", labels=blobs(), colours=colours)
    legend = attributes_of(path, "labels/classes")["image-label"]["colors"][1:]
    found = np.array([entry["rgba"] for entry in legend]) / 255
    np.testing.assert_allclose(found, class_colours(6)[::-1], atol=1e-6)
    legend = attributes_of(path, "labels/objects")["image-label"]["colors"][1:]
    found = np.array([entry["rgba"] for entry in legend]) / 255
    np.testing.assert_allclose(found, class_colours(6)[::-1][results.labels], atol=1e-6)
    channels = attributes_of(path, "")["omero"]["channels"]
    assert channels[5]["color"] == "E69F00"


def test_no_image_is_put_into_another(tmp_path):
    outer = CASES["grid"]().to_ome_zarr(tmp_path / "a.ome.zarr")
    before = sorted(outer.rglob("*"))
    with pytest.raises(ExportError, match="Choose a place beside it"):
        CASES["grid"]().to_ome_zarr(outer / "b.ome.zarr")
    assert sorted(outer.rglob("*")) == before


def test_only_a_folder_of_ours_is_replaced(tmp_path):
    results = CASES["grid"]()
    path = results.to_ome_zarr(tmp_path / "a.zarr")
    results.probabilities[0] = np.nan
    results.to_ome_zarr(path)
    assert levels_of(path, "labels/classes")[0][0][0, 0] == 0
    other = tmp_path / "other.zarr"
    zarr.open_group(other, mode="w", zarr_format=2).attrs["multiscales"] = []
    before = sorted(other.rglob("*"))
    with pytest.raises(ExportError, match="was not saved by napari-mambamic"):
        results.to_ome_zarr(other)
    assert sorted(other.rglob("*")) == before
    (tmp_path / "file.zarr").write_text("mine")
    with pytest.raises(ExportError, match="was not saved by napari-mambamic"):
        results.to_ome_zarr(tmp_path / "file.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr", "file.zarr", "other.zarr"]


def test_an_error_half_way_leaves_the_old_folder_as_it_was(tmp_path):
    labels, results = blobs(), CASES["objects"]()
    path = results.to_ome_zarr(tmp_path / "a.zarr", labels=labels)
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    results.provenance["bad"] = object()  # no JSON
    with pytest.raises(TypeError):
        results.to_ome_zarr(path, labels=labels)
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_labels_of_another_image_are_refused(tmp_path):
    with pytest.raises(ExportError, match=r"has shape \(40, 59\).* of shape \(40, 60\)"):
        CASES["objects"]().to_ome_zarr(tmp_path / "a.zarr", labels=blobs()[:, 1:])


def test_a_mask_gets_numbers(tmp_path):
    mask = blobs() > 0
    results = results_of(tiles_of_objects(mask, tile_size=9))
    path = results.to_ome_zarr(tmp_path / "a.zarr", labels=mask)
    assert np.unique(levels_of(path, "labels/objects")[0][0]).tolist() == [0, 1, 2, 3, 4]


def test_files_are_laid_out_as_version_0_4_wants(tmp_path):
    path = CASES["grid"]().to_ome_zarr(tmp_path / "a.zarr")
    assert json.loads((path / ".zgroup").read_text()) == {"zarr_format": 2}
    array = json.loads((path / "0" / ".zarray").read_text())
    assert array["dimension_separator"] == "/"
    assert (path / "0" / "0" / "0" / "0").is_file()
