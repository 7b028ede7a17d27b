"""One row per tile: CSV and Parquet.

Columns: tile (number), y, x, size (px), object (for objects and points), class, probability (of
that class), then ``p_<name>`` for each class, then those of `TileResults.trust_columns`.  A tile
that was not classified has empty ones.
"""

from __future__ import annotations

import csv
import json
import os
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from napari_mambamic.atomic import write_json, written_atomically
from napari_mambamic.errors import ExportError
from napari_mambamic.exports.description import (
    KEY,
    describe,
    described_results,
    not_ours,
    parsed_description,
)
from napari_mambamic.results import DISTANCE, TileResults
from napari_mambamic.tiling import places_of

_ROWS_AT_ONCE = 10_000
_PROVENANCE = ".provenance.json"


def write_csv(results: TileResults, path: str | os.PathLike[str]) -> Path:
    """Write a CSV file, and the provenance beside it; see `TileResults.to_csv`."""
    path = Path(path)
    ids, labels, places = results.object_ids, results.labels, places_of(results.tiles)
    columns = [np.arange(len(results))[:, np.newaxis], places]
    columns += [] if ids is None else [ids[:, np.newaxis]]
    whole_numbers = np.hstack(columns)
    trust = results.trust_columns()
    no_class = [""] * (2 + len(results.class_names) + len(trust))
    with (
        written_atomically(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(_column_names(results))
        for first in range(0, len(results), _ROWS_AT_ONCE):
            some = slice(first, first + _ROWS_AT_ONCE)
            for i, start, label, shares in zip(
                range(first, len(results)),
                whole_numbers[some].tolist(),
                labels[some].tolist(),
                results.probabilities[some].tolist(),
                strict=False,  # the numbers go on
            ):
                rest = no_class
                if label >= 0:
                    digits = [f"{share:.6g}" for share in shares]
                    said = [f"{column[i]:.9g}" for column in trust.values()]
                    rest = [results.class_names[label], digits[label], *digits, *said]
                writer.writerow([*start, *rest])
    write_provenance(results, path.with_suffix(_PROVENANCE))
    return path


def write_provenance(results: TileResults, path: Path) -> None:
    """Write the JSON file that lies beside a table: where its results come from."""
    write_json(path, results.provenance | {"complete": results.complete})


def read_csv(path: str | os.PathLike[str]) -> TileResults:
    """Read a CSV file of `write_csv`, and the provenance beside it where there is one."""
    path = Path(path)
    beside = path.with_suffix(_PROVENANCE)
    try:
        provenance = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else {}
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = filter(None, csv.reader(file))
            header = next(rows, [])
            has_ids = header[4:5] == ["object"]
            n_numbers = 5 if has_ids else 4
            values = header[n_numbers + 2 :]
            names = [name.removeprefix("p_") for name in values if name.startswith("p_")]
            numbers = np.empty((0, n_numbers), np.int64)
            columns = np.empty((0, len(values)), np.float32)
            blocks = [(numbers, columns)]
            while some := list(islice(rows, _ROWS_AT_ONCE)):
                numbers = np.array([row[:n_numbers] for row in some], np.int64)
                texts = np.array([row[n_numbers + 2 :] for row in some]).reshape(-1, len(values))
                columns = np.where(texts == "", "nan", texts).astype(np.float32)
                blocks.append((numbers, columns))
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise not_ours(path) from error
    if header[:4] != ["tile", "y", "x", "size"]:
        raise not_ours(path)
    numbers, columns = (np.vstack(parts) for parts in zip(*blocks, strict=True))
    complete = provenance.pop("complete", True)
    return described_results(
        {"class_names": names, "complete": complete, "grid": None, "provenance": provenance},
        numbers=numbers[:, 0],
        places=numbers[:, 1:4],
        object_ids=numbers[:, 4] if has_ids else None,
        probabilities=columns[:, : len(names)],
        distances=columns[:, values.index(DISTANCE)] if DISTANCE in values else None,
    )


def write_parquet(results: TileResults, path: str | os.PathLike[str]) -> Path:
    """Write a Parquet file; see `TileResults.to_parquet`."""
    arrow, parquet = _pyarrow()
    path = Path(path)
    labels, missing = results.labels, ~results.is_done
    best = results.probabilities[np.arange(len(results)), labels]
    names = arrow.array(results.class_names, arrow.string())
    places = places_of(results.tiles)
    columns = [np.arange(len(results)), *places.T]
    columns += [] if results.object_ids is None else [results.object_ids]
    columns += [
        arrow.DictionaryArray.from_arrays(arrow.array(labels, arrow.int32(), mask=missing), names),
        *(
            arrow.array(np.ascontiguousarray(column), arrow.float32(), mask=missing)
            for column in (best, *results.probabilities.T)
        ),
        *(arrow.array(column, mask=missing) for column in results.trust_columns().values()),
    ]
    table = arrow.table([arrow.array(column) for column in columns], names=_column_names(results))
    table = table.replace_schema_metadata({KEY: json.dumps(describe(results))})
    with written_atomically(path) as temporary:
        parquet.write_table(table, temporary, compression="zstd")
    return path


def read_parquet(path: str | os.PathLike[str]) -> TileResults:
    """Read a Parquet file of `write_parquet`."""
    arrow, parquet = _pyarrow()
    try:
        table = parquet.read_table(path, memory_map=False)  # so that it can be written over
        metadata = table.schema.metadata or {}
        description = parsed_description(metadata.get(KEY.encode(), b""), path)
        names = ["tile", "y", "x", "size", *(["object"] if description["objects"] else [])]
        numbers = np.stack([table.column(name).to_numpy() for name in names], axis=1)
        columns = [table.column(f"p_{name}").to_numpy() for name in description["class_names"]]
        return described_results(
            description,
            numbers=numbers[:, 0],
            places=numbers[:, 1:4],
            object_ids=numbers[:, 4] if description["objects"] else None,
            probabilities=np.stack(columns, axis=1).astype(np.float32, copy=False),
            distances=table.column(DISTANCE).to_numpy() if DISTANCE in table.column_names else None,
        )
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (arrow.ArrowInvalid, KeyError, IndexError) as error:
        raise not_ours(path) from error


def _column_names(results: TileResults) -> list[str]:
    ids = [] if results.object_ids is None else ["object"]
    shares = [f"p_{name}" for name in results.class_names]
    trust = results.trust_columns()
    return ["tile", "y", "x", "size", *ids, "class", "probability", *shares, *trust]


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ExportError(
            "Parquet needs pyarrow, which is not installed. Install it with pip install "
            "'napari-mambamic[exports]', or save as CSV."
        ) from error
    return pyarrow, parquet
