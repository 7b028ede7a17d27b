"""File > IO Utilities > Export classes as ..., Copy run as ...; and saving a layer as a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from napari.utils.notifications import show_error, show_info
from qtpy.QtWidgets import QApplication

from napari import current_viewer
from napari_mambamic._napari.classified import index_of, layer_with, plane_of
from napari_mambamic._napari.from_layer import finest_of
from napari_mambamic._napari.save_dialog import may_replace, path_to_save
from napari_mambamic._napari.script_files import run_files_of
from napari_mambamic._napari.workers import create_worker, or_sentence
from napari_mambamic.as_script import RunFiles, gaps_of, script_of
from napari_mambamic.colours import Colours
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
    colours : mapping or None
        That the viewer shows the classes in.
    """

    results: TileResults
    labels: Any = None
    colours: Colours | None = None


def export_csv(viewer: ViewerModel) -> None:
    """Save the classes of the selected layer as CSV."""
    _export(viewer, "Table", (".csv",), lambda c, path: c.results.to_csv(path))


def export_parquet(viewer: ViewerModel) -> None:
    """Save the classes of the selected layer as Parquet."""
    _export(viewer, "Table", (".parquet",), lambda c, path: c.results.to_parquet(path))


def export_geojson(viewer: ViewerModel) -> None:
    """Save the classes of the selected layer as GeoJSON for QuPath."""
    _export(
        viewer,
        "GeoJSON",
        (".geojson", ".geojson.gz"),
        lambda c, path: c.results.to_geojson(path, labels=c.labels, colours=c.colours),
    )


def export_ome_zarr(viewer: ViewerModel) -> None:
    """Save the classes and probabilities of the selected layer as OME-Zarr."""
    _export(
        viewer,
        "OME-Zarr",
        (".ome.zarr", ".zarr"),
        lambda c, path: c.results.to_ome_zarr(path, labels=c.labels, colours=c.colours),
    )


def export_thumbnail(viewer: ViewerModel) -> None:
    """Save a picture of the image with the classes of the selected layer."""
    try:
        layer, several = _selected_classes(viewer)
        images = {index_of(c.results): _image_of(viewer, layer, c.results) for c in several}
    except MambamicError as error:
        show_error(str(error))
        return
    _export(
        viewer,
        "Picture",
        (".png",),
        lambda c, path: c.results.to_thumbnail(
            path, images[index_of(c.results)], labels=c.labels, colours=c.colours
        ),
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
        put_script_on_clipboard(viewer, layer, provenance, show_info)
    except MambamicError as error:
        show_error(str(error))


def put_script_on_clipboard(
    viewer: ViewerModel,
    layer: Layer,
    provenance: Mapping[str, Any],
    say: Callable[[str], object],
) -> None:
    """Copy a script that repeats the run of a layer of classes, and `say` what is to be filled in.

    What it reads is looked for, or saved, first, in a thread.

    Raises
    ------
    ExportError
        There can be no script; what was on the clipboard is still there.
    """
    script_of(provenance)
    find = run_files_of(viewer, layer)
    if find is None:
        say(_copied(provenance, RunFiles()))
        return

    def take(found: RunFiles | str) -> None:
        say(_copied(provenance, found) if isinstance(found, RunFiles) else f"⚠ {found}")

    worker = create_worker(or_sentence, find)
    worker.returned.connect(take)
    worker.start()


def _copied(provenance: Mapping[str, Any], files: RunFiles) -> str:
    script = script_of(provenance, files)
    QApplication.clipboard().setText(script)
    gaps = gaps_of(script)
    said = "A Python script that repeats the run is on the clipboard."
    read = {"objects": files.objects, "mask": files.mask}
    told = [f"the {what} from {path}" for what, path in read.items() if path is not None]
    if told:
        said += f" It reads {' and '.join(told)}."
    if not gaps:
        return said
    return f"{said} Fill in what is marked '<-- put here': {', '.join(gaps)}."


def write_classes(path: str, layers: list[tuple[Any, dict[str, Any], str]]) -> list[str]:
    """Save the layer of classes that napari hands over with a path (npe2's writer).

    A path without its ending gets that of GeoJSON: napari's dialog leaves it to the writer.
    """
    endings = (".geojson", ".geojson.gz", ".csv")
    to = Path(path if path.lower().endswith(endings) else f"{path}.geojson")
    written = []
    try:
        for data, attributes, kind in layers:
            several = _classes_of(
                current_viewer(),
                attributes["name"],
                attributes["metadata"],
                data if kind == "labels" else None,
            )
            for c, target in zip(several, _targets(several, to, endings), strict=True):
                if to.suffix.lower() == ".csv":
                    written.append(c.results.to_csv(target))
                else:
                    written.append(c.results.to_geojson(target, labels=c.labels, colours=c.colours))
        return [str(each) for each in written]
    except MambamicError as error:
        # napari takes a ValueError, which ours are, to mean that it knows no writer.
        raise OSError(str(error)) from error


def _export(
    viewer: ViewerModel,
    kind: str,
    endings: tuple[str, ...],
    write: Callable[[Classes, Path], Path],
) -> None:
    """Ask for a path and write to it in a thread; tell what came of it."""
    try:
        layer, several = _selected_classes(viewer)
    except MambamicError as error:
        show_error(str(error))
        return
    suggested = re.sub(r'[\\/:*?"<>|\s]+', " ", layer.name).strip() + endings[0]
    window = QApplication.activeWindow()
    path = path_to_save(window, "Export classes", suggested, {kind: endings})
    if path is None:
        return
    targets = _targets(several, path, endings)
    if len(several) > 1 and not may_replace(window, targets):
        return
    worker = create_worker(or_sentence, _saved, write, several, targets)
    worker.returned.connect(_tell)
    worker.start()


def _selected_classes(viewer: ViewerModel) -> tuple[Layer, list[Classes]]:
    layer = viewer.layers.selection.active
    if layer is None:
        raise ExportError(
            "No layer is selected. Click the layer of classes that Classify added in the layer "
            "list, then export it."
        )
    data = layer.data if isinstance(layer, Labels) else None
    several = _classes_of(viewer, layer.name, layer.metadata, data)
    # A run that goes on fills its results meanwhile.
    return layer, [
        replace(c, results=replace(c.results, probabilities=c.results.probabilities.copy()))
        for c in several
    ]


def _classes_of(
    viewer: ViewerModel | None, name: str, metadata: dict[str, Any], data: Any
) -> list[Classes]:
    """What a layer of classes shows, plane by plane."""
    found = metadata.get("results")
    several = found if isinstance(found, list) else [found]
    if not several or not all(isinstance(results, TileResults) for results in several):
        raise ExportError(
            f"Layer {name!r} has no classes. Click the layer that Classify added in the layer "
            f"list, then export it."
        )
    colours = metadata.get("colours")
    if data is None or several[0].object_ids is None:
        return [Classes(results, colours=colours) for results in several]
    if len(several) == 1:
        plane = data[(0,) * (data.ndim - 2)]  # a plane of a volume is one deep
        return [Classes(several[0], plane, colours)]
    # A layer of several planes shows the classes of objects, not their numbers.
    objects = None if viewer is None else layer_with(viewer, metadata["objects"])
    if not isinstance(objects, Labels):
        raise ExportError(
            f"The objects of layer {name!r} are not in the viewer any more. Open their Labels "
            f"layer and classify them again, then export the classes."
        )
    labels = finest_of(objects)
    return [
        Classes(
            results,
            labels[index_of(results)[-(labels.ndim - 2) :] if labels.ndim > 2 else ()],
            colours,
        )
        for results in several
    ]


def _of_plane(path: Path, endings: Sequence[str], plane: tuple[int, ...]) -> Path:
    """The path of one of several planes.

    >>> _of_plane(Path("a b.geojson.gz"), (".geojson", ".geojson.gz"), (0, 7)).name
    'a b plane 0-7.geojson.gz'
    """
    ending = max((e for e in endings if path.name.lower().endswith(e)), key=len)
    stem, ending = path.name[: -len(ending)], path.name[-len(ending) :]
    return path.with_name(f"{stem} plane {'-'.join(map(str, plane))}{ending}")


def _image_of(viewer: ViewerModel, layer: Layer, results: TileResults) -> ImagePyramid:
    """The plane that was classified; of an image that was opened again, by its name."""
    image = layer_with(viewer, layer.metadata.get("image"))
    if image is None:
        noted = results.provenance.get("layer") or {}
        name = noted.get("name") or results.provenance.get("image", {}).get("name")
        image = next((each for each in viewer.layers if each.name == name), None)
        if not isinstance(image, Image):
            raise ExportError(
                f"The picture needs the image that was classified, and there is no image layer "
                f"{name!r}. Open it again or give it back its name."
            )
    return plane_of(viewer, image, results).image


def _targets(several: Sequence[Classes], path: Path, endings: Sequence[str]) -> list[Path]:
    """Where each plane goes; of several, each has a file of its own."""
    if len(several) == 1:
        return [path]
    return [_of_plane(path, endings, index_of(c.results)) for c in several]


def _saved(
    write: Callable[[Classes, Path], Path], several: Sequence[Classes], targets: Sequence[Path]
) -> list[Path]:
    return [write(c, target) for c, target in zip(several, targets, strict=True)]


def _tell(outcome: list[Path] | str) -> None:
    if isinstance(outcome, str):
        show_error(outcome)
    elif len(outcome) == 1:
        show_info(f"Saved {outcome[0]}")
    else:
        show_info(f"Saved {len(outcome)} planes, {outcome[0]} and those beside it")
