"""The tile under review in the panel: its picture, what the weights say, and what to answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout

from napari_mambamic._napari.folding_row import FoldingRow
from napari_mambamic._napari.reason_tip import ReasonTip
from napari_mambamic._napari.review_keys import AreaButton, KeyArea
from napari_mambamic._napari.tile_pictures import pixmap_of
from napari_mambamic.training.review import FEWEST_CHECKS, Review

PICTURE = 224  # px on the screen
_ALL_DONE = "every tile has a class"
_ACTIONS = (
    (
        ("accept", "Accept (Enter)", "The class is right"),
        ("skip", "Skip (S)", "Leave the tile without a class"),
        ("undo", "Undo (U)", "Take the last label back"),
    ),
    (
        ("back", "← Back", "The tile that was shown before"),
        ("forward", "Next →", "The next tile; one without a class is skipped"),
    ),
)


class ReviewArea(KeyArea):
    """A tile with a button for each action and each class; the keys do the same."""

    class_given = Signal(int)  # number of the class

    def __init__(self) -> None:
        super().__init__()
        self.picture = QLabel()
        self.picture.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.picture.setAccessibleName("Picture of the tile")
        self.picture.setMinimumHeight(PICTURE)
        self.said = QLabel()
        self.said.setAccessibleName("What the weights say")
        self.said.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.said.setWordWrap(True)
        self._classes = FoldingRow(columns=2)
        self.class_buttons: list[QPushButton] = []
        self.buttons: dict[str, QPushButton] = {}
        self.state = QLabel()
        self.state.setAccessibleName("Progress of the review")
        self.state.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for item in (self.picture, self.said):
            layout.addWidget(item)
        layout.addWidget(self._classes)
        for row in _ACTIONS:
            for action, text, tip in row:
                button = AreaButton(text)
                ReasonTip(button, tip, why=_ALL_DONE)
                button.clicked.connect(partial(self._press, action))
                self.buttons[action] = button
            layout.addWidget(FoldingRow(*(self.buttons[action] for action, *_ in row)))
        layout.addWidget(self.state)

    def show_classes(self, names: Sequence[str]) -> None:
        """Give each class a button."""
        for button in self.class_buttons:
            button.deleteLater()
        self.class_buttons = []
        for i, name in enumerate(names):
            button = AreaButton(f"{i + 1}  {name}" if i < 9 else name)
            ReasonTip(
                button,
                f"The tile is {name}" + (f" (key {i + 1})" if i < 9 else ""),
                why=_ALL_DONE,
            )
            button.clicked.connect(partial(self._give, i))
            self.class_buttons.append(button)
        self._classes.hold(self.class_buttons)

    def expect_answer(self, expected: bool) -> None:
        """Enable what answers a tile, or tell that there is none to answer."""
        for button in (*self.class_buttons, self.buttons["accept"], self.buttons["skip"]):
            button.setEnabled(expected)
        if not expected:
            self.picture.clear()
            self.said.setText("Every tile has a class.")

    def show_picture(self, picture: NDArray[np.uint8]) -> None:
        """Show the tile, as large as there is room for."""
        self.picture.setPixmap(
            pixmap_of(picture).scaled(
                self.width(),
                PICTURE,
                Qt.AspectRatioMode.KeepAspectRatio,
                Qt.TransformationMode.SmoothTransformation,
            )
        )

    def show_words(
        self,
        class_names: Sequence[str],
        shares: NDArray[np.float32],
        *,
        given: str | None,
        told: str,
    ) -> None:
        """Show the label that was given to a tile and what the weights told, or its best classes.

        Parameters
        ----------
        class_names : sequence of str
        shares : ndarray
            (n_classes,) probabilities of the tile.
        given : str or None
            The label.
        told : str
            Class by the weights alone.
        """
        top = np.argsort(-shares, kind="stable")[:3]
        first, *others = (f"{class_names[i]} {shares[i]:.0%}" for i in top)
        lines = [f"<b>{first}</b>", ", ".join(others)]
        if given is not None:
            lines = [f"<b>You: {given}</b>", f"weights: {told}"]
        self.said.setText("<br>".join(line for line in lines if line))

    def show_state(self, review: Review) -> None:
        """Show how far a review is, and the error rate that it found."""
        text = f"{len(review.labelled[0]):,} labelled, {review.n_corrected:,} corrected"
        rate = review.error_rate()
        if rate is None:
            text += f"; an estimated error rate after {FEWEST_CHECKS} random tiles or more."
        else:
            text += (
                f"; estimated error rate {rate.n_wrong / rate.n_checked:.0%} (95 % interval "
                f"{rate.low:.0%} to {rate.high:.0%}, {rate.n_checked} tiles drawn at random)."
            )
        self.state.setText(text)

    def _press(self, action: str, *_: object) -> None:
        self.pressed.emit(action)

    def _give(self, index: int, *_: object) -> None:
        self.class_given.emit(index)
