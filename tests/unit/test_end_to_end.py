"""The benchmark of the whole flow classifies what it says, and compares with the network alone."""

from __future__ import annotations

import pytest

from napari_mambamic.bench.end_to_end import end_to_end_table, measure_end_to_end


@pytest.mark.parametrize("source", ["memory", "zarr", "tiff"])
def test_an_image_is_classified_from_each_source(source):
    report = measure_end_to_end(n_tiles=25, sources=(source,), device="cpu")
    (row,) = report["rows"]
    assert (row["source"], report["n_tiles"], report["tile_size"]) == (source, 25, 96)
    assert row["share"] == pytest.approx(row["tiles_per_second"] / row["network_alone"])
    assert 0 < row["share"] < 2
    first, line = end_to_end_table(report).splitlines()
    assert first.startswith("blood-cells-t, 25 tiles on CPU")
    assert line.split()[0] == source
