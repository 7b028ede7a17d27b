"""The Compare runs panel: where two layers of classes agree, and where they do not."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

import numpy as np
from napari.components import ViewerModel
from napari.layers import Layer
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFormLayout,
    QLabel,
    QPushButton,
    QTableWidgetItem,
)

from napari_mambamic._napari.disagreement_layer import DISAGREES, DisagreementLayer
from napari_mambamic._napari.fitted_table import FittedTable
from napari_mambamic._napari.folding_row import FoldingRow
from napari_mambamic._napari.next_step import NextStep
from napari_mambamic._napari.reason_tip import NOTHING_RUNS, RUNS, ReasonTip
from napari_mambamic._napari.result_box import ResultBox
from napari_mambamic._napari.run_panel import RunPanel
from napari_mambamic._napari.save_dialog import path_to_save
from napari_mambamic._napari.to_layers import colours_in, results_of
from napari_mambamic._napari.upright_header import UprightHeader
from napari_mambamic.compare import Comparison, compare_runs
from napari_mambamic.errors import ImageError, MambamicError, NothingToClassify
from napari_mambamic.progress import Progress
from napari_mambamic.results import TileResults

_SWATCH = 12  # px


class ComparePanel(RunPanel):
    """Choose two layers of classes, press Compare, click a cell of the table."""

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__("Compare")
        self._viewer = napari_viewer
        self.comparison: Comparison | None = None
        self.shown: DisagreementLayer | None = None
        self._chosen: NDArray[np.intp] = np.empty(0, np.intp)  # places in the comparison
        self._at = 0
        self._columns: list[int] = []  # classes of the second run, as the table has them
        self.first = ResultBox(napari_viewer, "First run")
        self.second = ResultBox(napari_viewer, "Second run")
        for box in (self.first, self.second):
            box.setToolTip("A layer that Classify added; both of the same image and tiles")
        ReasonTip(
            self.run_button, "Count the classes of both, and show where they disagree", why=RUNS
        )
        ReasonTip(self.cancel_button, "Stop; nothing is shown", why=NOTHING_RUNS)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("First run", self.first)
        form.addRow("Second run", self.second)
        self.axes = QLabel("Rows: first run. Columns: second run. Click a number to see its tiles.")
        self.axes.setWordWrap(True)
        self._build_table()
        self._build_steps()
        self.save_button = QPushButton("Save table...")
        self.save_button.setToolTip("A row per tile as CSV, the surest disagreements first")
        self.save_button.clicked.connect(self._choose_path)
        self._lay_out(
            form,
            self._actions,
            self.progress,
            self.message,
            self.axes,
            self.table,
            self.where,
            self._steps,
            self.save_button,
        )
        self._show_parts(False)
        self._choose_last_two()
        self._next_step = NextStep(napari_viewer, self.message, self._what_next)

    def _what_next(self) -> str:
        if self.first.count() < 2:
            return (
                "Classify an image twice, such as with other weights: this panel shows where the "
                "two runs disagree."
            )
        return "Choose two runs of the same image, and press Compare to see where they disagree."

    def _build_table(self) -> None:
        self.table = FittedTable("Tiles by class of the first and of the second run")
        self.table.setHorizontalHeader(UprightHeader())
        self.table.setToolTip("Click a number, or press Enter on it, to see its tiles")
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.cellClicked.connect(self._show_cell)
        self.table.cellActivated.connect(self._show_cell)  # Enter

    def _build_steps(self) -> None:
        self.where = QLabel()
        self.where.setWordWrap(True)
        self.previous_button = QPushButton("Previous")
        self.next_button = QPushButton("Next")
        self.all_button = QPushButton("All disagreements")
        for button, does in (
            (self.previous_button, "The tile before, where both runs are surer"),
            (self.next_button, "The next tile, where one of the runs is less sure"),
        ):
            ReasonTip(button, does, why="choose several tiles: click a number of the table")
        self.all_button.setToolTip("Every tile that the runs disagree on, the surest first")
        self.previous_button.clicked.connect(lambda: self._step(-1))
        self.next_button.clicked.connect(lambda: self._step(1))
        self.all_button.clicked.connect(self.show_all)
        self._steps = FoldingRow(self.all_button, self.previous_button, self.next_button)

    def start(self) -> None:
        """Read the form and compare in a thread."""
        try:
            a, b = (_results_of(box.layer) for box in (self.first, self.second))
            if self.first.layer == self.second.layer:
                raise ImageError(
                    "Both runs are the same layer. Classify the image again with other weights, "
                    "and choose both layers."
                )
        except MambamicError as error:
            self._say(str(error), is_error=True)
            return
        layers = self._compared = self.first.layer, self.second.layer
        image_a, image_b = (layer.metadata.get("image") for layer in layers)
        if image_a is not None and image_a == image_b:
            b = _named_like(a, b)
        self._run(_compared, a, b)

    def show_pair(self, class_a: int, class_b: int) -> None:
        """Highlight the tiles of a cell of the table, and go to the surest."""
        if self.comparison is not None:
            self._choose(self.comparison.pairs_of(class_a, class_b))

    def _show_cell(self, row: int, column: int) -> None:
        self.show_pair(row, self._columns[column])

    def show_all(self) -> None:
        """Highlight nothing in particular, and go to the surest disagreement."""
        if self.comparison is not None:
            self.table.clearSelection()
            self._choose(self.comparison.disagreements, highlight=False)

    def save_table(self, path: str) -> None:
        """Write the comparison as CSV."""
        if self.comparison is None:
            return
        try:
            self._say(f"Saved {self.comparison.to_csv(path)}")
        except MambamicError as error:
            self._say(str(error), is_error=True)

    def _choose_path(self) -> None:
        path = path_to_save(self, "Save table", "comparison.csv", {"Table": [".csv"]})
        if path:
            self.save_table(str(path))

    def _choose_last_two(self) -> None:
        """The two layers that were added last, the older one first."""
        if self.first.count() > 1:
            self.first.setCurrentIndex(self.first.count() - 2)

    # ---- stepping through tiles --------------------------------------------------------------

    def _choose(self, places: NDArray[np.intp], *, highlight: bool = True) -> None:
        self._chosen, self._at = places, 0
        if self.shown is not None and self.shown.is_shown:
            self.shown.show(places if highlight else None)
        self._go()

    def _step(self, by: int) -> None:
        if len(self._chosen):
            self._at = (self._at + by) % len(self._chosen)
        self._go()

    def _go(self) -> None:
        """Look at the tile at hand and tell what both runs say of it."""
        n = len(self._chosen)
        for button in (self.previous_button, self.next_button):
            button.setEnabled(n > 1)
        if not n or self.comparison is None:
            self.where.setText("There is no such tile.")
            return
        c, place = self.comparison, int(self._chosen[self._at])
        self.where.setText(
            f"{self._at + 1:,} of {n:,}: {c.a.class_names[c.labels_a[place]]} "
            f"({c.sure_a[place]:.2f}) in the first run, {c.b.class_names[c.labels_b[place]]} "
            f"({c.sure_b[place]:.2f}) in the second."
        )
        if self.shown is not None and self.shown.is_shown:
            self.shown.look_at(place)

    # ---- showing -----------------------------------------------------------------------------

    def _take_result(self, result: Comparison | str) -> None:
        if isinstance(result, str):
            self._say(result, is_error=True)
            return
        layer_a, layer_b = self._compared
        if layer_a not in self._viewer.layers:
            self._say("The layer of the first run was deleted.", is_error=True)
            return
        if self.shown is not None and self.shown.is_shown:
            self._viewer.layers.remove(self.shown.layer)
        self.comparison = result
        name = f"{layer_a.name} vs {layer_b.name}"
        self.shown = DisagreementLayer(self._viewer, layer_a, result, name=name)
        # Two layers of classes on top of each other would hide the image below the disagreements.
        layer_a.visible = layer_b.visible = False
        self._say(result.sentence)
        self._fill_table(result)
        self._show_parts(True)
        self._chosen = np.empty(0, np.intp)
        n = len(result.disagreements)
        self.where.setText(f"{n:,} disagreements." if n else "The runs agree everywhere.")
        for button in (self.previous_button, self.next_button):
            button.setEnabled(False)

    def _fill_table(self, comparison: Comparison) -> None:
        names_a, names_b = comparison.a.class_names, comparison.b.class_names
        self._columns = _in_order_of(names_a, names_b)
        names_b = tuple(names_b[i] for i in self._columns)
        confusion = comparison.confusion[:, self._columns]
        self.table.setRowCount(len(names_a))
        self.table.setColumnCount(len(names_b))
        self._head(names_a, self.table.setVerticalHeaderItem)
        self._head(names_b, self.table.setHorizontalHeaderItem)
        most = max(int(confusion.max()), 1)
        for y, name_a in enumerate(names_a):
            for x, name_b in enumerate(names_b):
                count = int(confusion[y, x])
                item = QTableWidgetItem(f"{count:,}" if count else "")
                item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                item.setToolTip(f"{count:,}: {name_a} in the first run, {name_b} in the second")
                if count and name_a != name_b:
                    shade = QColor.fromRgbF(*DISAGREES)
                    shade.setAlphaF(0.2 + 0.4 * (count / most) ** 0.5)
                    item.setBackground(shade)
                self.table.setItem(y, x, item)
        self.table.fit()

    def _head(self, names: Sequence[str], place: Callable[[int, QTableWidgetItem], None]) -> None:
        """Put names and the colours that they have in the viewer at the edge of the table."""
        for i, (name, colour) in enumerate(
            zip(names, colours_in(self._viewer, names).tolist(), strict=True)
        ):
            swatch = QPixmap(_SWATCH, _SWATCH)  # headings draw no plain colours
            swatch.fill(QColor.fromRgbF(*colour))
            heading = QTableWidgetItem(QIcon(swatch), name)
            heading.setToolTip(name)
            place(i, heading)

    def _show_parts(self, shown: bool) -> None:
        for widget in (
            self.axes,
            self.table,
            self.where,
            self._steps,
            self.save_button,
        ):
            widget.setVisible(shown)

    def _show_end(self) -> None:
        if self._stopped:
            self._say("Stopped.")


def _results_of(layer: Layer | None) -> TileResults:
    """The results of a layer of classes of one plane."""
    if layer is None:
        raise NothingToClassify(
            "There are not two layers of classes. Press Classify in the panel 'Classify tiles and "
            "cells' twice, with other weights."
        )
    results = results_of(layer)
    if len(results) > 1:
        raise ImageError(
            f"Layer {layer.name!r} shows {len(results)} planes, and runs are compared plane by "
            f"plane. Classify the plane in view alone."
        )
    # A run that goes on fills its results meanwhile.
    return replace(results[0], probabilities=results[0].probabilities.copy())


def _named_like(a: TileResults, b: TileResults) -> TileResults:
    """The second of two results of one layer, which may have been renamed between them."""
    name = a.provenance["image"]["name"]
    return replace(b, provenance=b.provenance | {"image": b.provenance["image"] | {"name": name}})


def _in_order_of(names_a: Sequence[str], names_b: Sequence[str]) -> list[int]:
    """Numbers of the classes of `b` in the order of `a`, then those that only `b` has.

    >>> _in_order_of(["x", "y"], ["z", "y", "x"])
    [2, 1, 0]
    """
    places = {name: i for i, name in enumerate(names_a)}
    return sorted(range(len(names_b)), key=lambda i: places.get(names_b[i], len(places) + i))


def _compared(a: TileResults, b: TileResults) -> Generator[Progress, None, Comparison]:
    yield Progress(0, 1, message="Comparing")
    return compare_runs(a, b)
