"""What makes results doubtful: the sentence that matters most, the others when they are wanted."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_mambamic._napari.message import Message


class WarningsBox(QWidget):
    """The first of some sentences, and a button that unfolds the others."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Warnings")
        self._first, self._others = Message("Warning"), Message("More warnings")
        self._n_others = 0
        self.more_button = QPushButton()
        self.more_button.setCheckable(True)
        self.more_button.setToolTip("Show or hide what else makes these results doubtful")
        self.more_button.toggled.connect(self._fold)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self._first, self.more_button, self._others):
            layout.addWidget(widget)
        self.show_sentences([])

    def show_sentences(self, sentences: Sequence[str]) -> None:
        """Show sentences, the most important one first; the others are folded."""
        marked = [f"⚠ {sentence}" for sentence in sentences]
        self._n_others = max(len(marked) - 1, 0)
        self._first.setText("".join(marked[:1]))
        self._others.setText("\n\n".join(marked[1:]))
        self.more_button.setVisible(self._n_others > 0)
        self.more_button.setChecked(False)
        self._fold(False)
        self.setVisible(bool(marked))

    def text(self) -> str:
        """All sentences, also those that are folded."""
        return "\n\n".join(label.text() for label in (self._first, self._others) if label.text())

    def _fold(self, unfolded: bool) -> None:
        self._others.setVisible(unfolded)
        s = "" if self._n_others == 1 else "s"
        more = f"{self._n_others} more warning{s}..."
        self.more_button.setText("Fewer warnings" if unfolded else more)
