"""The Results table panel: how many tiles, how much area, how sure; by class and region."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Shapes
from numpy.typing import NDArray
from qtpy.QtCore import (
    QAbstractTableModel,
    QModelIndex,
    QSize,
    QSortFilterProxyModel,
    Qt,
    QTimer,
)
from qtpy.QtGui import QColor, QKeySequence, QResizeEvent, QShortcut
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFormLayout,
    QHeaderView,
    QPushButton,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from napari_mambamic._napari.classified import index_of, layer_with
from napari_mambamic._napari.from_layer import (
    finest_of,
    labels_of_layer,
    plane_at,
    regions_of_shapes,
)
from napari_mambamic._napari.latest import Latest
from napari_mambamic._napari.layer_box import WatchedLayerBox
from napari_mambamic._napari.letters import SameLetters
from napari_mambamic._napari.message import Message
from napari_mambamic._napari.open_panel import StandsAsTab
from napari_mambamic._napari.reason_tip import ReasonTip
from napari_mambamic._napari.result_box import followed_layer, no_results
from napari_mambamic._napari.save_dialog import path_to_save
from napari_mambamic._napari.to_layers import colours_in, results_of
from napari_mambamic._napari.workers import or_sentence
from napari_mambamic.errors import ImageError, MambamicError, NothingToClassify
from napari_mambamic.results import TileResults
from napari_mambamic.summary import EVERYWHERE, Summary, areas_of_tiles, joined, summarise
from napari_mambamic.tiling import TileGrid

_MS_BETWEEN_UPDATES = 500
_AROUND = 6  # px beside the words of a heading
_REGION, _CLASS, _TILES, _SHARE, _AREA, _PROBABILITY, _UNSURE = range(7)
_TOOLTIPS = (
    "The shape or label that the middles of the tiles lie in",
    "The most probable class of a tile",
    "How many tiles or objects are of the class",
    "Part of the classified tiles of the region",
    "Of tiles: the part of the plane that each speaks for; of objects: the pixels of their labels",
    "Mean, over the tiles of the class, of the probability of that class",
    "Tiles of the class that are less probable than 'Unsure below' of the Classify panel",
)


class SummaryModel(QAbstractTableModel):
    """A `Summary` as Qt shows it; rows are sorted by what is under the role `UserRole`."""

    def __init__(self) -> None:
        super().__init__()
        self._columns: list[NDArray[Any]] = []
        self._headings: tuple[str, ...] = ()
        self._colours: list[QColor] = []
        self.summary: Summary | None = None

    def show_summary(
        self, summary: Summary | None, colours: NDArray[np.float32] | None = None
    ) -> None:
        """Show other numbers; rows that stay keep their place and selection.

        Parameters
        ----------
        summary : Summary or None
        colours : (n_classes, 4) ndarray, optional
            Of its classes.
        """
        before, n_rows = self.summary, self.rowCount()
        same = (
            summary is not None
            and before is not None
            and (summary.regions, summary.class_names) == (before.regions, before.class_names)
        )
        if not same:
            self.beginResetModel()
        self.summary = summary
        self._columns = [] if summary is None else _columns_of(summary)
        if summary is not None:
            cut = summary.provenance.get("settings", {}).get("cut", "tiles")
            unit = "µm²" if summary.area_unit == "um2" else "px"
            area = f"area ({unit})"
            self._headings = ("region", "class", cut, "share", area, "probability", "unsure")
        if colours is not None:
            self._colours = [QColor.fromRgbF(*colour) for colour in colours.tolist()]
        if not same:
            self.endResetModel()
        else:
            self.dataChanged.emit(self.index(0, 0), self.index(n_rows - 1, _UNSURE))
            self.headerDataChanged.emit(Qt.Orientation.Horizontal, 0, _UNSURE)

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """One row per region and class."""
        inside = parent is not None and parent.isValid()
        return 0 if inside or self.summary is None else self.summary.tiles.size

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Always the same."""
        return 0 if parent is not None and parent.isValid() else len(_TOOLTIPS)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Text, number to sort by, colour of the class, alignment."""
        if not index.isValid() or self.summary is None:
            return None
        column = index.column()
        if role == Qt.ItemDataRole.TextAlignmentRole:
            side = Qt.AlignmentFlag.AlignLeft if column < _TILES else Qt.AlignmentFlag.AlignRight
            return side | Qt.AlignmentFlag.AlignVCenter
        n_classes = len(self.summary.class_names)
        region, of_class = divmod(index.row(), n_classes)
        if role == Qt.ItemDataRole.DecorationRole and column == _CLASS:
            return self._colours[of_class]
        if role == Qt.ItemDataRole.UserRole:
            value = self._columns[column][index.row()].item()
            return -1.0 if value != value else value  # what is not known is least
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole):
            if column == _REGION:
                return self.summary.regions[region]
            return _in_words(column, self._columns[column][index.row()].item())
        return None

    def headerData(
        self,
        section: int,
        orientation: Qt.Orientation,
        role: int = Qt.ItemDataRole.DisplayRole,
    ) -> Any:
        """Names of the columns, and what they mean."""
        if orientation != Qt.Orientation.Horizontal or not self._headings:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return self._headings[section]
        return _TOOLTIPS[section] if role == Qt.ItemDataRole.ToolTipRole else None


class _NarrowHeader(QHeaderView):
    """Keeps room for the arrow of the order in the column that rows are sorted by, not in all."""

    def __init__(self) -> None:
        super().__init__(Qt.Orientation.Horizontal)
        self.setSectionsClickable(True)
        self.setHighlightSections(True)
        self.sortIndicatorChanged.connect(self._measure)

    def sectionSizeFromContents(self, logical: int) -> QSize:
        """As wide as its words."""
        hint = super().sectionSizeFromContents(logical)
        if logical == self.sortIndicatorSection():
            return hint
        words = str(self.model().headerData(logical, self.orientation()) or "")
        return QSize(self.fontMetrics().horizontalAdvance(words) + 2 * _AROUND, hint.height())

    def _measure(self) -> None:
        self.resizeSections(QHeaderView.ResizeMode.ResizeToContents)


class ResultsTable(QWidget):
    """The selected layer of classes as a table; it stays when another kind of layer is selected."""

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._layer: Layer | None = None  # of classes
        self._areas: list[tuple[TileResults, NDArray[np.float64]]] = []
        self._summing = Latest(partial(or_sentence, _summarised), self._show)
        self._next = 0.0
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._refresh)

        self.regions = WatchedLayerBox(napari_viewer, (Shapes, Labels), "Regions", none=EVERYWHERE)
        self.regions.setToolTip(
            "Count by the shapes of a layer (their names are a column of text of its features), or "
            "by its labels"
        )
        self.model = SummaryModel()
        self.sorted = QSortFilterProxyModel(self)
        self.sorted.setSourceModel(self.model)
        self.sorted.setSortRole(Qt.ItemDataRole.UserRole)
        self.sorted.setSortCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.table = QTableView()
        self._build_table()
        self.message = Message("Message")
        self.save_button = QPushButton("Save table...")
        ReasonTip(
            self.save_button,
            "These rows as CSV, and beside it where they come from",
            why="there are no rows",
        )
        self.save_button.clicked.connect(self._choose_path)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        form.addRow("Regions", self.regions)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addWidget(self.message)
        layout.addWidget(self.table, 1)
        layout.addWidget(self.save_button)
        layout.addStretch(0)
        SameLetters(self)
        StandsAsTab(self)

        layers = napari_viewer.layers
        layers.selection.events.active.connect(self._follow)
        layers.events.inserted.connect(self._follow)
        layers.events.removed.connect(self._follow)
        self.regions.edited.connect(self._ask)
        self._show_sentence("")
        self._follow()

    def _build_table(self) -> None:
        self.table.setHorizontalHeader(_NarrowHeader())
        self.table.setModel(self.sorted)
        self.table.setAccessibleName("Results")
        self.table.setToolTip(
            "Click a heading to sort. Keys: S sorts by the next column, Shift+S the other way round"
        )
        self.table.setTabKeyNavigation(False)  # Tab leaves the table
        self.table.setSortingEnabled(True)
        self.table.sortByColumn(-1, Qt.SortOrder.AscendingOrder)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setShowGrid(False)
        self.table.verticalHeader().hide()
        for keys, sort in (("S", self.sort_by_next), ("Shift+S", self.sort_backwards)):
            shortcut = QShortcut(QKeySequence(keys), self.table)
            shortcut.setContext(Qt.ShortcutContext.WidgetShortcut)
            shortcut.activated.connect(sort)
        header = self.table.horizontalHeader()
        header.setResizeContentsPrecision(50)  # rows that are measured
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setStretchLastSection(False)
        self.table.setWordWrap(False)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Long names leave room for numbers."""
        super().resizeEvent(event)
        header = self.table.horizontalHeader()
        header.setMaximumSectionSize(max(self.width() // 2, 1))
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)  # measures again

    def sort_by_next(self) -> None:
        """Sort by the next column that is shown."""
        header = self.table.horizontalHeader()
        n, now = header.count(), self.sorted.sortColumn()
        following = ((now + i) % n for i in range(1, n + 1))
        column = next((c for c in following if not header.isSectionHidden(c)), now)
        self.table.sortByColumn(column, Qt.SortOrder.AscendingOrder)

    def sort_backwards(self) -> None:
        """Turn the order of the rows round."""
        ascending = self.sorted.sortOrder() == Qt.SortOrder.AscendingOrder
        order = Qt.SortOrder.DescendingOrder if ascending else Qt.SortOrder.AscendingOrder
        self.table.sortByColumn(self.sorted.sortColumn(), order)

    @property
    def is_busy(self) -> bool:
        """Whether the table is not yet what the layers are."""
        return self._summing.is_busy or self._timer.isActive()

    def save_table(self, path: str) -> None:
        """Write the table as CSV."""
        if self.model.summary is None:
            return
        try:
            self._say(f"Saved {self.model.summary.to_csv(path)}")
        except MambamicError as error:
            self._say(str(error), is_error=True)

    def _choose_path(self) -> None:
        path = path_to_save(self, "Save table", "summary.csv", {"Table": [".csv"]})
        if path:
            self.save_table(str(path))

    # ---- following ---------------------------------------------------------------------------

    def _follow(self, event: object = None) -> None:
        """Take the selected layer of classes, else keep the last, else take the topmost."""
        chosen = followed_layer(self._viewer, self._layer)
        if chosen != self._layer:
            if self._layer is not None:
                self._layer.events.metadata.disconnect(self._ask)
            if chosen is not None:
                chosen.events.metadata.connect(self._ask)
            self._layer, self._areas = chosen, []
            self._next = 0.0
        self._ask()

    def _ask(self, event: object = None) -> None:
        """Refresh soon, and not too often."""
        if not self._timer.isActive():
            left = self._next - time.perf_counter()
            self._timer.start(max(round(left * 1000), 0))

    def _refresh(self) -> None:
        """Summarise in a thread."""
        self._next = time.perf_counter() + _MS_BETWEEN_UPDATES / 1000
        if self._layer is None:
            self._summing.forget()
            self._show_sentence(no_results(self._viewer))
            return
        try:
            parts = self._parts()
        except MambamicError as error:
            self._summing.forget()
            self._show_sentence(f"⚠ {error}")
            return
        self._summing.ask(parts)

    def _parts(self) -> list[_Part]:
        """What is to be summarised, plane by plane; those without a region are left out."""
        results = results_of(self._layer)
        several = len(results) > 1
        parts, nothing = [], None
        for each in results:
            index = index_of(each)
            try:
                regions = self._regions_on(index)
            except NothingToClassify as error:
                nothing = error
                continue
            name = self._name_of_plane(index) if several else ""
            known = next((areas for of, areas in self._areas if of is each), None)
            parts.append(_Part(name, each, regions, self._labels_on(index, several), known))
        if not parts and nothing is not None:
            raise nothing
        return parts

    def _regions_on(self, index: tuple[int, ...]) -> Any:
        chosen = self.regions.layer
        if chosen is None:
            return None
        image = layer_with(self._viewer, self._layer.metadata.get("image"))
        if not isinstance(image, Image):
            raise ImageError(
                "The image that was classified is closed, and regions are placed on it. Choose "
                f"{EVERYWHERE!r}, or open and classify it again."
            )
        plane = plane_at(image, index)
        if isinstance(chosen, Shapes):
            return regions_of_shapes(plane, chosen)
        return labels_of_layer(plane, chosen)

    def _labels_on(self, index: tuple[int, ...], several: bool) -> Any:
        """The label image of objects, for their areas, as far as it is there."""
        layer = self._layer
        if several:
            layer = layer_with(self._viewer, layer.metadata.get("objects"))
        if not isinstance(layer, Labels) or isinstance(results_of(self._layer)[0].tiles, TileGrid):
            return None
        data = finest_of(layer)
        leading = data.ndim - 2
        if not several:
            return data[(0,) * leading]  # one plane is one deep
        return data[index[len(index) - leading :]]  # it may lack the axis of channels

    def _name_of_plane(self, index: tuple[int, ...]) -> str:
        names = self._layer.axis_labels[: len(index)]
        return ", ".join(f"{name} = {i}" for name, i in zip(names, index, strict=True))

    # ---- showing -----------------------------------------------------------------------------

    def _show(self, outcome: tuple[Summary, list[_Part]] | str) -> None:
        if isinstance(outcome, str):
            self._show_sentence(f"⚠ {outcome}")
            return
        summary, parts = outcome
        if self._layer is None:
            return
        self._areas = [(part.results, part.areas) for part in parts]
        self.model.show_summary(summary, colours_in(self._viewer, summary.class_names))
        self.table.setColumnHidden(_REGION, summary.regions == (EVERYWHERE,))
        self.table.setColumnHidden(_UNSURE, not summary.has_unsure)
        self.table.show()
        self.save_button.setEnabled(True)
        what = summary.provenance.get("settings", {}).get("cut", "tiles")
        done = sum(int(part.results.is_done.sum()) for part in parts)
        total = sum(len(part.results) for part in parts)
        counted = int(summary.tiles.sum())
        text = f"{self._layer.name}: {done:,} of {total:,} {what} are classified"
        of_regions = "" if self.regions.layer is None else f", {counted:,} in regions"
        self._say(f"{text}{of_regions}.")

    def _show_sentence(self, text: str) -> None:
        self.model.show_summary(None)
        self.table.hide()
        self.save_button.setEnabled(False)
        self.message.setText(text)

    def _say(self, text: str, *, is_error: bool = False) -> None:
        self.message.setText(f"⚠ {text}" if is_error else text)


@dataclass
class _Part:
    """A plane that is to be summarised."""

    name: str
    results: TileResults
    regions: Any
    labels: Any
    areas: NDArray[np.float64] | None


def _summarised(parts: Sequence[_Part]) -> tuple[Summary, Sequence[_Part]]:
    """Summarise in the worker's thread; areas are kept in the parts."""
    summaries = []
    for part in parts:
        if part.areas is None:
            part.areas = areas_of_tiles(part.results, part.labels)
        summary = summarise(part.results, regions=part.regions, tile_areas_px=part.areas)
        summaries.append((part.name, summary))
    return (joined(summaries) if parts[0].name else summaries[0][1]), parts


def _columns_of(summary: Summary) -> list[NDArray[Any]]:
    """What the rows of each column are sorted by; regions as they are drawn."""
    n_regions, n_classes = summary.tiles.shape
    numbers = (
        summary.tiles,
        summary.share,
        summary.area,
        summary.mean_probability,
        summary.unsure,
    )
    return [
        np.repeat(np.arange(n_regions), n_classes),
        np.tile(np.array(summary.class_names), n_regions),
        *(column.ravel() for column in numbers),
    ]


def _in_words(column: int, value: Any) -> str:
    if column == _CLASS:
        return str(value)
    if value != value:
        return "n/a"
    if column == _SHARE:
        return f"{value:.1%}"
    if column == _PROBABILITY:
        return f"{value:.3f}"
    return f"{value:,.0f}" if column in (_TILES, _UNSURE) or value >= 1000 else f"{value:,.4g}"
