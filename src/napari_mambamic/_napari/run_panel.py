"""What panels share that run something long: a worker, Cancel, a progress bar and a message."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

from napari.qt.threading import GeneratorWorker
from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer
from qtpy.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QLayout,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_mambamic._napari.fluid import fluid_window
from napari_mambamic._napari.letters import SameLetters
from napari_mambamic._napari.message import Message
from napari_mambamic._napari.open_panel import StandsAsTab
from napari_mambamic._napari.workers import create_worker, iter_or_sentence

_LEAST_WIDTH = 300  # px; more where the letters are large


class RunPanel(QScrollArea):
    """A form with a button that runs a generator in a thread.

    Parameters
    ----------
    action : str
        On the button.
    """

    def __init__(self, action: str) -> None:
        super().__init__()
        self._worker: Any = None
        self._stopped = False
        self._settles = False
        self.run_button = QPushButton(action)
        self.run_button.clicked.connect(self.start)
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.clicked.connect(self.cancel)
        self.cancel_button.setEnabled(False)
        self._actions = QHBoxLayout()
        self._actions.addWidget(self.run_button, 2)
        self._actions.addWidget(self.cancel_button, 1)
        self.progress = QProgressBar()
        self.progress.hide()
        self.message = Message("Message")
        self.setWidgetResizable(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._tab = StandsAsTab(self)

    @property
    def is_running(self) -> bool:
        """Whether a run is going on."""
        return self._worker is not None

    def start(self) -> None:
        """Read the form and `_run` it."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Stop after the step at work."""
        if self._worker is not None:
            self._stopped = True
            self.cancel_button.setEnabled(False)
            self._say("Stopping ...")
            self._worker.quit()

    def _lay_out(self, *items: QWidget | QLayout) -> None:
        """Stack widgets and layouts."""
        inside = QWidget()
        layout = QVBoxLayout(inside)
        for item in items:
            if isinstance(item, QLayout):
                layout.addLayout(item)
            else:
                layout.addWidget(item)
        layout.addStretch(1)
        for form in inside.findChildren(QFormLayout):  # large letters: the field below its name
            form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        self.setWidget(inside)
        SameLetters(inside)

    def minimumSizeHint(self) -> QSize:
        """As wide as what is inside wants, for it does not scroll sideways."""
        hint = super().minimumSizeHint()
        if self.widget() is None:
            return hint
        wanted = self.widget().minimumSizeHint().width()
        bar = self.verticalScrollBar().sizeHint().width()
        return QSize(max(_LEAST_WIDTH, wanted + bar + 2 * self.frameWidth()), hint.height())

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """What is inside has another size: other letters, or more of it."""
        if event.type() == QEvent.Type.LayoutRequest and watched is self.widget():
            self.updateGeometry()
            if not self._settles:
                self._settles = True
                QTimer.singleShot(0, self._settle)
        return bool(super().eventFilter(watched, event))

    def _settle(self) -> None:
        """Lay out again what was given less height than its text takes.

        Qt takes the heights for the width before a scroll bar came, or a row was folded.
        """
        for widget in self.widget().findChildren(QWidget):
            short = widget.hasHeightForWidth() and widget.isVisible()
            if short and widget.height() < widget.heightForWidth(widget.width()):
                widget.updateGeometry()
        QTimer.singleShot(0, self._end_settling)

    def _end_settling(self) -> None:
        self._settles = False

    def _run(self, generator: Callable[..., Any], *arguments: Any) -> None:
        """Start a generator in a thread; what it refuses comes as a sentence in its result."""
        self._stopped = False
        self.progress.setRange(0, 0)
        self._worker = create_worker(
            iter_or_sentence, generator, *arguments, worker_class=_ClosingWorker
        )
        self._set_running(True)
        self._worker.yielded.connect(self._show_progress)
        self._worker.returned.connect(self._take_result)
        self._worker.errored.connect(self._show_error)
        self._worker.finished.connect(self._finish)
        # A panel that goes away stops its run.
        self.destroyed.connect(self._worker.quit)
        self._worker.start()

    def _finish(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            self.destroyed.disconnect(worker.quit)
        self._set_running(False)
        self._show_end()

    def _show_progress(self, progress: Any) -> None:
        """Take what the generator yields."""

    def _take_result(self, result: Any) -> None:
        """Take what it returns, or a sentence; not called when it is cancelled."""

    def _show_end(self) -> None:
        """Tell how it ended, whichever way."""

    def _show_error(self, error: Exception) -> None:
        """Tell of a defect of the program; napari shows where it happened."""
        self._say(f"The run failed: {error!r}. What was done is kept.", is_error=True)

    def _set_running(self, running: bool) -> None:
        self.run_button.setEnabled(not running)
        self.cancel_button.setEnabled(running)
        self.progress.setVisible(running)

    def _say(self, text: str, *, is_error: bool = False) -> None:
        self.message.setText(f"⚠ {text}" if is_error else text)


class _ClosingWorker(GeneratorWorker):
    """Lets a generator that is cancelled put things in order before the run has ended."""

    def work(self) -> Any:
        with fluid_window(), closing(self._gen):
            return super().work()


def in_words(seconds: float) -> str:
    """Time left, rounded as people say it.

    >>> in_words(3725)
    '1 h 2 min'
    """
    if seconds < 60:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
