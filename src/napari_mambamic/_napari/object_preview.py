"""The objects that the settings of now would find, shown on the part of the plane in view."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray
from qtpy.QtCore import QTimer

from napari_mambamic._napari.from_layer import LayerPlane, plane_of_layer, region_in_view
from napari_mambamic._napari.to_layers import place_of, placed_on
from napari_mambamic._napari.workers import create_worker, iter_or_sentence
from napari_mambamic.errors import MambamicError
from napari_mambamic.objects import ObjectSettings, Region, Signal, iter_find_objects, signal_of

_MOST_PIXELS = 600_000  # are looked at in about a fifth of a second
_COLOUR = "#00FF00"  # seen on glass, stain and darkness
_WAIT_MS = 60  # changes that come within it are shown together


@dataclass(frozen=True)
class Found:
    """What a look at a part of a plane found.

    Parameters
    ----------
    plane : LayerPlane
    region : (y, x, height, width)
        Where was looked, in px of the image.
    labels : (height, width) ndarray
    signal : Signal
        With the threshold that was used.
    sizes_px : (n_objects,) ndarray
        Areas.
    """

    plane: LayerPlane
    region: Region
    labels: NDArray[np.int32]
    signal: Signal
    sizes_px: NDArray[np.intp]

    @property
    def is_whole(self) -> bool:
        """Whether the region is the plane."""
        return self.region[2:] == self.plane.image.plane_shape


class ObjectPreview:
    """A Labels layer that follows the settings, the view and the image.

    Parameters
    ----------
    viewer : napari.Viewer
    on_found : callable
        Takes what was found, each time.
    on_sentence : callable
        Takes a sentence for the user where nothing could be looked for.
    on_deleted : callable
        Is called when the user deletes the layer; then the preview is closed.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        *,
        on_found: Callable[[Found], object],
        on_sentence: Callable[[str], object],
        on_deleted: Callable[[], object],
    ) -> None:
        self._viewer = viewer
        self._on_found, self._on_sentence, self._on_deleted = on_found, on_sentence, on_deleted
        self._image: Image | None = None
        self._settings = ObjectSettings()
        self._looked_at: tuple[Any, ...] | None = None
        self._known: tuple[tuple[Any, ...], Signal] | None = None
        self._worker: Any = None
        self._is_stale = False
        self._place = ""
        self.layer: Labels | None = None
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(_WAIT_MS)
        self._timer.timeout.connect(self._look)

    @property
    def is_busy(self) -> bool:
        """Whether something changed that is not shown yet."""
        return self._worker is not None or self._timer.isActive()

    def show(self, image: Image, settings: ObjectSettings) -> None:
        """Show what these settings find, soon."""
        if image != self._image:  # not "is not": a plugin gets a new proxy each time
            self.close()
            self._image = image
            for event in self._events():
                event.connect(self._refresh)
            image.events.data.connect(self._forget)
            self._viewer.layers.events.removed.connect(self._take_removed)
        self._settings = settings
        self._looked_at = None
        self._refresh()

    def close(self) -> None:
        """Stop looking, and remove the layer."""
        if self._image is None:
            return
        for event in self._events():
            event.disconnect(self._refresh)
        self._image.events.data.disconnect(self._forget)
        self._viewer.layers.events.removed.disconnect(self._take_removed)
        self._timer.stop()
        self._image, self._known, self._is_stale = None, None, False
        if self._worker is not None:
            self._worker.quit()
        layer, self.layer = self.layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def _events(self) -> list[Any]:
        """Events after which something else is in view, or lies elsewhere."""
        camera, dims = self._viewer.scene.camera.events, self._viewer.dims.events
        places = [getattr(self._image.events, name, None) for name in place_of(self._image)]
        return [camera.zoom, camera.center, dims.current_step, *(p for p in places if p)]

    def _forget(self, event: object = None) -> None:
        """The pixels are others."""
        self._known, self._looked_at = None, None
        self._refresh()

    def _take_removed(self, event: Any) -> None:
        if event.value == self._image:
            self.close()
        elif event.value == self.layer:
            self.close()
            self._on_deleted()

    def _refresh(self, event: object = None) -> None:
        """Look again soon; a change that comes before that is shown with it."""
        if self._worker is not None:
            self._is_stale = True
        elif not self._timer.isActive():
            self._timer.start()

    def _look(self) -> None:
        if self._image is None:
            return
        try:
            plane = plane_of_layer(self._viewer, self._image)
        except MambamicError as error:
            self._on_sentence(str(error))
            return
        region = region_in_view(plane, most_pixels=_MOST_PIXELS)
        looked_at = (plane.index, region, *(repr(v) for v in place_of(self._image).values()))
        if looked_at == self._looked_at:
            return
        self._looked_at = looked_at
        settings = self._settings
        key: tuple[Any, ...] = (plane.index, settings.channel, settings.bright)
        if isinstance(settings.threshold, str):
            key += (settings.threshold, settings.smoothing_px)
        known = self._known[1] if self._known and self._known[0][: len(key)] == key else None
        self._worker = create_worker(iter_or_sentence, _iter_found, plane, settings, region, known)
        self._worker.returned.connect(lambda found: self._take(found, plane, key))
        self._worker.finished.connect(self._rest)
        self._worker.start()

    def _take(self, found: Found | str, plane: LayerPlane, key: tuple[Any, ...]) -> None:
        if self._image != plane.layer:
            return  # closed meanwhile, or another image is followed
        if isinstance(found, str):
            self._on_sentence(found)
            return
        if self._known is None or self._known[0][: len(key)] != key:
            self._known = (key, found.signal)
        self._draw(found)
        self._on_found(found)

    def _rest(self) -> None:
        self._worker = None
        if self._is_stale:
            self._is_stale = False
            self._refresh()

    def _draw(self, found: Found) -> None:
        plane = found.plane
        data = found.labels.reshape((1,) * len(plane.index) + found.labels.shape)
        place = placed_on(plane, found.region[:2], 1)
        if self.layer is None:
            self._add(data, place, f"{plane.layer.name} preview")
        else:
            self.layer.data = data
            if repr(place) != self._place:  # each of these draws the layer once more
                for name, value in place.items():
                    setattr(self.layer, name, value)
        self._place = repr(place)

    def _add(self, data: NDArray[np.int32], place: dict[str, Any], name: str) -> None:
        chosen = self._viewer.layers.selection.active or self._image
        self.layer = Labels(
            data,
            name=name,
            opacity=1,
            colormap=DirectLabelColormap(color_dict={None: _COLOUR, 0: "transparent"}),
            # What the plugin marks as its own is not offered as an input.
            metadata={"mambamic": "preview of Find objects"},
            **place,
        )
        self.layer.contour = 2
        self.layer.editable = False
        self._viewer.add_layer(self.layer)
        self._viewer.layers.selection.active = chosen


def _iter_found(
    plane: LayerPlane, settings: ObjectSettings, region: Region, known: Signal | None
) -> Generator[Any, None, Found]:
    """Look, in the worker's thread."""
    signal = known or signal_of(plane.image, settings)
    if not isinstance(settings.threshold, str):
        signal = replace(signal, threshold=float(settings.threshold))
    labels = yield from iter_find_objects(plane.image, settings, region=region, signal=signal)
    return Found(plane, region, labels, signal, np.bincount(labels.ravel())[1:])
