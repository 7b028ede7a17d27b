"""How results were made."""

from __future__ import annotations

import platform
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from napari_mambamic.image import ImagePyramid

if TYPE_CHECKING:
    from napari_mambamic.classifier import TileClassifier


def provenance_of(
    image: ImagePyramid, classifier: TileClassifier, settings: dict[str, Any]
) -> dict[str, Any]:
    """What is needed to tell, and to repeat, how results were made."""
    manifest = classifier.manifest
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("napari-mambamic", "torch", "numpy")},
        },
        "image": about_image(image),
        "weights": {
            "name": manifest.name,
            "network": manifest.network,
            "sha256": manifest.sha256,
            "licence": manifest.licence,
            "credit": manifest.credit,
            "title": manifest.title,
            "trust": dict(manifest.trust),
        },
        "device": classifier.device.reason,
        "precision": classifier.precision,
        "settings": settings,
    }


def about_image(image: ImagePyramid) -> dict[str, Any]:
    """What tells an image from others, ready for JSON."""
    return {
        "name": image.name,
        "plane_shape": list(image.plane_shape),
        "n_levels": len(image.levels),
        "n_channels": image.n_channels,
        "dtype": str(image.dtype),
        "pixel_size_um": image.pixel_size_um and list(image.pixel_size_um),
        "path": image.path or None,
        "opened_with": dict(image.opened_with),
        "stack": {axis: list(place) for axis, place in image.stack.items()},
    }
