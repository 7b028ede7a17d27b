"""Opens and reads damaged TIFF files: ``python fuzz_tiff.py FOLDER FIRST LAST``.

Prints what came of each; another error than ImageError, a crash or a hang ends the process.
"""

from __future__ import annotations

import faulthandler
import logging
import sys
from pathlib import Path

import numpy as np
import tifffile

from napari_mambamic import open_image
from napari_mambamic.errors import ImageError

SECONDS_PER_FILE = 20


def write_originals(folder: Path) -> list[Path]:
    y, x = np.mgrid[:64, :80]
    rgb = np.stack([y * 3, x * 2, (y + x) % 251], axis=-1).astype(np.uint8)
    kinds: dict[str, dict] = {
        "jpeg.tif": {"compression": "jpeg", "tile": (32, 32)},
        "lzw.tif": {"compression": "lzw", "tile": (32, 32), "predictor": True},
        "deflate.tif": {"compression": "zlib", "rowsperstrip": 16},
        "raw.tif": {},
        "raw tiles.tif": {"tile": (32, 48), "byteorder": ">"},
        "jpeg2000.tif": {"compression": "jpeg2000", "tile": (32, 32)},
    }
    for name, how in kinds.items():
        tifffile.imwrite(folder / name, rgb, photometric="rgb", metadata=None, **how)
    with tifffile.TiffWriter(folder / "pyramid.ome.tif") as writer:
        how = {"photometric": "rgb", "compression": "jpeg", "tile": (32, 32)}
        size = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
        writer.write(rgb, subifds=1, metadata={"axes": "YXS", **size}, **how)
        writer.write(rgb[::2, ::2], subfiletype=1, **how)
    stack = np.stack([rgb, rgb[::-1]] * 3).transpose(0, 3, 1, 2)[:, :2].astype(np.uint16)
    tifffile.imwrite(folder / "stack.ome.tif", stack, metadata={"axes": "ZCYX"}, compression="lzw")
    tifffile.imwrite(folder / "stack.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    svs = "Aperio Image Library v11\n80x64 (32x32) JPEG/RGB Q=30|MPP = 0.499"
    how = {"photometric": "rgb", "compression": "jpeg", "tile": (32, 32)}
    tifffile.imwrite(folder / "slide.svs", rgb, description=svs, metadata=None, **how)
    return sorted(folder.iterdir())


def damaged(data: bytes, seed: int) -> bytes:
    """One to four flipped bits, more of them where the tags are; every tenth file is cut short."""
    random = np.random.default_rng(seed)
    result = bytearray(data)
    for _ in range(random.integers(1, 5)):
        end = min(700, len(data)) if random.random() < 0.6 else len(data)
        result[random.integers(0, end)] ^= 1 << random.integers(0, 8)
    return bytes(result[: random.integers(0, len(data))] if seed % 10 == 9 else result)


def read_all(path: Path) -> str:
    image = open_image(path)
    for number, level in enumerate(image.levels):
        shape = level.data.shape
        height, width = shape[1:] if image.channel_axis == 0 else shape[:2]
        if height * width * image.n_channels <= 2**24:
            image.read(0, 0, height, width, level=number)
        else:  # absurd, but not refused: look at the ends
            for y in (0, max(0, height - 64)):
                for x in (0, max(0, width - 64)):
                    image.read(y, x, min(64, height), min(64, width), level=number)
    return "read"


def main(folder: Path, first: int, last: int) -> None:
    logging.disable()  # tifffile speaks of what is wrong with each
    (folder / "originals").mkdir()
    originals = [(p.suffix, p.read_bytes()) for p in write_originals(folder / "originals")]
    for seed in range(first, last):
        suffix, data = originals[seed % len(originals)]
        path = folder / f"{seed}{suffix}"
        path.write_bytes(damaged(data, seed))
        faulthandler.dump_traceback_later(SECONDS_PER_FILE, exit=True)
        try:
            said = read_all(path)
        except ImageError as error:
            said = f"refused: {error}"
        print(seed, said.replace(str(folder), ""), flush=True)
        faulthandler.cancel_dump_traceback_later()
        path.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
