"""A function that runs in a thread, again and again, on the latest of what it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.qt.threading import create_worker


class Latest:
    """Runs one call at a time; of what is asked meanwhile only the last is done after it.

    Parameters
    ----------
    function : callable
        Runs in a thread.
    take : callable
        Takes what it returned, on the thread of the window.
    """

    def __init__(self, function: Callable[..., Any], take: Callable[[Any], object]) -> None:
        self._function, self._take = function, take
        self._worker: Any = None
        self._waiting: tuple[Any, ...] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a call is at work."""
        return self._worker is not None

    def ask(self, *arguments: Any) -> None:
        """Call the function, now or after the call at work."""
        if self._worker is not None:
            self._waiting = arguments
            return
        self._worker = create_worker(self._function, *arguments)
        self._worker.returned.connect(self._take)
        self._worker.finished.connect(self._finish)
        self._worker.start()

    def _finish(self) -> None:
        self._worker = None
        if self._waiting is not None:
            arguments, self._waiting = self._waiting, None
            self.ask(*arguments)
