"""Fields of the Classify panel about doubt: which tiles are unsure, how often sets are right."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QCheckBox, QDoubleSpinBox


class TrustOptions(QObject):
    """Three fields of a form; `changed` tells of those that a finished run can be shown with."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.unsure_below = QDoubleSpinBox()
        self.unsure_below.setRange(0, 1)
        self.unsure_below.setSingleStep(0.05)
        self.unsure_below.setSpecialValueText("off")
        self.unsure_below.setToolTip(
            "Tiles whose class is less probable than this are shown in grey, as unsure; also after "
            "a run. The probabilities are calibrated: of tiles with 0.8, about 80 % are right, on "
            "images like those of the training"
        )
        self.count_unsure = QCheckBox("Count the unsure")
        self.count_unsure.setChecked(True)
        self.count_unsure.setToolTip("Whether the counts of the classes include unsure tiles")
        self.coverage = QDoubleSpinBox()
        self.coverage.setRange(0, 0.999)
        self.coverage.setDecimals(3)
        self.coverage.setSingleStep(0.05)
        self.coverage.setSpecialValueText("off")
        self.coverage.setToolTip(
            "Give each tile a set of classes that holds the right one as often as this, on images "
            "like those of the training; tables and the heatmap 'set size' tell how many it has"
        )
        self.unsure_below.valueChanged.connect(self.changed)
        self.count_unsure.toggled.connect(self.changed)

    @property
    def threshold(self) -> float:
        """Tiles less probable than this are unsure; 0: none."""
        return round(self.unsure_below.value(), 2)

    @property
    def values(self) -> dict[str, Any]:
        """Keywords of `iter_classify`."""
        return {
            "unsure_below": self.threshold,
            "count_unsure": self.count_unsure.isChecked(),
            "coverage": round(self.coverage.value(), 3) or None,
        }
