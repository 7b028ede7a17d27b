"""The panel "Review and correct": the least certain tiles, one after the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from napari.components import ViewerModel
from napari.layers import Layer
from numpy.typing import NDArray
from qtpy.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QLineEdit,
    QPushButton,
    QWidget,
)

from napari_mambamic._napari.classified import Classified
from napari_mambamic._napari.eliding_box import ElidingBox
from napari_mambamic._napari.folding_row import FoldingRow
from napari_mambamic._napari.from_layer import LayerPlane
from napari_mambamic._napari.latest import Latest
from napari_mambamic._napari.next_step import NextStep
from napari_mambamic._napari.open_panel import open_panel
from napari_mambamic._napari.reason_tip import NOTHING_RUNS, RUNS, ReasonTip
from napari_mambamic._napari.result_box import ResultBox, no_results
from napari_mambamic._napari.review_area import PICTURE, ReviewArea
from napari_mambamic._napari.review_frame import ReviewFrame
from napari_mambamic._napari.reviewed_plane import (
    Learned,
    Opened,
    iter_open,
    learn,
    reviewed_plane_of,
    saved_head,
    written,
)
from napari_mambamic._napari.run_panel import RunPanel
from napari_mambamic._napari.samples_from_layers import AnnotatedTiles
from napari_mambamic._napari.tile_pictures import picture_of_tile
from napari_mambamic._napari.to_layers import ResultLayers, results_of
from napari_mambamic._napari.workers import or_sentence
from napari_mambamic.errors import MambamicError
from napari_mambamic.progress import Progress
from napari_mambamic.results import TileResults
from napari_mambamic.tiling import Tile
from napari_mambamic.training.corrected_head import CorrectedHead
from napari_mambamic.training.corrections import Sidecar
from napari_mambamic.training.review import Review
from napari_mambamic.weights.store import own_path

ORDERS = {
    "Most uncertain": "margin",
    "Uncertain and varied": "margin+diversity",
    "Any": "random",
}


class ReviewPanel(RunPanel):
    """Choose results, press Start review, and label with the keys."""

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__("Start review")
        self._viewer = napari_viewer
        self._reviewed: Classified | None = None
        self._embeddings: NDArray[np.float32] | None = None
        self._probabilities: TileResults | None = None
        self._shown: ResultLayers | None = None
        self._path = Path()
        self._note = ""
        self.review: Review | None = None
        self.frame = ReviewFrame(napari_viewer, self.act)
        self.head: CorrectedHead | None = None
        self.class_names: list[str] = []
        self._learning = Latest(learn, self._take_learned)
        self._writing = Latest(written, self._take_written)
        self._seeing = Latest(_picture_or_sentence, self._show_picture)
        self._saving = Latest(saved_head, self._take_saved)
        self._build_form()
        self.area = ReviewArea()
        self.area.pressed.connect(self.act)
        self.area.class_given.connect(self._give)
        self._build_uses()
        self._lay_out(self._form, self._actions, self.progress, self.area, self.message, self._uses)
        self._set_running(False)
        self._show_review(False)
        self._next_step = NextStep(napari_viewer, self.message, self._what_next)

    def _what_next(self) -> str:
        if self.layer.layer is None:
            return no_results(self._viewer)
        return "Press Start review: the tiles come one by one, those that are unsure first."

    def _build_form(self) -> None:
        ReasonTip(
            self.run_button, "Show the tiles of these results, the most useful first", why=RUNS
        )
        ReasonTip(
            self.cancel_button, "Stop looking at the tiles; labelling goes on", why=NOTHING_RUNS
        )
        self.layer = _ReviewedBox(self._viewer, "Results")
        self.layer.setToolTip("The layer of classes to go through")
        self.how = ElidingBox()
        self.how.setAccessibleName("Order")
        self.how.setToolTip(
            "Most uncertain: tiles whose two best classes are closest. Whatever the order, every "
            "fifth tile is drawn at random, to estimate the error rate"
        )
        for text, how in ORDERS.items():
            self.how.addItem(text, how)
        self.how.currentIndexChanged.connect(self._learn)
        self.learning = QCheckBox("Learn while I label")
        self.learning.setToolTip("Correct the classes of all tiles by the labels so far")
        self.learning.setChecked(True)
        self.learning.toggled.connect(self._learn)
        self._form = QFormLayout()
        self._form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self._form.addRow("Results", self.layer)
        self._form.addRow("Order", self.how)
        self._form.addRow("", self.learning)

    def _build_uses(self) -> None:
        self.new_class = QLineEdit()
        self.new_class.setAccessibleName("New class")
        self.new_class.setPlaceholderText("new class")
        self.new_class.setToolTip("A class that the weights do not know; Enter adds it")
        self.new_class.returnPressed.connect(self.add_class)
        self.name = QLineEdit("corrected")
        self.name.setAccessibleName("Name of the corrected weights")
        self.name.setToolTip("Classify lists the corrected weights by this name")
        self.use_button = QPushButton("Use for Classify")
        ReasonTip(
            self.use_button,
            "Keep the corrected weights and choose them in Classify",
            why="nothing is learned yet; tick 'Learn while I label' and label a tile",
        )
        self.use_button.clicked.connect(self.use_for_classify)
        self.train_button = QPushButton("Train with these")
        ReasonTip(
            self.train_button,
            "Open the Train panel with the labelled tiles as samples",
            why="no tile is labelled",
        )
        self.train_button.clicked.connect(self.train)
        self._uses = QWidget()
        form = QFormLayout(self._uses)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Add", self.new_class)
        form.addRow("Name", FoldingRow(self.name, self.use_button))
        form.addRow("", self.train_button)

    # ---- opening -----------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether anything is at work in a thread."""
        several = (self._learning, self._writing, self._seeing, self._saving)
        return self.is_running or any(each.is_busy for each in several)

    def start(self) -> None:
        """Read the corrections of the chosen results' image, and show the first tile."""
        try:
            reviewed = reviewed_plane_of(self._viewer, self.layer.layer)
        except MambamicError as error:
            self._say(str(error), is_error=True)
            return
        self._show_review(False)
        self._reviewed, self.review, self.head = reviewed, None, None
        self._embeddings, self._shown, self._probabilities = None, None, reviewed.results
        self._say("Opening ...")
        self._run(iter_open, reviewed)

    def _show_progress(self, progress: Opened | Progress) -> None:
        if isinstance(progress, Opened):
            self._begin(progress)
            return
        self.progress.setRange(0, progress.total)
        self.progress.setValue(progress.done)
        share = f", {progress.fraction:.0%}" if progress.total else ""
        self._say(f"{progress.message}{share}. Label on meanwhile.")

    def _begin(self, opened: Opened) -> None:
        self.review = Review(self._reviewed.results, opened.corrections)
        self._path, self._note = opened.path, opened.note
        self.class_names = list(
            dict.fromkeys([*self._reviewed.results.class_names, *self.review.labelled[1]])
        )
        self.area.show_classes(self.class_names)
        self._show_review(True)
        self._show_alone(self._reviewed.layer)
        self.frame.begin(self._reviewed.plane, self._reviewed.results.tiles[0])
        self.review.forward()
        self._show_tile()
        self.area.setFocus()

    def _show_alone(self, classes: Layer) -> None:
        """Show one layer of classes without what else was found out about its image.

        Two colours on each other are a third, which is of no class.
        """
        image = classes.metadata.get("image")
        for layer in self._viewer.layers:
            if image is not None and layer.metadata.get("image") == image:
                layer.visible = layer == classes
        classes.visible = True

    def _take_result(self, result: NDArray[np.float32] | str) -> None:
        if isinstance(result, str):
            self._note = ""
            self._say(result, is_error=True)
        else:
            self._embeddings = result
            self._say(self._note)
        self._learn()

    def _show_end(self) -> None:
        if self._stopped:
            self._say("Stopped: tiles are ordered by their probabilities, and nothing is learned.")

    # ---- labelling ---------------------------------------------------------------------------

    def act(self, action: str, *_: object) -> None:
        """Do what a key or a button says."""
        review = self.review
        if review is None:
            return
        number = review.current
        if action.isdigit():
            index = int(action) - 1
            if index >= len(self.class_names):
                self._say(f"There is no class {action}. Add one below.")
                return
            self._label(number, self.class_names[index])
        elif action == "accept":
            self._label(number, None if number is None else self._predicted(number))
        elif action == "skip" and number is not None:
            review.skip(number)
            review.forward()
        elif action == "undo":
            if review.undo() is None:
                self._say("There is nothing to undo.")
                return
            self._keep()
        elif action == "back":
            review.back()
        elif action == "forward":
            review.forward()
        self._show_tile()

    def _label(self, number: int | None, name: str | None) -> None:
        if number is None or name is None:
            return
        self.review.label(number, name)
        self._keep()
        self.review.forward()

    def _keep(self) -> None:
        """Write the labels down and learn from them, in threads."""
        self._writing.ask(self.review.corrections.sidecar, self._path)
        self._learn()

    def _take_written(self, outcome: Sidecar | str) -> None:
        if isinstance(outcome, str):
            self._say(outcome, is_error=True)
            return
        if self.review is None:
            return  # another is being opened
        try:
            self.review.corrections.take(outcome)
        except MambamicError:
            return  # of the image that was reviewed before
        self._show_state()

    def add_class(self) -> None:
        """Add the class that is named in the line."""
        name = self.new_class.text().strip()
        if name and name not in self.class_names:
            self.class_names.append(name)
            self.area.show_classes(self.class_names)
        self.new_class.clear()
        self.area.setFocus()

    # ---- learning ----------------------------------------------------------------------------

    def _learn(self, *_: object) -> None:
        if self.review is None:
            return
        numbers, names = self.review.labelled
        embeddings = self._embeddings if self.learning.isChecked() else None
        self._learning.ask(self._reviewed, embeddings, numbers, names, self.how.currentData())

    def _take_learned(self, learned: Learned) -> None:
        if self.review is None or learned.reviewed is not self._reviewed:
            return
        self.review.order = learned.order
        self.head = learned.head
        self._probabilities = learned.results or self._reviewed.results
        self.use_button.setEnabled(self.head is not None)
        self._recolour(learned.results)
        self._show_words()

    def _recolour(self, results: TileResults | None) -> None:
        """Show the corrected classes as a layer of their own."""
        if results is None:
            return
        shown, active = self._shown, self._viewer.layers.selection.active
        if shown is not None and shown.are_shown and shown.class_names == results.class_names:
            shown.update(results)
            return
        if shown is not None and shown.are_shown:
            self._viewer.layers.remove(shown.main)
        self._shown = ResultLayers(
            self._viewer,
            [self._reviewed.plane],
            results,
            objects=self._reviewed.objects,
            channel_axis=self._reviewed.channel_axis,
            name=f"{self._reviewed.plane.layer.name} corrected",
        )
        self._reviewed.layer.visible = False
        self.frame.bring_to_top()
        self._viewer.layers.selection.active = active

    # ---- showing -----------------------------------------------------------------------------

    def _show_tile(self) -> None:
        number = None if self.review is None else self.review.current
        self.area.expect_answer(number is not None)
        if number is not None:
            tile = self._reviewed.results.tiles[number]
            self.frame.go_to(self._reviewed.plane, tile)
            self._seeing.ask(self._reviewed.plane, tile)
            self._show_words()
        self._show_state()

    def _show_picture(self, outcome: tuple[Tile, NDArray[np.uint8] | str]) -> None:
        tile, picture = outcome
        number = None if self.review is None else self.review.current
        if number is None or tile != self._reviewed.results.tiles[number]:
            return  # an earlier one
        if isinstance(picture, str):
            self.area.picture.clear()
            self._say(picture, is_error=True)
        else:
            self.area.show_picture(picture)

    def _show_words(self) -> None:
        number = None if self.review is None else self.review.current
        if number is None:
            return
        self.area.show_words(
            self._probabilities.class_names,
            self._shares(number),
            given=self.review.class_of(number),
            told=self.review.told(number),
        )

    def _shares(self, number: int) -> NDArray[np.float32]:
        shares: NDArray[np.float32] = self._probabilities.probabilities[number]
        return shares

    def _predicted(self, number: int) -> str:
        """What Accept gives: what is shown."""
        given = self.review.class_of(number)
        return given or self._probabilities.class_names[int(self._shares(number).argmax())]

    def _show_state(self) -> None:
        if self.review is None:
            return
        self.area.show_state(self.review)
        self.train_button.setEnabled(len(self.review.labelled[0]) > 0)

    def _give(self, index: int) -> None:
        if self.review is not None:
            self._label(self.review.current, self.class_names[index])
            self._show_tile()

    def _show_review(self, shown: bool) -> None:
        self.area.setVisible(shown)
        self._uses.setVisible(shown)
        self.use_button.setEnabled(False)

    # ---- using -------------------------------------------------------------------------------

    def use_for_classify(self) -> None:
        """Keep the corrected weights under their name, and choose them in the Classify panel."""
        name = self.name.text().strip()
        try:
            path = own_path(name)
        except MambamicError as error:
            self._say(str(error), is_error=True)
            return
        if name == self._reviewed.results.provenance["weights"]["name"]:
            self._say(f"{name!r} made these results. Choose another name.", is_error=True)
        elif self.head is not None:
            self._saving.ask(self.head, self._reviewed.results, path)

    def _take_saved(self, outcome: Path | str) -> None:
        if isinstance(outcome, str):
            self._say(outcome, is_error=True)
            return
        panel = open_panel(self._viewer, "Classify tiles and cells")
        panel.weights.choose(outcome.stem)
        self._say(f"Classify now uses {outcome.stem!r}.")

    def train(self) -> None:
        """Open the Train panel with the labelled tiles as samples."""
        numbers, names = self.review.labelled
        known = tuple(sorted(set(names)))
        tiles = AnnotatedTiles(
            self._reviewed.plane.image,
            [self._reviewed.results.tiles[i] for i in numbers],
            np.array([known.index(name) for name in names]),
            known,
        )
        panel = open_panel(self._viewer, "Train on your own classes")
        plane = self._reviewed.plane
        place = ("corrections", plane.layer.unique_id, plane.index)
        panel.sources.add_corrections(f"{plane.layer.name} corrections", place, tiles)


class _ReviewedBox(ResultBox):
    """Layers of classes but those that a review corrected: what is learned adds to the original."""

    def _offers(self, layer: Layer) -> bool:
        several = results_of(layer)
        return bool(several) and not any("corrected" in each.provenance for each in several)


def _picture_or_sentence(plane: LayerPlane, tile: Tile) -> tuple[Tile, NDArray[np.uint8] | str]:
    return tile, or_sentence(picture_of_tile, plane, tile, side=PICTURE)
