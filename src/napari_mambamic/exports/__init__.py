"""Results as files: tables, GeoJSON for QuPath, OME-Zarr, a picture; and back from some of them.

And weights in the format of other programs.

Every file tells where its results came from.
"""

from __future__ import annotations

import os
from pathlib import Path

from napari_mambamic.errors import ExportError
from napari_mambamic.results import TileResults


def read_results(path: str | os.PathLike[str]) -> TileResults:
    """Read results that were saved as ``.csv``, ``.parquet``, ``.geojson`` or ``.geojson.gz``.

    Parquet and GeoJSON keep probabilities exactly and know the grid that tiles lay on; CSV keeps
    the digits that it shows.  GeoJSON has no tiles that were not classified; with a grid they come
    back as such.  Objects' tiles come back with their own middles as centres.

    Raises
    ------
    ExportError
        The file cannot be read, or was not written by this package.
    """
    from napari_mambamic.exports.geojson import read_geojson
    from napari_mambamic.exports.table import read_csv, read_parquet

    name = Path(path).name.lower()
    if name.endswith(".csv"):
        return read_csv(path)
    if name.endswith(".parquet"):
        return read_parquet(path)
    if name.endswith((".geojson", ".geojson.gz")):
        return read_geojson(path)
    raise ExportError(
        f"{path} has none of the endings .csv, .parquet, .geojson and .geojson.gz, by which files "
        f"of results are known. Give one that has."
    )
