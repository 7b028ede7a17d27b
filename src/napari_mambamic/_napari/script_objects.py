"""The objects of a run as a file, so that a script that repeats the run can read them.

The layer may never have been a file, or may have been edited since; what is written is the plane
of labels, or the points in px of the image, as the layer has them now.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from napari.components import ViewerModel
from napari.layers import Layer, Points

from napari_mambamic._napari.classified import image_layer_of, layer_with, plane_of
from napari_mambamic._napari.from_layer import labels_of_layer, points_of_layer
from napari_mambamic._napari.to_layers import results_of
from napari_mambamic.atomic import written_atomically
from napari_mambamic.errors import MambamicError
from napari_mambamic.training.annotations import path_in_user_data


def objects_writer(viewer: ViewerModel, layer: Layer) -> Callable[[], Path] | None:
    """What writes the objects of a layer of classes, on any thread, and returns the file.

    None where the run had no objects or went through planes of a stack, or where the image or the
    layer of objects is closed.
    """
    objects = layer_with(viewer, layer.metadata.get("objects"))
    several = results_of(layer)
    if objects is None or not several:
        return None
    results = several[-1]
    if len(results.provenance["layer"].get("planes") or ()) > 1:
        return None  # the script goes through the planes of the layer of objects as a whole
    try:
        plane = plane_of(viewer, image_layer_of(viewer, layer), results)
        if isinstance(objects, Points):
            axis = results.provenance["layer"].get("channel_axis")
            data, suffix = points_of_layer(plane, objects, channel_axis=axis)[0], ".csv"
        else:
            data, suffix = labels_of_layer(plane, objects), ".tif"
    except MambamicError:  # the script has a gap there, which tells what belongs in it
        return None
    key = f"{results.provenance['created']}|{plane.index}|{objects.name}"
    path = path_in_user_data("objects", f"{plane.layer.name} {objects.name}", key, suffix)
    return lambda: _written(data, path)


def _written(data: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path) as temporary:
        if path.suffix == ".csv":
            np.savetxt(temporary, data, delimiter=",", fmt="%.17g")
        else:
            tifffile.imwrite(temporary, np.asarray(data), compression="zlib")
    return path
