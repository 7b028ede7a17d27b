"""Damaged, missing and changing image files end in a sentence, never in a crash or a hang."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from napari_mambamic import open_image
from napari_mambamic.errors import ImageError

PIXELS = np.random.default_rng(0).integers(0, 256, (128, 160, 3), np.uint8)
TILED = {"photometric": "rgb", "tile": (32, 32), "metadata": None}


def test_500_damaged_files_are_read_or_refused(tmp_path):
    script = Path(__file__).with_name("fuzz_tiff.py")
    command = [sys.executable, str(script), str(tmp_path), "0", "500"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout[-300:] + run.stderr[-3000:]
    said = [line.split(maxsplit=1)[1] for line in run.stdout.splitlines()]
    assert len(said) == 500
    refused = [line for line in said if line.startswith("refused: ")]
    assert 150 < len(refused) < 400  # the damage is neither harmless nor all that is tested
    assert all(line.endswith(".") for line in refused)


def refusal(path, *, region=None, **how):
    """What opening a file says, or reading a region (y, x, height, width) of it."""
    if region is None:
        with pytest.raises(ImageError) as caught:
            open_image(path, **how)
    else:
        image = open_image(path, **how)
        with pytest.raises(ImageError) as caught:
            image.read(*region)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_what_is_not_there_or_no_image(tmp_path):
    assert "No such file or directory" in refusal(tmp_path / "none.tif")
    assert "cannot be read as an image" in refusal(tmp_path)
    for name in ("a.tif", "a.png", "a.jpg", "a.svs"):
        (tmp_path / name).write_bytes(b"")
        assert "cannot be read as an image" in refusal(tmp_path / name)
        (tmp_path / name).write_bytes(b"not an image at all")
        assert "cannot be read as an image" in refusal(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.tif")
    assert "neither a file nor a folder" in refusal(tmp_path / "pipe.tif")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything"
)
def test_a_file_that_may_not_be_read(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS)
    (tmp_path / "a.tif").chmod(0)
    assert "Permission denied" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize("how", [{}, TILED, {"rowsperstrip": 8, "compression": "zlib"}])
def test_a_file_that_is_cut_short_is_refused_when_it_is_opened(tmp_path, how):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, **how)
    os.truncate(path, path.stat().st_size - 100)
    assert "is cut short" in refusal(path)


def overwrite(path, segment, change):
    """Change the bytes of a strip or tile."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        offset, count = page.dataoffsets[segment], page.databytecounts[segment]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = change(bytes(data[offset : offset + count]))
    path.write_bytes(data)


@pytest.mark.parametrize("compression", ["jpeg", "lzw", "zlib", "jpeg2000"])
@pytest.mark.parametrize("kept", [0, 0.5])
def test_a_truncated_tile_is_named_and_the_others_are_read(tmp_path, compression, kept):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, compression=compression, **TILED)
    whole = open_image(path).read(0, 0, 128, 160)
    overwrite(path, 7, lambda data: data[: int(kept * len(data))].ljust(len(data), b"\0"))
    said = refusal(path, region=(0, 0, 128, 160))
    assert "leave this region out" in said
    assert "rows 32 to 63, columns 64 to 95" in said
    np.testing.assert_array_equal(open_image(path).read(64, 0, 64, 160), whole[64:])


def test_a_jpeg_tile_that_says_it_is_huge_is_not_decoded(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, compression="jpeg", **TILED)

    def inflate(data):
        start = data.index(b"\xff\xc0")
        return data[: start + 5] + b"\xff\x00\xff\x00" + data[start + 9 :]

    overwrite(path, 0, inflate)
    assert "its JPEG data says that it is 65,280 x 65,280 px" in refusal(path, region=(0, 0, 8, 8))


def set_tag(path, code, value):
    """Change the value of a tag of the first page."""
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags[code].overwrite(value)


def test_an_unknown_compression_is_refused_when_the_file_is_opened(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, compression="lzw", **TILED)
    set_tag(path, 259, 34718)
    assert "compressed in a way that cannot be read (TIFF compression 34718)" in refusal(path)


def test_absurd_sizes_are_refused_without_allocating_them(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, compression="lzw", **TILED)
    set_tag(path, 256, 2_000_000_000)
    assert "is damaged: it lists 20 tiles and needs" in refusal(path)
    tifffile.imwrite(path, PIXELS, compression="lzw", **TILED)
    set_tag(path, 322, 60000)
    set_tag(path, 323, 60000)
    assert "stored in pieces of 10.1 GB" in refusal(path)


def test_pages_in_a_circle_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for _ in range(150):
            writer.write(PIXELS[:8, :8, 0], metadata=None)
    with tifffile.TiffFile(path) as tiff:
        last, second = tiff.pages[-1], tiff.pages[1].offset
        place = last.offset + 2 + 12 * len(last.tags)
    with open(path, "r+b") as file:
        file.seek(place)
        assert struct.unpack("<I", file.read(4)) == (0,)
        file.seek(place)
        file.write(struct.pack("<I", second))
    assert "follow each other without an end" in refusal(path)


@pytest.mark.parametrize("change", ['SizeZ="999999999"', 'SizeZ="1" SizeT="999999999"'])
def test_ome_xml_that_speaks_of_endless_planes_is_refused(tmp_path, change):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, PIXELS, photometric="rgb", metadata={"axes": "YXS"})
    with tifffile.TiffFile(path) as tiff:
        xml = tiff.ome_metadata.replace('SizeT="1"', "").replace('SizeZ="1"', change)
    tifffile.tiffcomment(path, xml.encode())
    assert "its OME-XML speaks of" in refusal(path)


def test_a_damaged_coarser_level_is_left_out_and_told(tmp_path):
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path) as writer:
        how = {"photometric": "rgb", "tile": (32, 32), "compression": "lzw"}
        writer.write(PIXELS, subifds=2, metadata={"axes": "YXS"}, **how)
        for step in (2, 4):
            writer.write(np.ascontiguousarray(PIXELS[::step, ::step]), subfiletype=1, **how)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.series[0].levels[1].keyframe.tags[259].overwrite(34718)
    image = open_image(path)
    assert [level.downsample for level in image.levels] == [(1, 1), (4, 4)]
    assert "Level 1 of" in image.note
    assert "is left out" in image.note
    np.testing.assert_array_equal(image.read(0, 0, 128, 160), PIXELS)


def test_tiles_that_were_never_written_are_blank_and_told(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, compression="lzw", **TILED)
    with tifffile.TiffFile(path) as tiff:
        counts = list(tiff.pages[0].databytecounts)
    counts[0] = 0
    set_tag(path, 325, counts)
    image = open_image(path)
    assert "1 tiles of" in image.note
    assert not image.read(0, 0, 32, 32).any()
    np.testing.assert_array_equal(image.read(32, 0, 96, 160), PIXELS[32:])


@pytest.mark.parametrize("how", [{}, {"compression": "lzw", "tile": (32, 32)}])
def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path, how):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, photometric="rgb", **how)
    image = open_image(path, cache_bytes=0)
    image.read(0, 0, 8, 8)
    os.truncate(path, 2000)
    with pytest.raises(ImageError, match=r"a\.tif cannot be read at rows 0 .* it has changed"):
        image.read(0, 0, 128, 160)


@pytest.mark.skipif(sys.platform == "win32", reason="open files cannot be replaced there")
def test_a_file_that_is_replaced_is_read_on_as_it_was(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, compression="lzw", **TILED)
    image = open_image(path, cache_bytes=0)
    tifffile.imwrite(tmp_path / "b.tif", 255 - PIXELS, compression="lzw", **TILED)
    os.replace(tmp_path / "b.tif", path)
    np.testing.assert_array_equal(image.read(0, 0, 128, 160), PIXELS)
    np.testing.assert_array_equal(open_image(path).read(0, 0, 128, 160), 255 - PIXELS)


@pytest.fixture(params=[2, 3])
def ome_zarr(tmp_path, request):
    path = tmp_path / "a.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=request.param)
    for i in range(3):
        level = PIXELS[:: 2**i, :: 2**i].transpose(2, 0, 1)
        array = group.create_array(str(i), shape=level.shape, chunks=(3, 32, 32), dtype="uint8")
        array[...] = level  # in version 2, compressed by Blosc
    about = {
        "axes": [{"name": n} for n in "cyx"],
        "datasets": [{"path": str(i)} for i in range(3)],
    }
    group.attrs["multiscales"] = [about]
    return path


def chunk_file(path):
    """The file of chunk (0, 1, 1)."""
    v2, v3 = path / "0" / "0.1.1", path / "0" / "c" / "0" / "1" / "1"
    return v2 if v2.exists() else v3


def test_a_missing_zarr_chunk_is_the_fill_value_and_told(ome_zarr):
    assert not open_image(ome_zarr).note
    chunk_file(ome_zarr).unlink()
    image = open_image(ome_zarr)
    assert "1 of 20 chunks of" in image.note
    assert "read as 0" in image.note
    assert not image.read(32, 32, 32, 32).any()
    np.testing.assert_array_equal(image.read(64, 0, 64, 160), PIXELS[64:])


@pytest.mark.parametrize("change", [lambda d: b"", lambda d: d[: len(d) // 2], lambda d: d[::-1]])
def test_a_damaged_zarr_chunk_is_named(ome_zarr, change):
    file = chunk_file(ome_zarr)
    file.write_bytes(change(file.read_bytes()))
    assert "rows 32 to 63, columns 32 to 63" in refusal(ome_zarr, region=(0, 0, 64, 64))


def test_a_zarr_folder_that_is_replaced_is_noticed(ome_zarr, tmp_path):
    image = open_image(ome_zarr, cache_bytes=0)
    image.read(0, 0, 8, 8)
    shutil.copytree(ome_zarr, tmp_path / "other.zarr")
    shutil.rmtree(ome_zarr)
    (tmp_path / "other.zarr").rename(ome_zarr)
    with pytest.raises(ImageError, match=r"it was replaced or deleted since it was opened"):
        image.read(0, 0, 8, 8)
    open_image(ome_zarr).read(0, 0, 8, 8)


def test_a_missing_zarr_level_is_told_or_refused(ome_zarr):
    shutil.rmtree(ome_zarr / "1")
    image = open_image(ome_zarr)
    assert [level.downsample for level in image.levels] == [(1, 1), (4, 4)]
    assert "Level 1 of" in image.note
    shutil.rmtree(ome_zarr / "0")
    assert "has no level 0" in refusal(ome_zarr)


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.pop("datasets"),
        lambda about: about.update(datasets=[]),
        lambda about: about.update(datasets=["0"]),
        lambda about: about.update(axes=[{"name": "c"}, {"name": "y"}]),
        lambda about: about.update(axes=[{"name": "y"}, {"name": "c"}, {"name": "x"}]),
        lambda about: about.update(axes=[{}, {}, {}]),
        lambda about: about.update(axes=5),
    ],
)
def test_damaged_ome_zarr_metadata_is_refused(ome_zarr, change):
    group = zarr.open_group(ome_zarr, mode="r+")
    about = json.loads(json.dumps(group.attrs["multiscales"]))
    change(about[0])
    group.attrs["multiscales"] = about
    refusal(ome_zarr)


def test_zarr_files_that_hold_no_json_are_refused(ome_zarr):
    for name in (".zarray", "zarr.json"):
        if (ome_zarr / "0" / name).exists():
            (ome_zarr / "0" / name).write_text('{"shape": [1')
    refusal(ome_zarr)


def test_zarr_chunks_of_gigabytes_are_refused(tmp_path):
    shape = (40_000, 30_000, 3)
    zarr.create_array(tmp_path / "a", shape=shape, chunks=shape, dtype="uint8")
    assert "pieces of 3.4 GB" in refusal(tmp_path / "a")
