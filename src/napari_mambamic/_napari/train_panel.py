"""The Train panel: samples in, weights out, and how good they are."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.components import ViewerModel
from qtpy.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QLineEdit,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
)

from napari_mambamic._napari.chart import Chart
from napari_mambamic._napari.classify_panel import DEVICES
from napari_mambamic._napari.eliding_box import ElidingBox
from napari_mambamic._napari.folding_row import FoldingRow
from napari_mambamic._napari.live import LivePreview
from napari_mambamic._napari.next_step import NextStep
from napari_mambamic._napari.open_panel import open_panel
from napari_mambamic._napari.reason_tip import NOTHING_RUNS, RUNS, ReasonTip
from napari_mambamic._napari.run_panel import RunPanel, in_words
from napari_mambamic._napari.sample_sources import SampleSources
from napari_mambamic._napari.save_dialog import path_to_save
from napari_mambamic._napari.training_result import TrainingResult
from napari_mambamic._napari.weights_box import title_of
from napari_mambamic.errors import MambamicError
from napari_mambamic.weights.store import list_weights, own_path, read_manifest

if TYPE_CHECKING:
    from napari_mambamic.training.checkpoint import Checkpoint
    from napari_mambamic.training.progress import TrainProgress
    from napari_mambamic.training.samples import Samples

MODES = {
    "Head only: seconds": "head",
    "Last stage: minutes": "last stage",
    "Everything": "all",
}
_SCRATCH = "From scratch"


@dataclass(frozen=True)
class Started:
    """The samples of a run, once they are read."""

    samples: Samples


class TrainPanel(RunPanel):
    """Choose samples, a start and a mode; press Train."""

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__("Train")
        self._viewer = napari_viewer
        self.samples: Samples | None = None
        self._note = ""
        self.checkpoint: Checkpoint | None = None

        self.sources = SampleSources(napari_viewer)
        self._build_settings()
        self._build_actions()
        self.curves = Chart("epoch", "Loss and accuracy by epoch")
        self.curves.hide()
        self.result = TrainingResult()
        self.result.cell_chosen.connect(self.show_tiles)
        self.live = QCheckBox("Live while I label")
        self.live.setToolTip(
            "Show what the labels teach: colours the tiles by a head that is fitted to them so far"
        )
        self.live.toggled.connect(self._toggle_live)
        self._lay_out(
            self.sources,
            self.live,
            self.form,
            self._actions,
            self.progress,
            self.message,
            self.curves,
            self.result,
            self._uses,
        )
        self._set_running(False)
        self._live: LivePreview | None = None
        self.sources.changed.connect(self._follow_labels)
        self.sources.kind.currentIndexChanged.connect(self._show_live)
        self._show_live()
        self._next_step = NextStep(napari_viewer, self.message, self._what_next)
        for changed in (self.sources.changed, self.sources.kind.currentIndexChanged):
            changed.connect(self._next_step.show)

    def _what_next(self) -> str:
        if self.sources.n_sources:
            return "Press Train, or add more samples first."
        if self.sources.is_on_disk:
            return "Press Choose... to say which one; of a folder, the folders in it are classes."
        if self.sources.image.layer is None:
            return "Open an image to label, or choose a folder or a file under 'Samples from'."
        if self.sources.annotator is None:
            return "Name the classes, label some tiles or cells of each, and press Add samples."
        labelled = [n for n in self.sources.annotator.annotations.counts.values() if n]
        if len(labelled) < 2:
            return "Label some tiles or cells of each class, then press Add samples."
        return "Label more, or press Add samples."

    def _build_settings(self) -> None:
        self.start_from = ElidingBox()
        self.start_from.setToolTip("Weights that know something already learn faster")
        for name in list_weights():
            self.start_from.addItem(title_of(name), name)
        self.start_from.addItem(_SCRATCH, None)
        self.start_from.currentIndexChanged.connect(self._show_start)
        self.mode = ElidingBox()
        for text, name in MODES.items():
            self.mode.addItem(text, name)
        self.mode.setToolTip("What may change. Head only is enough when the images are alike")
        self.mode.currentIndexChanged.connect(self._show_start)
        self.epochs = QSpinBox()
        self.epochs.setRange(1, 1000)
        self.epochs.setValue(15)
        self.epochs.setToolTip("How often each sample is seen")
        self.device = ElidingBox()
        for text, name in DEVICES.items():
            self.device.addItem(text, name)
        self.device.setToolTip("Where the network is trained; automatic: GPU if there is one")
        self.form = QFormLayout()
        self.form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for name, widget in (
            ("Start", self.start_from),
            ("Train", self.mode),
            ("Epochs", self.epochs),
            ("Device", self.device),
        ):
            widget.setAccessibleName(name)
            self.form.addRow(name, widget)
        self._show_start()

    def _build_actions(self) -> None:
        ReasonTip(self.run_button, "Hold some samples back, learn from the others", why=RUNS)
        ReasonTip(
            self.cancel_button,
            "Stop after the step at work and keep the best so far",
            why=NOTHING_RUNS,
        )
        self.name = QLineEdit("my-weights")
        self.name.setAccessibleName("Name")
        self.name.setToolTip("Classify lists the weights by this name")
        self.use_button = QPushButton("Use for Classify")
        self.use_button.setToolTip("Keep the weights under this name and choose them in Classify")
        self.use_button.clicked.connect(self.use_for_classify)
        self.save_button = QPushButton("Save weights...")
        self.save_button.setToolTip("A .safetensors file with its manifest, to share")
        self.save_button.clicked.connect(self._choose_weights_file)
        self.report_button = QPushButton("Report...")
        self.report_button.setToolTip("One HTML file: data, settings, curves, figures, errors")
        self.report_button.clicked.connect(self._choose_report_file)
        self._uses = QVBoxLayout()
        self._uses.addWidget(FoldingRow(self.name, self.use_button))
        self._uses.addWidget(FoldingRow(self.save_button, self.report_button))

    def start(self) -> None:
        """Read the form and train in a thread."""
        try:
            read = self.sources.reader()
        except MambamicError as error:
            self._say(str(error), is_error=True)
            return
        self.checkpoint, self.samples = None, None
        self.result.hide()
        self.curves.hide()
        self._say("Reading the samples ...")
        self._run(_iter_training, read, self.start_from.currentData(), self._settings())

    def use_for_classify(self) -> None:
        """Keep the weights under their name, and choose them in the Classify panel."""
        name = self.name.text().strip()
        try:
            path = own_path(name)
        except MambamicError as error:
            self._say(str(error), is_error=True)
            return
        if self.save_weights(path):
            open_panel(self._viewer, "Classify tiles and cells").weights.choose(name)
            self._say(f"Classify now uses {name!r}.")

    def save_weights(self, path: str | Path) -> bool:
        """Write the weights; returns whether it was possible."""
        if self.checkpoint is None:
            return False
        try:
            self._say(f"Saved {self.checkpoint.save(path)}")
        except MambamicError as error:
            self._say(str(error), is_error=True)
            return False
        return True

    def save_report(self, path: str | Path) -> None:
        """Write the report as HTML."""
        if self.checkpoint is None:
            return
        from napari_mambamic.training.report import write_report

        try:
            written = write_report(self.checkpoint.report, path, samples=self.samples)
        except MambamicError as error:
            self._say(str(error), is_error=True)
        else:
            self._say(f"Saved {written}")

    def show_tiles(self, true: int, predicted: int) -> None:
        """Open the validation samples of a cell of the confusion matrix as a layer."""
        if self.checkpoint is None or self.samples is None:
            return
        report = self.checkpoint.report
        triples = zip(
            report["validation_indices"],
            report["validation_labels"],
            report["validation_predictions"],
            strict=True,
        )
        chosen = [i for i, label, told in triples if (label, told) == (true, predicted)]
        if not chosen:
            self._say("There is no such sample.")
            return
        names = report["class_names"]
        pixels = self.samples.pixels[chosen]
        rgb = pixels.shape[-1] in (3, 4) and self.samples.channels[0] == "red"
        self._viewer.add_image(
            pixels if rgb else pixels.transpose(3, 0, 1, 2),
            name=f"{names[true]} classified as {names[predicted]}",
            rgb=rgb,
            channel_axis=None if rgb else 0,
            metadata={"mambamic": "samples"},
        )
        where = "; ".join(self.samples.name_of(i) for i in chosen[:5])
        several = "1 sample" if len(chosen) == 1 else f"{len(chosen)} samples"
        self._say(f"{several}: {where}{' ...' if len(chosen) > 5 else ''}")

    def _toggle_live(self, wanted: bool) -> None:
        if self._live is not None:
            self._live.close()
            self._live = None
        annotator = self.sources.annotator
        weights = self.start_from.currentData()
        if not wanted:
            return
        if annotator is None or weights is None:
            self.live.setChecked(False)
            self._next_step.instead(
                "Live needs a layer of labels and weights to start from: press Start labelling, "
                "and choose weights."
            )
            return
        self._live = LivePreview(
            self._viewer,
            annotator,
            weights=weights,
            device=self.device.currentData(),
            say=self._say,
        )
        # A panel that goes away stops looking at tiles.
        self.destroyed.connect(self._live.close)

    def _follow_labels(self) -> None:
        if self._live is not None:
            if self._live.annotator is self.sources.annotator:
                self._live.refresh()
            else:
                self.live.setChecked(False)

    def _show_live(self) -> None:
        self.live.setVisible(self.sources.kind.currentIndex() == 0)

    def _settings(self) -> dict[str, Any]:
        """Keywords of `TrainConfig`."""
        scratch = self.start_from.currentData() is None
        return {
            "mode": "all" if scratch else self.mode.currentData(),
            "epochs": self.epochs.value(),
            "device": self.device.currentData(),
        }

    def _show_progress(self, progress: TrainProgress | Started | str) -> None:
        if isinstance(progress, str):
            self._say(progress)
            return
        if isinstance(progress, Started):
            self.samples = progress.samples
            counts = ", ".join(f"{k} {n}" for k, n in progress.samples.counts.items())
            self._note = progress.samples.note
            self._say(f"{len(progress.samples):,} samples: {counts}. {self._note}")
            return
        self.checkpoint = progress.best or self.checkpoint
        if self._stopped:
            return
        self.progress.setRange(0, progress.total)
        self.progress.setValue(progress.done)
        said = [progress.message]
        if progress.loss is not None:
            said.append(f"loss {progress.loss:.3f}")
        if progress.history:
            said.append(f"{progress.history[-1].accuracy:.1%} right")
        if progress.done and progress.seconds_left is not None:
            said.append(f"{in_words(progress.seconds_left)} left")
        self._say(" - ".join(said))
        if len(progress.history) > 1:
            epochs = [epoch.number for epoch in progress.history]
            self.curves.show_lines(
                {
                    "training loss": (epochs, [e.loss for e in progress.history]),
                    "validation loss": (epochs, [e.validation_loss for e in progress.history]),
                    "accuracy": (epochs, [e.accuracy for e in progress.history]),
                }
            )
            self.curves.show()

    def _take_result(self, result: Checkpoint | str) -> None:
        if isinstance(result, str):
            self._say(result, is_error=True)
            return
        self.checkpoint = result
        seconds = result.report["seconds"]
        self._say(f"Trained for {in_words(seconds)} on {result.report['device']}. {self._note}")

    def _show_end(self) -> None:
        if self._stopped:
            kept = "The best weights so far are kept" if self.checkpoint else "Nothing was learned"
            self._say(f"Stopped. {kept}.")
        if self.checkpoint is not None:
            self.result.show_report(self.checkpoint.report)

    def _choose_weights_file(self) -> None:
        name = f"{self.name.text()}.safetensors"
        path = path_to_save(self, "Save weights", name, {"Weights": [".safetensors"]})
        if path:
            self.save_weights(path)

    def _choose_report_file(self) -> None:
        path = path_to_save(self, "Report", "report.html", {"Report": [".html"]})
        if path:
            self.save_report(path)

    def _show_start(self) -> None:
        scratch = self.start_from.currentData() is None
        self.form.setRowVisible(self.mode, not scratch)
        self.form.setRowVisible(self.epochs, scratch or self.mode.currentData() != "head")
        if not scratch:
            try:
                size = read_manifest(self.start_from.currentData()).patch.tile_size
            except MambamicError:
                return
            if self.sources.annotator is None:
                self.sources.tile_size.setValue(size)

    def _set_running(self, running: bool) -> None:
        super()._set_running(running)
        usable = not running and self.checkpoint is not None
        for widget in (self.name, self.use_button, self.save_button, self.report_button):
            widget.setVisible(usable)


def _iter_training(
    read: Callable[[], Samples], start: str | None, settings: dict[str, Any]
) -> Generator[Any, None, Checkpoint]:
    """Read the samples and train, in the worker's thread."""
    yield "Loading torch ..."
    from napari_mambamic.training.config import TrainConfig
    from napari_mambamic.training.fine_tune import iter_fine_tune

    samples = read()
    yield Started(samples)
    return (yield from iter_fine_tune(samples, start=start, config=TrainConfig(**settings)))
