"""File > IO Utilities > Export classes as ..., Copy run as ...; and saving a layer as a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from napari.qt.threading import create_worker
from napari.utils.notifications import show_error, show_info
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_mambamic._napari.from_layer import plane_at
from napari_mambamic.as_script import gaps_of, script_of
from napari_mambamic.errors import ExportError, MambamicError
from napari_mambamic.image import ImagePyramid
from napari_mambamic.results import TileResults


@dataclass(frozen=True)
class Classes:
    """What a layer of classes shows.

    Parameters
    ----------
    results : TileResults
    labels : array-like or None
        The label image (y, x) of its objects.
    """

    results: TileResults
    labels: Any = None


def export_csv(viewer: ViewerModel) -> None:
    """Save the classes of the selected layer as CSV."""
    _export(viewer, "Table (*.csv)", (".csv",), lambda c, path: c.results.to_csv(path))


def export_parquet(viewer: ViewerModel) -> None:
    """Save the classes of the selected layer as Parquet."""
    _export(viewer, "Table (*.parquet)", (".parquet",), lambda c, path: c.results.to_parquet(path))


def export_geojson(viewer: ViewerModel) -> None:
    """Save the classes of the selected layer as GeoJSON for QuPath."""
    _export(
        viewer,
        "GeoJSON (*.geojson *.geojson.gz)",
        (".geojson", ".geojson.gz"),
        lambda c, path: c.results.to_geojson(path, labels=c.labels),
    )


def export_ome_zarr(viewer: ViewerModel) -> None:
    """Save the classes and probabilities of the selected layer as OME-Zarr."""
    _export(
        viewer,
        "OME-Zarr (*.zarr)",
        (".ome.zarr", ".zarr"),
        lambda c, path: c.results.to_ome_zarr(path, labels=c.labels),
    )


def export_thumbnail(viewer: ViewerModel) -> None:
    """Save a picture of the image with the classes of the selected layer."""
    try:
        image = _image_of(viewer, _selected_classes(viewer)[1].results)
    except MambamicError as error:
        show_error(str(error))
        return
    _export(
        viewer,
        "Picture (*.png)",
        (".png",),
        lambda c, path: c.results.to_thumbnail(path, image, labels=c.labels),
    )


def copy_script(viewer: ViewerModel) -> None:
    """Copy a Python script that repeats the run of the selected layer."""
    layer = viewer.layers.selection.active
    provenance = None if layer is None else layer.metadata.get("mambamic")
    try:
        if provenance is None:
            what = "No layer is selected" if layer is None else f"Layer {layer.name!r} has no run"
            raise ExportError(
                f"{what}. Click the layer of classes that Classify added in the layer list, then "
                f"copy its script."
            )
        show_info(put_script_on_clipboard(provenance))
    except MambamicError as error:
        show_error(str(error))


def put_script_on_clipboard(provenance: Mapping[str, Any]) -> str:
    """Copy a script that repeats a run, and tell what has to be filled in.

    Raises
    ------
    ExportError
        There can be no script; what was on the clipboard is still there.
    """
    script = script_of(provenance)
    QApplication.clipboard().setText(script)
    gaps = gaps_of(script)
    said = "A Python script that repeats the run is on the clipboard."
    if not gaps:
        return said
    return f"{said} Fill in what is marked '<-- put here': {', '.join(gaps)}."


def write_classes(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save a layer of classes that napari hands over with a path (npe2's writer)."""
    try:
        classes = _classes_of(attributes["name"], attributes["metadata"], data)
        if path.lower().endswith(".csv"):
            return [str(classes.results.to_csv(path))]
        return [str(classes.results.to_geojson(path, labels=classes.labels))]
    except MambamicError as error:
        # napari takes a ValueError, which ours are, to mean that it knows no writer.
        raise OSError(str(error)) from error


def _export(
    viewer: ViewerModel,
    file_filter: str,
    endings: tuple[str, ...],
    write: Callable[[Classes, Path], Path],
) -> None:
    """Ask for a path and write to it in a thread; tell what came of it."""
    try:
        layer, classes = _selected_classes(viewer)
    except MambamicError as error:
        show_error(str(error))
        return
    suggested = re.sub(r'[\\/:*?"<>|\s]+', " ", layer.name).strip() + endings[0]
    path, _ = QFileDialog.getSaveFileName(
        QApplication.activeWindow(), "Export classes", suggested, file_filter
    )
    if not path:
        return
    if not path.lower().endswith(endings):
        path += endings[0]
    worker = create_worker(_saved_or_sentence, write, classes, Path(path))
    worker.returned.connect(_tell)
    worker.start()


def _selected_classes(viewer: ViewerModel) -> tuple[Layer, Classes]:
    layer = viewer.layers.selection.active
    if layer is None:
        raise ExportError(
            "No layer is selected. Click the layer of classes that Classify added in the layer "
            "list, then export it."
        )
    data = layer.data if isinstance(layer, Labels) else None
    classes = _classes_of(layer.name, layer.metadata, data)
    # A run that goes on fills its results meanwhile.
    results = replace(classes.results, probabilities=classes.results.probabilities.copy())
    return layer, replace(classes, results=results)


def _classes_of(name: str, metadata: dict[str, Any], data: Any) -> Classes:
    results = metadata.get("results")
    if isinstance(results, list):
        raise ExportError(
            f"Layer {name!r} shows {len(results)} planes, and a file holds one. Classify the plane "
            f"in view alone, then export it."
        )
    if not isinstance(results, TileResults):
        raise ExportError(
            f"Layer {name!r} has no classes. Click the layer that Classify added in the layer "
            f"list, then export it."
        )
    if data is None or results.object_ids is None:
        return Classes(results)
    return Classes(results, data[(0,) * (data.ndim - 2)])  # a plane of a volume is one deep


def _image_of(viewer: ViewerModel, results: TileResults) -> ImagePyramid:
    """The plane that was classified, if its layer is still there."""
    noted = results.provenance.get("layer", {})
    name = noted.get("name") or results.provenance.get("image", {}).get("name")
    layer = next((layer for layer in viewer.layers if layer.name == name), None)
    if not isinstance(layer, Image):
        raise ExportError(
            f"The picture needs the image that was classified, and there is no image layer "
            f"{name!r}. Open it again or give it back its name."
        )
    return plane_at(layer, tuple(noted.get("plane", ()))).image


def _saved_or_sentence(
    write: Callable[[Classes, Path], Path], classes: Classes, path: Path
) -> Path | str:
    """Write in the worker's thread; raised errors would be shown as defects of the program."""
    try:
        return write(classes, path)
    except MambamicError as error:
        return str(error)


def _tell(outcome: Path | str) -> None:
    if isinstance(outcome, Path):
        show_info(f"Saved {outcome}")
    else:
        show_error(outcome)
