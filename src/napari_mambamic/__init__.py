"""Tile and cell classification for napari with MambaMIC.

Names are loaded on first use: importing the package loads neither torch nor Qt nor napari.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_mambamic._napari.classify_layer import classify_layer as classify_layer
    from napari_mambamic._napari.samples_from_layers import (
        samples_from_layers as samples_from_layers,
    )
    from napari_mambamic.batch import BatchProgress as BatchProgress
    from napari_mambamic.batch import BatchSummary as BatchSummary
    from napari_mambamic.batch import classify_many as classify_many
    from napari_mambamic.batch import find_images as find_images
    from napari_mambamic.classifier import Prediction as Prediction
    from napari_mambamic.classifier import TileClassifier as TileClassifier
    from napari_mambamic.classifier import load_classifier as load_classifier
    from napari_mambamic.classify import classify_image as classify_image
    from napari_mambamic.classify import classify_objects as classify_objects
    from napari_mambamic.classify import iter_classify as iter_classify
    from napari_mambamic.compare import Comparison as Comparison
    from napari_mambamic.compare import compare_runs as compare_runs
    from napari_mambamic.errors import MambamicError as MambamicError
    from napari_mambamic.explain.embedding_map import embedding_map as embedding_map
    from napari_mambamic.explain.embedding_map import find_similar as find_similar
    from napari_mambamic.explain.faithfulness import deletion_score as deletion_score
    from napari_mambamic.explain.faithfulness import insertion_score as insertion_score
    from napari_mambamic.explain.heatmap import Heatmap as Heatmap
    from napari_mambamic.explain.maps import explain_patches as explain_patches
    from napari_mambamic.explain.robustness import iter_robustness as iter_robustness
    from napari_mambamic.explain.robustness import robustness as robustness
    from napari_mambamic.explain.robustness import robustness_of_tiles as robustness_of_tiles
    from napari_mambamic.explain.robustness_report import RobustnessReport as RobustnessReport
    from napari_mambamic.explain.tiles import explain_tiles as explain_tiles
    from napari_mambamic.explain.tiles import iter_explain as iter_explain
    from napari_mambamic.exports import read_results as read_results
    from napari_mambamic.exports.wsinfer import export_wsinfer as export_wsinfer
    from napari_mambamic.image import as_image as as_image
    from napari_mambamic.image import join_channels as join_channels
    from napari_mambamic.image_files import open_image as open_image
    from napari_mambamic.networks import build_network as build_network
    from napari_mambamic.networks import list_networks as list_networks
    from napari_mambamic.networks import register_network as register_network
    from napari_mambamic.objects import ObjectSettings as ObjectSettings
    from napari_mambamic.objects import find_objects as find_objects
    from napari_mambamic.patches import PatchSpec as PatchSpec
    from napari_mambamic.patches import read_patches as read_patches
    from napari_mambamic.progress import Progress as Progress
    from napari_mambamic.results import TileResults as TileResults
    from napari_mambamic.summary import Summary as Summary
    from napari_mambamic.summary import summarise as summarise
    from napari_mambamic.tiling import Tile as Tile
    from napari_mambamic.tiling import TileGrid as TileGrid
    from napari_mambamic.tiling import plan_tiles as plan_tiles
    from napari_mambamic.tiling import tiles_at_points as tiles_at_points
    from napari_mambamic.tiling import tiles_of_objects as tiles_of_objects
    from napari_mambamic.training.checkpoint import Checkpoint as Checkpoint
    from napari_mambamic.training.config import TrainConfig as TrainConfig
    from napari_mambamic.training.corrections import (
        samples_from_corrections as samples_from_corrections,
    )
    from napari_mambamic.training.datasets import samples_from_boxes as samples_from_boxes
    from napari_mambamic.training.datasets import samples_from_csv as samples_from_csv
    from napari_mambamic.training.datasets import samples_from_folder as samples_from_folder
    from napari_mambamic.training.datasets import samples_from_npz as samples_from_npz
    from napari_mambamic.training.datasets import samples_from_points as samples_from_points
    from napari_mambamic.training.fine_tune import fine_tune as fine_tune
    from napari_mambamic.training.fine_tune import iter_fine_tune as iter_fine_tune
    from napari_mambamic.training.queue import review_order as review_order
    from napari_mambamic.training.report import write_report as write_report
    from napari_mambamic.training.samples import Samples as Samples
    from napari_mambamic.training.samples import join_samples as join_samples
    from napari_mambamic.training.samples import samples_from_arrays as samples_from_arrays
    from napari_mambamic.training.samples import samples_from_image as samples_from_image
    from napari_mambamic.training.samples import without_copies as without_copies
    from napari_mambamic.weights.manifest import Manifest as Manifest
    from napari_mambamic.weights.published import import_published as import_published
    from napari_mambamic.weights.store import fetch_weights as fetch_weights
    from napari_mambamic.weights.store import list_weights as list_weights
    from napari_mambamic.weights.store import remove_weights as remove_weights

_HOMES = {
    "BatchProgress": "batch",
    "BatchSummary": "batch",
    "Checkpoint": "training.checkpoint",
    "Comparison": "compare",
    "Heatmap": "explain.heatmap",
    "MambamicError": "errors",
    "Manifest": "weights.manifest",
    "ObjectSettings": "objects",
    "PatchSpec": "patches",
    "Prediction": "classifier",
    "Progress": "progress",
    "RobustnessReport": "explain.robustness_report",
    "Samples": "training.samples",
    "Summary": "summary",
    "Tile": "tiling",
    "TileClassifier": "classifier",
    "TileGrid": "tiling",
    "TileResults": "results",
    "TrainConfig": "training.config",
    "as_image": "image",
    "build_network": "networks",
    "classify_image": "classify",
    "classify_layer": "_napari.classify_layer",
    "classify_many": "batch",
    "classify_objects": "classify",
    "compare_runs": "compare",
    "deletion_score": "explain.faithfulness",
    "explain_patches": "explain.maps",
    "explain_tiles": "explain.tiles",
    "embedding_map": "explain.embedding_map",
    "export_wsinfer": "exports.wsinfer",
    "fetch_weights": "weights.store",
    "find_images": "batch",
    "find_objects": "objects",
    "find_similar": "explain.embedding_map",
    "fine_tune": "training.fine_tune",
    "import_published": "weights.published",
    "insertion_score": "explain.faithfulness",
    "iter_classify": "classify",
    "iter_explain": "explain.tiles",
    "iter_fine_tune": "training.fine_tune",
    "iter_robustness": "explain.robustness",
    "join_channels": "image",
    "join_samples": "training.samples",
    "list_networks": "networks",
    "list_weights": "weights.store",
    "load_classifier": "classifier",
    "open_image": "image_files",
    "plan_tiles": "tiling",
    "read_patches": "patches",
    "read_results": "exports",
    "register_network": "networks",
    "remove_weights": "weights.store",
    "robustness": "explain.robustness",
    "robustness_of_tiles": "explain.robustness",
    "review_order": "training.queue",
    "samples_from_arrays": "training.samples",
    "samples_from_boxes": "training.datasets",
    "samples_from_corrections": "training.corrections",
    "samples_from_csv": "training.datasets",
    "samples_from_folder": "training.datasets",
    "samples_from_image": "training.samples",
    "samples_from_layers": "_napari.samples_from_layers",
    "samples_from_npz": "training.datasets",
    "samples_from_points": "training.datasets",
    "summarise": "summary",
    "tiles_at_points": "tiling",
    "tiles_of_objects": "tiling",
    "write_report": "training.report",
    "without_copies": "training.samples",
}

__all__ = sorted(_HOMES)

try:
    __version__ = version("napari-mambamic")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
