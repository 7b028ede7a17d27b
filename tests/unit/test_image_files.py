"""Image files become lazy pyramids with the pixels that were written."""

from __future__ import annotations

import gc
import math
import os
import re
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import product
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from skimage.io import imsave

from napari_mambamic import open_image
from napari_mambamic.errors import ImageError
from napari_mambamic.image_files.tiff_page import SharedFile

HEIGHT, WIDTH = 75, 101


def noise(*shape, dtype="uint8"):
    """Pixels that JPEG keeps: smooth, of the whole range of the type."""
    y, x = np.mgrid[: shape[0], : shape[1]] / 40
    n = math.prod(shape[2:])
    waves = [np.sin(y + i) * np.cos(x - i) / 2 + 0.5 for i in range(n)]
    unit = np.stack(waves, axis=-1).reshape(shape)
    kind = np.dtype(dtype)
    return (unit * (1 if kind.kind == "f" else np.iinfo(kind).max)).astype(kind)


def whole(image, level=0):
    data = image.levels[level].data
    height, width = data.shape[1:] if image.channel_axis == 0 else data.shape[:2]
    return image.read(0, 0, height, width, level=level)


def check_pixels(image, pixels, *, tolerance=0):
    """The whole plane, and windows across strips and tiles and at the far corner.

    The tolerance is the mean difference of a lossy compression, for which the padding of the
    corner tiles makes the corner worse.
    """
    pixels = pixels if pixels.ndim == 3 else pixels[..., np.newaxis]
    assert (*image.plane_shape, image.n_channels) == pixels.shape
    assert image.dtype == pixels.dtype
    windows = [(0, 0, HEIGHT, WIDTH), (29, 30, 9, 35), (HEIGHT - 5, WIDTH - 7, 5, 7)]
    for y, x, height, width in windows[: 2 if tolerance else 3]:
        got, wanted = image.read(y, x, height, width), pixels[y : y + height, x : x + width]
        assert got.dtype == wanted.dtype
        if tolerance:
            assert np.abs(got.astype(float) - wanted).mean() <= tolerance
        else:
            np.testing.assert_array_equal(got, wanted)


TILED = {"tile": (32, 48)}
STRIPED = {"rowsperstrip": 7}


@pytest.mark.parametrize("how", [TILED, STRIPED, {}], ids=["tiled", "striped", "one strip"])
@pytest.mark.parametrize(
    ("dtype", "byteorder", "bigtiff"),
    [
        *product(["uint8", "uint16", "uint32", "float32"], ["<", ">"], [False]),
        ("uint16", "<", True),
        ("uint16", ">", True),
        ("int16", "<", False),
        ("float16", "<", False),
        ("float64", ">", False),
    ],
)
@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits"])
def test_grey_pixels_are_those_written(tmp_path, how, dtype, byteorder, bigtiff, compression):
    pixels = noise(HEIGHT, WIDTH, dtype=dtype)
    path = tmp_path / "grey.tif"
    tifffile.imwrite(
        path, pixels, compression=compression, byteorder=byteorder, bigtiff=bigtiff, **how
    )
    image = open_image(path)
    check_pixels(image, pixels)
    assert image.name == "grey.tif"
    assert image.pixel_size_um is None
    assert not image.note


@pytest.mark.parametrize("how", [TILED, STRIPED, {}], ids=["tiled", "striped", "one strip"])
@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize(
    ("dtype", "compression"),
    [*product(["uint8", "uint16", "float32"], [None, "lzw", "zlib"]), ("uint8", "zstd")],
)
def test_rgb_pixels_are_those_written(tmp_path, how, planarconfig, predictor, dtype, compression):
    if predictor and compression is None:
        return
    pixels = noise(HEIGHT, WIDTH, 3, dtype=dtype)
    stored = pixels if planarconfig == "contig" else np.ascontiguousarray(pixels.transpose(2, 0, 1))
    path = tmp_path / "rgb.tif"
    tifffile.imwrite(
        path,
        stored,
        photometric="rgb",
        planarconfig=planarconfig,
        compression=compression,
        predictor=predictor,
        **how,
    )
    check_pixels(open_image(path), pixels)


@pytest.mark.parametrize("how", [TILED, {"rowsperstrip": 16}, {}], ids=["tiled", "striped", "one"])
@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "rgb"])
@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "webp", "png"])
def test_lossy_pixels_are_about_those_written(tmp_path, how, channels, compression):
    pixels = noise(HEIGHT, WIDTH, *channels)
    if compression == "webp" and not channels:
        return  # WebP has no grey
    if "tile" in how or compression == "jpeg":
        tifffile.imwrite(
            tmp_path / "a.tif",
            pixels,
            photometric="rgb" if channels else "minisblack",
            compression=compression,
            **how,
        )
        check_pixels(open_image(tmp_path / "a.tif"), pixels, tolerance=2)


@pytest.mark.parametrize("how", [TILED, {}], ids=["tiled", "striped"])
@pytest.mark.parametrize("compression", [None, "lzw"])
@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_channels_are_read_from_their_pages(tmp_path, how, compression, kind):
    if kind == "imagej" and (how or compression):
        return  # ImageJ reads neither
    channels = noise(HEIGHT, WIDTH, 5, dtype="uint16").transpose(2, 0, 1)
    path = tmp_path / ("a.ome.tif" if kind == "ome" else "a.tif")
    tifffile.imwrite(
        path,
        channels,
        imagej=kind == "imagej",
        photometric="minisblack",
        metadata={"axes": "CYX"},
        compression=compression,
        **how,
    )
    image = open_image(path)
    assert image.channel_axis == 0
    check_pixels(image, channels.transpose(1, 2, 0))


@pytest.mark.parametrize("kind", ["ome", "imagej", "plain"])
def test_a_plane_of_a_stack_is_chosen_and_told(tmp_path, kind):
    stack = noise(HEIGHT, WIDTH, 3, 5, 2, dtype="uint16").transpose(2, 3, 4, 0, 1)  # TZCYX
    path = tmp_path / ("a.ome.tif" if kind == "ome" else "a.tif")
    tifffile.imwrite(
        path,
        stack,
        imagej=kind == "imagej",
        photometric="minisblack",
        metadata={"axes": "TZCYX"},
    )
    image = open_image(path)
    check_pixels(image, stack[0, 2].transpose(1, 2, 0))
    assert "stack of 15 planes: the one at t = 0 of 3, z = 2 of 5 is read" in image.note
    check_pixels(open_image(path, z=4, t=1), stack[1, 4].transpose(1, 2, 0))
    with pytest.raises(ImageError, match="has 5 planes along z, 0 to 4, and z=5 was asked for"):
        open_image(path, z=5)


@pytest.mark.filterwarnings("ignore:.*data with shape:DeprecationWarning")
@pytest.mark.parametrize("how", [TILED, STRIPED, {}], ids=["tiled", "striped", "one strip"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("n_planes", [3, 4])
def test_a_grey_stack_of_three_or_four_planes_is_no_colours(tmp_path, n_planes, dtype, how):
    """tifffile writes it as the samples of one RGB page, unless it is told what it is."""
    stack = noise(HEIGHT, WIDTH, n_planes, dtype=dtype).transpose(2, 0, 1)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack, metadata={"axes": "ZYX"}, **how)
    with tifffile.TiffFile(path) as tiff:
        (page,) = tiff.pages
        assert (page.photometric, page.samplesperpixel) == (2, n_planes)
    image = open_image(path)
    check_pixels(image, stack[n_planes // 2])
    assert f"the one at z = {n_planes // 2} of {n_planes} is read" in image.note
    for z in range(n_planes):
        check_pixels(open_image(path, z=z), stack[z])
    with pytest.raises(ImageError, match=f"has {n_planes} planes along z"):
        open_image(path, z=n_planes)


@pytest.mark.filterwarnings("ignore:.*data with shape:DeprecationWarning")
@pytest.mark.parametrize("kind", ["ome", "imagej", "plain"])
@pytest.mark.parametrize("n_planes", [3, 4])
def test_what_a_file_says_of_three_or_four_planes_holds(tmp_path, n_planes, kind):
    planes = noise(HEIGHT, WIDTH, n_planes).transpose(2, 0, 1)
    path = tmp_path / ("a.ome.tif" if kind == "ome" else "a.tif")

    def opened(axes, **how):
        imagej = {"imagej": True} if kind == "imagej" else {}
        tifffile.imwrite(path, planes, metadata={"axes": axes}, **imagej, **how)
        return open_image(path)

    for how in ({}, {"photometric": "minisblack"}):
        check_pixels(opened("ZYX", **how), planes[n_planes // 2])
        check_pixels(opened("CYX", **how), planes.transpose(1, 2, 0))


@pytest.mark.filterwarnings("ignore:.*data with shape:DeprecationWarning")
@pytest.mark.parametrize("n_planes", [3, 4])
def test_a_page_that_says_no_more_than_rgb_is_colours(tmp_path, n_planes):
    planes = noise(HEIGHT, WIDTH, n_planes).transpose(2, 0, 1)
    for metadata in ({}, None):
        tifffile.imwrite(tmp_path / "a.tif", planes, metadata=metadata)
        image = open_image(tmp_path / "a.tif")
        check_pixels(image, planes.transpose(1, 2, 0))
        assert image.has_colours
        assert not image.note


@pytest.mark.filterwarnings("ignore:.*data with shape:DeprecationWarning")
@pytest.mark.parametrize(
    ("axes", "place", "are_colours"),
    [("TZYX", (0, 1), False), ("ZCYX", (1,), True), ("CZYX", (slice(None), 1), False)],
)
def test_samples_stored_apart_are_what_the_axes_say(tmp_path, axes, place, are_colours):
    stack = noise(HEIGHT, WIDTH, 3, 3).transpose(2, 3, 0, 1)
    tifffile.imwrite(tmp_path / "a.tif", stack, metadata={"axes": axes})
    image = open_image(tmp_path / "a.tif")
    pixels = stack[place]
    check_pixels(image, pixels if pixels.ndim == 2 else pixels.transpose(1, 2, 0))
    assert image.has_colours == are_colours


def test_planes_that_are_mixed_pixel_by_pixel_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(HEIGHT, WIDTH, 3), photometric="rgb", metadata={"axes": "YXZ"})
    with pytest.raises(
        ImageError, match=r"\(YXZ\)\. Save it as OME-TIFF, with y and x as the last"
    ):
        open_image(path)


def test_pages_that_nothing_is_said_about_are_a_stack_or_channels(tmp_path):
    pages = noise(HEIGHT, WIDTH, 4).transpose(2, 0, 1)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in pages:
            writer.write(page, metadata=None, photometric="minisblack")
    image = open_image(tmp_path / "a.tif")
    check_pixels(image, pages[0])
    assert "stack of 4 planes" in image.note
    check_pixels(open_image(tmp_path / "a.tif", z=3), pages[3])
    image = open_image(tmp_path / "a.tif", channel_axis=0)
    check_pixels(image, pages.transpose(1, 2, 0))
    assert not image.note
    with pytest.raises(ImageError, match="has no axis t"):
        open_image(tmp_path / "a.tif", t=1)


def write_pyramid(path, pixels, kind, **how):
    """Three levels, each half of the one before, 0.25 um per px."""
    levels = [np.ascontiguousarray(pixels[:: 2**i, :: 2**i]) for i in range(3)]
    common = {"photometric": "rgb", "tile": (32, 32), **how}
    with tifffile.TiffWriter(path) as writer:
        if kind == "ome":
            about = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 250.0}
            about |= {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "nm"}
            writer.write(levels[0], subifds=2, metadata=about, **common)
            for level in levels[1:]:
                writer.write(level, subfiletype=1, **common)
        elif kind == "svs":
            about = "Aperio Image Library v11\n101x75 (32x32) JPEG|AppMag = 20|MPP = 0.25|Left = 3"
            writer.write(levels[0], description=about, metadata=None, **common)
            writer.write(levels[2], photometric="rgb", metadata=None)  # the thumbnail
            for level in levels[1:]:
                writer.write(level, description="Aperio", metadata=None, **common)
        else:
            resolution = {"resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}
            writer.write(levels[0], metadata=None, **common, **resolution)
            for level in levels[1:]:
                writer.write(level, subfiletype=1, metadata=None, **common)
    return levels


@pytest.mark.parametrize("kind", ["ome", "svs", "plain"])
@pytest.mark.parametrize("compression", [None, "jpeg", "zlib"])
def test_levels_and_pixel_size_of_a_pyramid(tmp_path, kind, compression):
    path = tmp_path / {"ome": "a.ome.tif", "svs": "a.svs", "plain": "a.tif"}[kind]
    levels = write_pyramid(path, noise(HEIGHT, WIDTH, 3), kind, compression=compression)
    image = open_image(path)
    assert image.pixel_size_um == pytest.approx((0.25, 0.25))
    assert [level.data.shape for level in image.levels] == [level.shape for level in levels]
    assert image.levels[1].downsample == pytest.approx((75 / 38, 101 / 51))
    for number, level in enumerate(levels):
        got = whole(image, number)
        assert np.abs(got.astype(int) - level).mean() <= (4 if compression == "jpeg" else 0)
    assert not image.note


def resolution_tags(value, unit):
    return {"resolution": (value, value), "resolutionunit": unit}


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (resolution_tags(20000, "CENTIMETER"), 0.5),
        (resolution_tags(50800, "INCH"), 0.5),
        (resolution_tags(72, "INCH"), None),
        (resolution_tags(96, "INCH"), None),
        (resolution_tags(300, "INCH"), None),
        (resolution_tags(118.11, "CENTIMETER"), None),
        (resolution_tags(20000, "NONE"), None),
        ({"imagej": True, "resolution": (2, 2), "metadata": {"unit": "um"}}, 0.5),
        ({"imagej": True, "resolution": (2, 2), "metadata": {"unit": "micron"}}, 0.5),
        ({"imagej": True, "resolution": (2000, 2000), "metadata": {"unit": "mm"}}, 0.5),
        ({"imagej": True, "resolution": (2, 2), "metadata": {"unit": "pixel"}}, None),
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}}, 0.5),
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.5}}, None),
        ({"ome": True, "metadata": {"PhysicalSizeX": 0, "PhysicalSizeY": 0}}, None),
    ],
)
def test_the_pixel_size_is_what_the_file_says_unless_it_is_for_printers(tmp_path, how, expected):
    tifffile.imwrite(tmp_path / "a.tif", noise(HEIGHT, WIDTH), **how)
    size = open_image(tmp_path / "a.tif").pixel_size_um
    assert size is None if expected is None else size == pytest.approx((expected, expected))
    assert open_image(tmp_path / "a.tif", pixel_size_um=2).pixel_size_um == (2, 2)


def test_pixels_are_as_they_are_shown(tmp_path):
    """White as zero is inverted, colours of a palette are looked up, luma and chroma are RGB."""
    pixels = noise(HEIGHT, WIDTH)
    tifffile.imwrite(tmp_path / "white.tif", pixels, photometric="miniswhite")
    check_pixels(open_image(tmp_path / "white.tif"), 255 - pixels)
    table = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "palette.tif", pixels, photometric="palette", colormap=table)
    check_pixels(open_image(tmp_path / "palette.tif"), (table // 257).astype(np.uint8).T[pixels])
    tifffile.imwrite(tmp_path / "lut.tif", pixels, imagej=True, colormap=table >> 8)
    check_pixels(open_image(tmp_path / "lut.tif"), pixels)  # ImageJ's tables are for display
    rgb = noise(HEIGHT, WIDTH, 3)
    red, green, blue = np.moveaxis(rgb.astype(float), -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    ycbcr = np.stack([luma, 128 + (blue - luma) / 1.772, 128 + (red - luma) / 1.402], axis=-1)
    tifffile.imwrite(
        tmp_path / "aperio.tif",
        ycbcr.round().astype(np.uint8),
        photometric="rgb",
        compression="aperio_jp2000_ycbc",
        compressionargs={"level": 0, "mct": False},
        tile=(32, 32),
    )
    check_pixels(open_image(tmp_path / "aperio.tif"), rgb, tolerance=1)


def write_ndpi(path, pixels, *, restart=4):
    """One JPEG with restart markers as Hamamatsu's scanners write it, 0.25 um per px."""
    packed = BytesIO()
    Image.fromarray(pixels).save(
        packed, "jpeg", quality=95, subsampling=0, restart_marker_blocks=restart
    )
    jpeg = packed.getvalue()
    start = jpeg.index(b"\xff\xda")
    start += 2 + struct.unpack_from(">H", jpeg, start + 2)[0]
    starts = [start, *(m.end() for m in re.finditer(rb"\xff[\xd0-\xd7]", jpeg) if m.end() > start)]
    data = bytearray(b"II*\0" + bytes(8)) + jpeg
    short, long, text, ratio, real = 3, 4, 2, 5, 11

    def stored(value):
        data.extend(bytes(-len(data) % 8))
        data.extend(value)
        return len(data) - len(value)

    resolution = stored(struct.pack("<2I", 40000, 1))
    tags = [
        (256, long, 1, pixels.shape[1]),
        (257, long, 1, pixels.shape[0]),
        (258, short, 3, stored(struct.pack("<3H", 8, 8, 8))),
        (259, short, 1, 7),
        (262, short, 1, 6),
        (271, text, 10, stored(b"Hamamatsu\0")),
        (273, long, 1, 12),
        (277, short, 1, 3),
        (278, long, 1, pixels.shape[0]),
        (279, long, 1, len(jpeg)),
        (282, ratio, 1, resolution),
        (283, ratio, 1, resolution),
        (296, short, 1, 3),
        (65420, long, 1, 1),
        (65421, real, 1, struct.unpack("<I", struct.pack("<f", 20))[0]),
        (65426, long, len(starts), stored(struct.pack(f"<{len(starts)}I", *starts))),
    ]
    page = stored(struct.pack("<H", len(tags)))
    data += b"".join(struct.pack("<HHII", *tag) for tag in tags)
    data += bytes(8) + bytes(4 * len(tags))  # no next page; high halves of the values
    struct.pack_into("<Q", data, 4, page)
    path.write_bytes(data)


def test_ndpi_is_read_between_its_restart_markers(tmp_path):
    pixels = noise(HEIGHT, WIDTH, 3)[:72, :96]
    write_ndpi(tmp_path / "a.ndpi", pixels)
    image = open_image(tmp_path / "a.ndpi")
    assert image.levels[0].data.chunks == (8, 32, 3)
    assert image.pixel_size_um == pytest.approx((0.25, 0.25))
    assert np.abs(whole(image).astype(int) - pixels).max() < 12
    np.testing.assert_array_equal(image.read(30, 40, 20, 30), whole(image)[30:50, 40:70])


def test_one_bit_is_read(tmp_path):
    pixels = noise(HEIGHT, WIDTH) > 100
    for photometric, shown in (("minisblack", pixels), ("miniswhite", ~pixels)):
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=photometric)
        check_pixels(open_image(tmp_path / "a.tif"), shown)


def test_images_of_a_file_are_chosen_by_number(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(noise(20, 20))
        writer.write(noise(HEIGHT, WIDTH, 3), photometric="rgb")
    image = open_image(tmp_path / "a.tif")
    assert image.plane_shape == (20, 20)
    assert "holds a larger image, which series=1 chooses" in image.note
    check_pixels(open_image(tmp_path / "a.tif", series=1), noise(HEIGHT, WIDTH, 3))
    with pytest.raises(ImageError, match=r"holds 2 images, and series=2 was asked for"):
        open_image(tmp_path / "a.tif", series=2)


def write_ome_zarr(path, pixels, version, *, chunks=(1, 1, 32, 32)):
    """(c, z, y, x) in two levels, 0.25 um per px."""
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    datasets = []
    for i in range(2):
        level = pixels[..., :: 2**i, :: 2**i]
        array = group.create_array(str(i), shape=level.shape, chunks=chunks, dtype=level.dtype)
        array[...] = level
        scale = {"type": "scale", "scale": [1, 500, 250 * 2**i, 250 * 2**i]}
        datasets.append({"path": str(i), "coordinateTransformations": [scale]})
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": n, "type": "space", "unit": "nanometer"} for n in "zyx"]
    about = {"multiscales": [{"version": version, "axes": axes, "datasets": datasets}]}
    group.attrs.update(about if version == "0.4" else {"ome": {"version": version, **about}})
    return group


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("chunks", [(1, 1, 32, 32), (2, 3, 50, 64)])
def test_ome_zarr_is_read_with_levels_and_pixel_size(tmp_path, version, chunks):
    pixels = noise(HEIGHT, WIDTH, 2, 3, dtype="uint16").transpose(2, 3, 0, 1)
    write_ome_zarr(tmp_path / "a.ome.zarr", pixels, version, chunks=chunks)
    image = open_image(tmp_path / "a.ome.zarr")
    assert image.name == "a.ome.zarr"
    assert image.pixel_size_um == pytest.approx((0.25, 0.25))
    assert len(image.levels) == 2
    assert "stack of 3 planes: the one at z = 1 of 3" in image.note
    check_pixels(image, pixels[:, 1].transpose(1, 2, 0))
    np.testing.assert_array_equal(whole(image, 1), pixels[:, 1, ::2, ::2].transpose(1, 2, 0))
    check_pixels(open_image(tmp_path / "a.ome.zarr", z=2), pixels[:, 2].transpose(1, 2, 0))


def test_images_of_bioformats2raw_are_chosen_by_number_and_plates_are_explained(tmp_path):
    pixels = noise(HEIGHT, WIDTH, 1, 1).transpose(2, 3, 0, 1)
    outer = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    outer.attrs["bioformats2raw.layout"] = 3
    write_ome_zarr(tmp_path / "a.zarr" / "0", pixels[..., :20, :20], "0.4")
    write_ome_zarr(tmp_path / "a.zarr" / "1", pixels, "0.4")
    check_pixels(open_image(tmp_path / "a.zarr", series=1), pixels[0, 0])
    with pytest.raises(ImageError, match="holds no image series=2"):
        open_image(tmp_path / "a.zarr", series=2)
    plate = zarr.open_group(tmp_path / "plate.zarr", mode="w", zarr_format=2)
    plate.attrs["plate"] = {}
    plate.create_group("A")
    with pytest.raises(ImageError, match=r"is a plate of images or arrays, .* Open one .*: A"):
        open_image(tmp_path / "plate.zarr")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_plain_zarr_array_is_read(tmp_path, zarr_format):
    def write(name, pixels, **about):
        chunks = (20,) * pixels.ndim
        about |= {"chunks": chunks, "zarr_format": zarr_format}
        zarr.create_array(tmp_path / name, data=pixels, **about)
        return tmp_path / name

    grey, rgb = noise(HEIGHT, WIDTH, dtype="float32"), noise(HEIGHT, WIDTH, 3)
    check_pixels(open_image(write("grey", grey)), grey)
    check_pixels(open_image(write("rgb", rgb)), rgb)
    first = write("first", np.ascontiguousarray(rgb.transpose(2, 0, 1)))
    with pytest.raises(ImageError, match="does not name its axes"):
        open_image(first)
    check_pixels(open_image(first, channel_axis=0), rgb)
    if zarr_format == 3:
        named = write("named", rgb.transpose(2, 0, 1).copy(), dimension_names=["c", "y", "x"])
        check_pixels(open_image(named), rgb)
        sharded = write("sharded", rgb, shards=(40, 40, 20))
        check_pixels(open_image(sharded), rgb)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_pictures_are_read(tmp_path, suffix):
    pixels = noise(HEIGHT, WIDTH, 3)
    imsave(tmp_path / f"a.{suffix}", pixels)
    image = open_image(tmp_path / f"a.{suffix}")
    check_pixels(image, pixels, tolerance=2 if suffix == "jpg" else 0)
    imsave(tmp_path / "grey.png", noise(HEIGHT, WIDTH, dtype="uint16"))
    check_pixels(open_image(tmp_path / "grey.png"), noise(HEIGHT, WIDTH, dtype="uint16"))


def test_opening_decodes_nothing_and_a_window_decodes_its_tiles_alone(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, noise(HEIGHT, WIDTH, 3), photometric="rgb", tile=(32, 32), compression="jpeg"
    )
    decoded = []
    decode = imagecodecs.jpeg_decode
    monkeypatch.setattr(
        imagecodecs, "jpeg_decode", lambda *a, **k: decoded.append(1) or decode(*a, **k)
    )
    image = open_image(path)
    assert not decoded
    image.read(0, 0, 32, 32)
    assert len(decoded) == 1
    image.read(16, 16, 32, 32)
    assert len(decoded) == 4


def test_a_large_uncompressed_strip_is_read_in_bands(tmp_path):
    path = tmp_path / "a.tif"
    pixels = np.random.default_rng(0).integers(0, 2**16, (3000, 1000), np.uint16)
    tifffile.imwrite(path, pixels, rowsperstrip=3000)
    image = open_image(path)
    assert image.levels[0].data.chunks[0] < 1000
    np.testing.assert_array_equal(image.read(500, 3, 700, 9)[..., 0], pixels[500:1200, 3:12])


@pytest.mark.parametrize("kind", ["tiff", "zarr"])
def test_threads_read_the_right_pixels(tmp_path, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (400, 500, 3), np.uint8)
    path = tmp_path / "a"
    if kind == "tiff":
        tifffile.imwrite(path, pixels, photometric="rgb", tile=(64, 64), compression="zlib")
    else:
        zarr.create_array(path, data=pixels, chunks=(64, 64, 3))
    image = open_image(path, cache_bytes=4 * 64 * 64 * 3)  # so small that chunks come and go
    corners = np.random.default_rng(1).integers(0, (360, 460), (600, 2))

    def is_right(corner):
        y, x = (int(n) for n in corner)
        return np.array_equal(image.read(y, x, 40, 40), pixels[y : y + 40, x : x + 40])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(is_right, corners))


def test_threads_that_share_a_file_read_where_they_asked_to(tmp_path):
    numbers = np.arange(100_000, dtype=np.uint32)
    numbers.tofile(tmp_path / "numbers")
    file = SharedFile(tmp_path / "numbers")

    def n_wrong(seed):
        starts = np.random.default_rng(seed).integers(0, 90_000, 2000)
        read = (np.frombuffer(file.read(4 * int(i), 12_000), np.uint32) for i in starts)
        return sum(int(r[0]) != i for r, i in zip(read, starts, strict=True))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that threads meet between seeking and reading
    try:
        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(n_wrong, range(4))) == 0
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
def test_the_file_is_closed_when_the_image_is_gone(tmp_path):
    path = tmp_path / "a.ome.tif"
    write_pyramid(path, noise(HEIGHT, WIDTH, 3), "ome")

    def n_open():
        folder = "/proc/self/fd"
        links = [os.path.join(folder, n) for n in os.listdir(folder)]
        return sum(os.path.lexists(link) and os.readlink(link) == str(path) for link in links)

    image = open_image(path)
    image.read(0, 0, 9, 9)
    assert n_open() == 1
    del image
    gc.collect()
    assert n_open() == 0
    with pytest.raises(ImageError):
        open_image(path, series=7)
    gc.collect()
    assert n_open() == 0


# Public images that are too large, or not free enough, to come with the tests.
REAL = Path(os.environ.get("MAMBAMIC_TEST_IMAGES", "no such folder"))


@pytest.mark.parametrize(
    ("name", "pixel_size", "plane"),
    [
        ("CMU-1-Small-Region.svs", 0.499, lambda a: a),
        ("BPAE_3ch.ome.tif", None, lambda a: np.moveaxis(a, 0, 2)),
        ("xyc_8bit__tub_h2b_cecog_battery.tif", None, lambda a: np.moveaxis(a, 0, 2)),
        ("xyzc_16bit__dna_conf_wf.tif", 0.5119, lambda a: np.moveaxis(a[22], 0, 2)),
        ("mitocheck_t30.tif", None, lambda a: a[0][..., np.newaxis]),
        ("drosophila_histone_t21.tif", None, lambda a: a[0]),
    ],
)
def test_real_files_where_they_are_at_hand(name, pixel_size, plane):
    if not (REAL / name).exists():
        pytest.skip("an extra: the promises are tested above, with files of our own")
    image = open_image(REAL / name)
    np.testing.assert_array_equal(whole(image), plane(tifffile.imread(REAL / name)))
    expected = pixel_size and pytest.approx((pixel_size, pixel_size), rel=1e-4)
    assert image.pixel_size_um == expected
