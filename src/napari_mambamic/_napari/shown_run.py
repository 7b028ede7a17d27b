"""A run in the viewer: its layers and counts, a part in each turn of the window's event loop.

A window with OpenGL in it is drawn anew whenever anything in it changes.  Everything in one turn,
and it would stand still for as long as all that takes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import numpy as np
from napari.components import ViewerModel
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer

from napari_mambamic._napari.classify_layer import Request, result_layers_of
from napari_mambamic._napari.to_layers import ResultLayers
from napari_mambamic.progress import Progress
from napari_mambamic.results import TileResults

_SECONDS_BETWEEN_UPDATES = 0.2
_MS_BETWEEN_TURNS = 5  # in which the window is drawn, and listens to the mouse
_MOST_AT_ONCE = 50_000  # tiles that are shown in a turn, which takes some 10 ms


_Part = tuple[TileResults, NDArray[np.intp]]  # some tiles of a plane


class ShownRun(QObject):
    """The layers of a run, and how many tiles have each class.

    Parameters
    ----------
    viewer : napari.Viewer
    request : Request
    tell : callable
        Says how far the run is, by its latest `Progress`, after the layers have shown it.
    show_counts : callable
        Shows the counts, by this object.
    parent : QObject
        What it ends with.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        request: Request,
        tell: Callable[[Progress], object],
        show_counts: Callable[[ShownRun], object],
        parent: QObject,
    ) -> None:
        super().__init__(parent)
        self._viewer, self.request = viewer, request
        self._tell, self._show_counts = tell, show_counts
        self.layers: ResultLayers | None = None
        self.everything: list[TileResults] = []  # of each plane so far
        self.latest = Progress(0, 0)
        self.counts: dict[str, int] = {}  # of what is shown
        self.n_unsure = 0
        self._fresh: deque[_Part] = deque()  # not shown yet
        self._uncounted: list[_Part] = []  # shown, and not counted yet
        self._tells_next = False  # of what is shown
        self._then: Callable[[], object] | None = None
        self._began = self._next_update = 0.0
        self._turn = QTimer(self)
        self._turn.setSingleShot(True)
        self._turn.timeout.connect(self._take_turn)

    def take(self, progress: Progress) -> None:
        """Show a step of the run, soon."""
        if not self.everything or progress.results is not self.everything[-1]:
            self.everything.append(progress.results)
        if progress.tiles is not None and len(progress.tiles):
            self._fresh.append((progress.results, progress.tiles))
        self.latest = progress
        if not self._turn.isActive():
            self._turn.start(max(0, round(1000 * (self._next_update - time.perf_counter()))))

    def take_again(self, everything: list[TileResults]) -> None:
        """Show and count all tiles again, for what is known of them has changed."""
        self.everything = everything
        self._fresh = deque((each, np.arange(len(each))) for each in everything if len(each))
        self._uncounted, self._tells_next = [], False
        self.counts, self.n_unsure = dict.fromkeys(self.counts, 0), 0

    def show_rest(self, then: Callable[[], object]) -> None:
        """Show what is new, and call a function when that is done: at once where it is little."""
        self._then = then
        if self._is_behind:
            self._take_turn()
        else:
            self._end()

    def finish(self) -> None:
        """Show that what is shown is final."""
        if self.layers is not None and self.layers.are_shown:
            for results in self.everything:
                number = self.request.number_of(results)
                self.layers.finish(results, plane=number, counts=self._all_counts)

    def note_counts(self) -> None:
        """Keep the counts in the layers."""
        if self.layers is not None and self.layers.are_shown:
            self.layers.note_counts(self._all_counts)

    def leave(self) -> None:
        """Show nothing more."""
        self._turn.stop()
        self.deleteLater()

    @property
    def _all_counts(self) -> list[int]:
        return [*self.counts.values(), self.n_unsure]

    @property
    def _n_fresh(self) -> int:
        return sum(len(tiles) for _, tiles in self._fresh)

    @property
    def _is_behind(self) -> bool:
        return bool(self._fresh) or self._tells_next

    def _take_turn(self) -> None:
        self._turn.stop()
        is_little = self.layers is not None and self._n_fresh <= _MOST_AT_ONCE
        try:
            self._do_next()
            while self._then is not None and is_little and self._is_behind:
                self._do_next()
        except Exception:
            self._fresh.clear()  # a defect of the program is told, and the run ends all the same
            self._tells_next = False
            raise
        finally:
            if self._then is not None and not self._is_behind:
                self._end()

    def _do_next(self) -> None:
        """Add the layers, show more tiles, or count and tell of them."""
        if self._tells_next:
            self._tells_next = False
            self._count_shown()
            if self._then is None:
                self._tell(self.latest)
                self._wait()
                return
        elif self.layers is None:
            self._add_layers()
        else:
            self._began = time.perf_counter()
            self._show_more()
            self._tells_next = True
        self._turn.start(_MS_BETWEEN_TURNS)

    def _wait(self) -> None:
        """Draw at most a fifth of the time, however many tiles there are."""
        now = time.perf_counter()
        pause = max(_SECONDS_BETWEEN_UPDATES, 4 * (now - self._began))
        self._next_update = now + pause
        if self._fresh:
            self._turn.start(round(1000 * pause))

    def _end(self) -> None:
        self._turn.stop()
        then, self._then = self._then, None
        if then is not None:
            then()

    def _add_layers(self) -> None:
        """Add the layers, without tiles: that takes napari long enough."""
        first = self.everything[0]
        nothing = np.empty(0, np.intp)
        self.layers = result_layers_of(self._viewer, self.request, first, tiles=nothing)
        if self.request.within is None:
            self.layers.hide_earlier()
        self.counts = dict.fromkeys(first.class_names, 0)

    def _show_more(self) -> None:
        """Show what is new, or as much of it as does not hold the window."""
        n_left = self._n_fresh
        if self.layers.takes_parts:
            n_left = min(n_left, _MOST_AT_ONCE)
        while n_left > 0:
            results, tiles = self._next_part(n_left)
            n_left -= len(tiles)
            if self.layers.are_shown:
                number = self.request.number_of(results)
                self.layers.fill(results, tiles=tiles, plane=number)
            self._uncounted.append((results, tiles))

    def _count_shown(self) -> None:
        parts, self._uncounted = self._uncounted, []
        for results, tiles in parts:
            self._count(results, tiles)
            if self.layers.are_shown:
                self.layers.note(results, plane=self.request.number_of(results))
        self._show_counts(self)

    def _next_part(self, most: int) -> _Part:
        """At most so many tiles, of one plane."""
        results = self._fresh[0][0]
        parts, n = [], 0
        while n < most and self._fresh and self._fresh[0][0] is results:
            parts.append(self._fresh.popleft()[1])
            n += len(parts[-1])
        tiles = np.concatenate(parts)
        if n > most:
            self._fresh.appendleft((results, tiles[most:]))
        return results, tiles[:most]

    def _count(self, results: TileResults, tiles: NDArray[np.intp]) -> None:
        labels = results.labels_of(tiles)
        unsure = results.unsure(results.unsure_below, tiles)
        self.n_unsure += int(unsure.sum())
        counted = labels >= 0
        if not results.counts_unsure:
            counted &= ~unsure
        found = np.bincount(labels[counted], minlength=len(self.counts))
        for name, n in zip(self.counts, found.tolist(), strict=True):
            self.counts[name] += n
