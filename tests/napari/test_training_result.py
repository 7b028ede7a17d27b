"""What the Train panel and the report say of figures."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtWidgets import QHeaderView, QTableWidgetItem

from napari_mambamic._napari.fitted_table import FittedTable
from napari_mambamic._napari.training_result import TrainingResult
from napari_mambamic.training.metrics import evaluate
from napari_mambamic.training.report import accuracy_in_words, write_report

NAMES = ["round", "long", "odd"]
HISTORY = dict.fromkeys(("number", "loss", "validation_loss", "accuracy", "balanced_accuracy"), 1)
BINS = {"confidence": [0.5], "accuracy": [0.5], "expected_calibration_error": 0.1}


@pytest.fixture
def report():
    """Of a run that held back two samples of two classes each, and none of the third."""
    probabilities = np.full((4, 3), 0.1)
    probabilities[[0, 1, 2, 3], [0, 2, 1, 1]] = 0.8
    return {
        "class_names": NAMES,
        "validation": evaluate(probabilities, np.array([0, 0, 1, 1]), NAMES, resamples=10),
        "calibration": {"before": BINS, "after": BINS, "temperature": 1.0},
        "history": [HISTORY],
        "split": {"method": "", "counts": {"training": [4, 4, 1], "validation": [2, 2, 0]}},
        "config": {},
        "notes": [],
        "start": None,
        "seconds": 1,
        "device": "CPU",
    }


def test_a_class_that_was_not_held_back_shows_dashes_and_says_why(qtbot, report):
    result = TrainingResult()
    qtbot.addWidget(result)
    result.show_report(report)
    table = result.figures
    headings = [table.horizontalHeaderItem(i).text() for i in range(table.columnCount())]
    of_odd = {name: table.item(2, i) for i, name in enumerate(headings)}
    for name in ("precision", "sensitivity", "f1", "auc"):
        assert of_odd[name].text() == "-", name
        assert "No sample of this class was held back" in of_odd[name].toolTip()
    assert table.item(0, 1).text() == "100%"
    assert not table.item(0, 1).toolTip()
    said = result.headline.text()
    assert "mean over the 2 classes with samples 75.0%" in said
    assert "No sample of odd was held back" in said


def test_calibration_is_shown_where_it_was_measured(qtbot, report, tmp_path):
    result = TrainingResult()
    qtbot.addWidget(result)
    result.show_report(report)
    assert "Calibration error 0.100 before and 0.100 after" in result.headline.text()
    assert not result.reliability.isHidden()
    report["calibration"] |= {"before": None, "after": None}
    result.show_report(report)
    assert "that takes 100 validation samples" in result.headline.text()
    assert "alibration error" not in result.headline.text()
    assert result.reliability.isHidden()
    page = write_report(report, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "that takes 100 validation samples" in page
    assert "accuracy in each bin of confidence" not in page


def test_shares_of_few_samples_have_no_tenths(qtbot, report):
    result = TrainingResult()
    qtbot.addWidget(result)
    for n, text in ((8, "67%"), (2050, "66.7%")):
        report["validation"]["per_class"]["round"] |= {"n": n, "precision": 2 / 3}
        result.show_report(report)
        assert result.figures.item(0, 1).text() == text


def test_one_class_and_one_sample_are_told_as_one(report):
    figures = evaluate(np.eye(3)[[0]], np.array([0]), NAMES, resamples=10)
    said = accuracy_in_words(figures)
    assert said.startswith("100.0% of 1 validation sample is classified correctly (95 % interval ")
    assert "mean over the 1 class with samples 100.0%" in said


def test_the_report_says_it_too(tmp_path, report):
    page = write_report(report, tmp_path / "report.html").read_text(encoding="utf-8")
    dashes = "<td>odd</td><td>0</td><td>–</td><td>–</td><td>75.0%</td><td>–</td>"  # noqa: RUF001
    assert dashes in page
    assert page.count("mean over the 2 classes with samples") == 2
    assert "No sample of odd was held back" in page


@pytest.mark.parametrize("width", [250, 600])
def test_every_row_of_the_tables_is_seen_at_any_width(qtbot, report, width):
    result = TrainingResult()
    qtbot.addWidget(result)
    result.resize(width, 900)
    result.show_report(report)
    qtbot.waitExposed(result)
    for table in (result.confusion, result.figures):
        qtbot.waitUntil(lambda table=table: table.viewport().width() > 100)
        qtbot.wait(100)
        last = table.visualItemRect(table.item(table.rowCount() - 1, 0))
        assert table.viewport().rect().contains(last), table.accessibleName()
        assert not table.verticalScrollBar().maximum()
    assert bool(result.figures.horizontalScrollBar().maximum()) == (width == 250)


def test_names_of_rows_are_cut_before_the_last_column_is(qtbot):
    table = FittedTable("Shares", 5, widest="100%")
    qtbot.addWidget(table)
    table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
    table.setRowCount(1)
    table.setVerticalHeaderLabels(["immature granulocyte " * 2])
    for column in range(5):
        table.setItem(0, column, QTableWidgetItem("100%"))
    table.show()
    wants = table.verticalHeader().sizeHint().width()
    needs = table.horizontalHeader().length()
    for width in (needs + wants // 2, needs + wants // 3 + 60):
        table.resize(width, table.height())
        qtbot.waitUntil(lambda: not table.horizontalScrollBar().maximum())
        assert width // 4 <= table.verticalHeader().width() < wants
    table.resize(needs + 2 * wants, table.height())
    qtbot.waitUntil(lambda: table.verticalHeader().width() >= wants)
