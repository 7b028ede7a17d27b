"""File > IO Utilities > Export model for QuPath (WSInfer)..."""

from __future__ import annotations

from pathlib import Path

from napari.components import ViewerModel
from napari.utils.notifications import show_error, show_info
from qtpy.QtWidgets import QApplication, QInputDialog, QWidget

from napari_mambamic._napari.classified import results_in_view, weights_of
from napari_mambamic._napari.save_dialog import path_to_save
from napari_mambamic._napari.to_layers import results_of
from napari_mambamic._napari.workers import create_worker, or_sentence
from napari_mambamic.errors import ExportError, MambamicError, PixelSizeMissing
from napari_mambamic.results import TileResults
from napari_mambamic.weights.manifest import Manifest
from napari_mambamic.weights.store import read_manifest

_LEAST_UM, _MOST_UM, _DECIMALS = 0.001, 1000.0, 4


def export_model(viewer: ViewerModel) -> None:
    """Save the weights that made the selected layer of classes as a model of WSInfer."""
    from napari_mambamic.exports.wsinfer import config_of

    window = QApplication.activeWindow()
    layer = viewer.layers.selection.active
    try:
        if layer is None or not results_of(layer):
            raise ExportError(
                "No layer of classes is selected. Click the one that Classify added in the layer "
                "list: the weights that it was made with are exported."
            )
        results = results_in_view(viewer, layer)
        weights = weights_of(results)
        manifest = read_manifest(weights)
        try:
            config_of(manifest)
            pixel_size = manifest.patch.pixel_size_um
        except PixelSizeMissing:
            pixel_size = _ask_pixel_size(window, manifest, results)
            if pixel_size is None:
                return
    except MambamicError as error:
        show_error(str(error))
        return
    folder = path_to_save(window, "Export model", manifest.name, {"Folder": [""]})
    if folder is None:
        return
    worker = create_worker(or_sentence, _exported, weights, folder, pixel_size)
    worker.returned.connect(_tell)
    worker.start()


def _ask_pixel_size(
    window: QWidget | None, manifest: Manifest, results: TileResults
) -> float | None:
    """At which an object is as large for QuPath as in this run; None where nobody says."""
    patch = manifest.patch
    seen = results.provenance.get("image", {}).get("pixel_size_um")
    guess = max(seen) * results.tiles[0].size / patch.tile_size if seen and len(results) else 0.25
    answer, given = QInputDialog.getDouble(
        window,
        "Pixel size of the training images",
        f"QuPath cuts tiles by their size in micrometres. How many micrometres is a px of the\n"
        f"images that the weights were trained on, in tiles of {patch.tile_size} px?",
        guess,
        _LEAST_UM,
        _MOST_UM,
        _DECIMALS,
    )
    return answer if given else None


def _exported(weights: str, folder: Path, pixel_size: float) -> Path:
    from napari_mambamic.exports.wsinfer import export_wsinfer

    return export_wsinfer(weights, folder, pixel_size_um=pixel_size)


def _tell(outcome: Path | str) -> None:
    if isinstance(outcome, str):
        show_error(outcome)
    else:
        show_info(
            f"Saved the model {outcome}. Put that folder into the folder 'local' of the model "
            f"directory of QuPath's WSInfer extension."
        )
