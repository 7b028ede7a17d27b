"""How a file gives the planes of an array that another program made of it."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_mambamic.image import as_image
from napari_mambamic.image_files.opening import opening_of

AXES = {"t": 0, "z": 1, "c": 2}


@pytest.fixture
def film(tmp_path):
    """A file (t, z, c, y, x), three of each."""
    data = np.random.default_rng(0).integers(0, 9, (3, 3, 3, 40, 50), np.uint8)
    path = tmp_path / "film.ome.tif"
    tifffile.imwrite(path, data, photometric="minisblack", metadata={"axes": "TZCYX"})
    return str(path), data


def every_plane(array, n_channels=None):
    """Images of the planes (y, x), or (channel, y, x), of an array, by where they lie."""
    leading = array.shape[: -2 if n_channels is None else -3]
    axis = None if n_channels is None else 0
    return {at: as_image(array[at], channel_axis=axis) for at in np.ndindex(leading)}


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_axes_in_any_order_are_told_apart_by_their_pixels(film, order):
    path, data = film
    array = data.transpose(*order, 3, 4)
    planes = every_plane(array)
    opening = opening_of(path, dict.fromkeys(range(3), 3), planes)
    assert opening.axes == {axis: order.index(place) for axis, place in AXES.items()}
    for at, plane in planes.items():
        np.testing.assert_array_equal(opening.open(at).read(0, 0, 40, 50), plane.read(0, 0, 40, 50))


def test_channels_are_found_in_any_order(film):
    path, data = film
    planes = every_plane(data[:, :, [2, 0]], n_channels=2)
    opening = opening_of(path, {0: 3, 1: 3}, planes)
    assert (opening.axes, opening.channels) == ({"t": 0, "z": 1}, (2, 0))


def test_other_pixels_are_those_of_no_file(film, tmp_path):
    path, data = film
    other = data.copy()
    other[2, 2, 2, 20, 25] += 1
    assert opening_of(path, dict.fromkeys(range(3), 3), every_plane(other)) is None
    assert opening_of(path, {0: 3}, every_plane(data[:, 0, 0])) is None  # planes without a z
    assert opening_of(str(tmp_path / "none.tif"), {}, every_plane(data[0, 0, 0])) is None


def test_levels_that_the_array_lacks_are_left_out(tmp_path):
    path = tmp_path / "levels.ome.tif"
    data = np.random.default_rng(0).integers(0, 9, (128, 128), np.uint8)
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(data, subifds=1, tile=(32, 32))
        file.write(data[::2, ::2], subfiletype=1, tile=(32, 32))
    whole, finest = [data, data[::2, ::2]], [data]
    assert opening_of(str(path), {}, {(): as_image(whole)}).n_levels is None
    opening = opening_of(str(path), {}, {(): as_image(finest)})
    assert (opening.n_levels, len(opening.open(()).levels)) == (1, 1)
    assert opening_of(str(path), {}, {(): as_image([*whole, data[::4, ::4]])}) is None
    assert opening_of(str(path), {}, {(): as_image([data, data[1::2, ::2]])}) is None
