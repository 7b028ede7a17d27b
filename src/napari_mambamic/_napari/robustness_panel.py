"""The Robustness panel: how many labels change when the picture does."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components import ViewerModel
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import (
    QFormLayout,
    QHeaderView,
    QPushButton,
    QSpinBox,
    QTableWidgetItem,
)

from napari_mambamic._napari.chart import Chart
from napari_mambamic._napari.classified import Classified, classified_of, iter_classifier_of
from napari_mambamic._napari.fitted_table import FittedTable
from napari_mambamic._napari.next_step import NextStep
from napari_mambamic._napari.reason_tip import NOTHING_RUNS, RUNS, ReasonTip
from napari_mambamic._napari.result_box import ResultBox, no_results
from napari_mambamic._napari.run_panel import RunPanel, in_words
from napari_mambamic._napari.save_dialog import path_to_save
from napari_mambamic.atomic import written_atomically
from napari_mambamic.errors import MambamicError
from napari_mambamic.progress import Progress

if TYPE_CHECKING:
    from napari_mambamic.explain.robustness_report import RobustnessReport

_ENOUGH = 200  # tiles
_STRENGTHS = 5
_FINER = 3  # px of a saved chart, for each on the screen
_KINDS = {"Page with charts": [".html"], "Figures": [".json"], "Picture of the chart": [".png"]}


class RobustnessPanel(RunPanel):
    """Choose a layer of classes, press Measure."""

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__("Measure")
        self._viewer = napari_viewer
        self.report: RobustnessReport | None = None
        ReasonTip(
            self.run_button,
            "Turn, move, blur and light some tiles of the layer otherwise, and count how many "
            "labels change",
            why=RUNS,
        )
        ReasonTip(self.cancel_button, "Stop; nothing is shown", why=NOTHING_RUNS)
        self.layer = ResultBox(napari_viewer, "Results")
        self.layer.setToolTip("A layer that Classify added: its tiles, its weights")
        self.most = QSpinBox()
        self.most.setRange(10, 10_000)
        self.most.setSingleStep(50)
        self.most.setValue(_ENOUGH)
        self.most.setAccessibleName("Most tiles")
        self.most.setToolTip(
            "So many are drawn at random; with 200, a share is known to 7 points or better"
        )
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Results", self.layer)
        form.addRow("Most tiles", self.most)
        self.chart = Chart(
            "share of labels that stay, by strength",
            "Share of labels that stay, by strength",
            top=1.0,
            rows=16,
        )
        self.chart.hide()
        self._build_table()
        self.save_button = QPushButton("Save...")
        ReasonTip(
            self.save_button,
            "The figures as JSON, a page with charts, or this chart as PNG",
            why="press Measure first",
        )
        self.save_button.clicked.connect(self._choose_path)
        self.save_button.setEnabled(False)
        self._lay_out(
            form,
            self._actions,
            self.progress,
            self.message,
            self.chart,
            self.table,
            self.save_button,
        )
        self._next_step = NextStep(napari_viewer, self.message, self._what_next)

    def _what_next(self) -> str:
        if self.layer.layer is None:
            return no_results(self._viewer)
        return (
            "Press Measure to see how many labels stay when the picture is turned, moved, blurred, "
            "noisy, or lit otherwise."
        )

    def _build_table(self) -> None:
        self.table = FittedTable(
            "Labels that stay, by perturbation and strength",
            _STRENGTHS,
            most_rows=100,
            widest="100%",
        )
        self.table.setToolTip("Labels that stay; each cell tells how strong the change is")
        self.table.setHorizontalHeaderLabels([str(i + 1) for i in range(_STRENGTHS)])
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.table.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.table.hide()

    def start(self) -> None:
        """Read the form and measure in a thread."""
        try:
            classified = classified_of(self._viewer, self.layer.layer)
        except MambamicError as error:
            self._say(str(error), is_error=True)
            return
        self._clear()  # it may be of another layer
        self._run(_iter_report, classified, self.most.value())

    def _clear(self) -> None:
        self.report = None
        for widget in (self.chart, self.table):
            widget.hide()
        self.save_button.setEnabled(False)

    def save(self, path: str) -> None:
        """Write the report; the ending says in which format."""
        if self.report is None:
            return
        try:
            if path.lower().endswith(".png"):
                _write_picture(self.chart, path)
            elif path.lower().endswith(".html"):
                self.report.to_html(path)
            else:
                self.report.to_json(path)
        except MambamicError as error:
            self._say(str(error), is_error=True)
        else:
            self._say(f"{self._in_words(self.report)}\n\nSaved {path}")

    def _choose_path(self) -> None:
        path = path_to_save(self, "Save robustness", "robustness.html", _KINDS)
        if path:
            self.save(str(path))

    def _show_progress(self, progress: Progress) -> None:
        self.progress.setRange(0, progress.total)
        self.progress.setValue(progress.done)
        left = progress.seconds_left
        time_left = "" if left is None else f", {in_words(left)} left"
        self._say(f"{progress.message.capitalize()}{time_left}")

    def _take_result(self, result: RobustnessReport | str) -> None:
        if isinstance(result, str):
            self._say(result, is_error=True)
            return
        self.report = result
        self._say(self._in_words(result))
        self._show_report(result)

    def _in_words(self, report: RobustnessReport) -> str:
        return " ".join([report.sentence, *report.notes])

    def _show_report(self, report: RobustnessReport) -> None:
        by_perturbation = report.by_perturbation
        self.chart.show_lines(
            {
                name: (range(len(rows) + 1), [1.0, *(row.stability for row in rows)])
                for name, rows in by_perturbation.items()
            }
        )
        self.table.setRowCount(len(by_perturbation))
        self.table.setVerticalHeaderLabels(list(by_perturbation))
        for y, rows in enumerate(by_perturbation.values()):
            for x, row in enumerate(rows):
                item = QTableWidgetItem(f"{row.stability:.0%}")
                item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                low, high = row.stability_interval
                item.setToolTip(
                    f"{row.perturbation}: {row.in_words}. {row.stability:.1%} of the labels stay "
                    f"(95 % interval {low:.1%} to {high:.1%}); their probability falls by "
                    f"{row.probability_drop:.2f} on average."
                )
                self.table.setItem(y, x, item)
        self.chart.show()
        self.table.show()
        self.table.fit()
        self.save_button.setEnabled(True)

    def _show_end(self) -> None:
        if self._stopped:
            self._say("Stopped: nothing was measured.")


def _iter_report(classified: Classified, most: int) -> Generator[Progress, None, RobustnessReport]:
    """Measure on some of the tiles, in the worker's thread."""
    classifier = yield from iter_classifier_of(classified.results)
    from napari_mambamic.explain.robustness import iter_robustness_of_tiles, sampled

    results = classified.results
    done: NDArray[Any] = np.flatnonzero(results.is_done)
    tiles = [results.tiles[i] for i in done[sampled(len(done), most)].tolist()]
    report = yield from iter_robustness_of_tiles(classified.plane.image, tiles, classifier)
    plane = list(classified.plane.index)
    return replace(report, provenance=report.provenance | {"plane": plane})


def _write_picture(chart: Chart, path: str) -> None:
    """Save the chart as it is shown, fine enough for print, never half-written."""
    picture = QPixmap(_FINER * chart.size())
    picture.setDevicePixelRatio(_FINER)
    chart.render(picture)
    with written_atomically(path) as temporary:
        if not picture.save(str(temporary), "PNG"):
            raise OSError(f"{temporary} could not be written")
