"""Functions that run in a thread, again and again, where only the latest result counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari_mambamic._napari.workers import create_worker


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
        self._is_wanted = True

    @property
    def is_busy(self) -> bool:
        """Whether a call is at work."""
        return self._worker is not None

    def ask(self, *arguments: Any) -> None:
        """Call the function, now or after the call at work."""
        if self._worker is not None:
            self._waiting = arguments
            return
        self._is_wanted = True
        self._worker = create_worker(self._function, *arguments)
        self._worker.returned.connect(self._return)
        self._worker.finished.connect(self._finish)
        self._worker.start()

    def forget(self) -> None:
        """Take nothing of what is at work, and do nothing after it."""
        self._waiting, self._is_wanted = None, False

    def _return(self, result: Any) -> None:
        if self._is_wanted:
            self._take(result)

    def _finish(self) -> None:
        self._worker = None
        if self._waiting is not None:
            arguments, self._waiting = self._waiting, None
            self.ask(*arguments)


class Newest:
    """Runs calls beside each other; of their results only that of the last one is taken.

    Parameters
    ----------
    on_error : callable
        Takes an error that is a defect of the program.
    """

    def __init__(self, on_error: Callable[[Exception], object]) -> None:
        self._on_error = on_error
        self._turn, self._running = 0, 0

    @property
    def is_busy(self) -> bool:
        """Whether a call is at work."""
        return self._running > 0

    def ask(
        self, function: Callable[..., Any], take: Callable[[Any], object], *arguments: Any
    ) -> None:
        """Call a function in a thread; `take` gets what it returns, on the thread of the window."""
        self.forget()
        turn = self._turn
        self._running += 1

        def returned(result: Any) -> None:
            if self._turn == turn:
                take(result)

        def finished() -> None:
            self._running -= 1

        worker = create_worker(function, *arguments)
        worker.returned.connect(returned)
        worker.errored.connect(self._on_error)
        worker.finished.connect(finished)
        worker.start()

    def forget(self) -> None:
        """Take nothing of what is at work."""
        self._turn += 1
