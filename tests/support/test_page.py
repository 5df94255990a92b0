"""The page: marks of cells, numbers of sentences, and what differs between regimes."""

from __future__ import annotations

import dataclasses

import pytest
from landscape_test_support.cells import MEASURES, MISSING, REFUSED, RIGHT, WRONG, Cell, Verdict
from landscape_test_support.page import KINDS, Notes, applies, first_row, page, second_row
from landscape_test_support.regimes import REGIMES

CLASSIFIER = KINDS[0]


@pytest.fixture
def right():
    """A cell in which everything is right."""
    return Cell(True, dict.fromkeys(MEASURES, Verdict(RIGHT)))


def changed(cell, measure, outcome, text=""):
    return dataclasses.replace(cell, verdicts=cell.verdicts | {measure: Verdict(outcome, text)})


def test_a_row_of_marks(right):
    cell = changed(
        changed(changed(right, "trace", WRONG, "recorded 1, right 2"), "sam", MISSING), "bits", REFUSED, "no"
    )
    cells = first_row(CLASSIFIER, {"eval": cell}, Notes()).split(" | ")
    assert cells[:5] == ["| classifier", "identical", "✓", "✓", "**wrong**"]
    assert cells[7:9] == ["**nothing**", "[1](#1)"]


def test_a_changed_training_shows(right):
    assert "| **changed** |" in first_row(CLASSIFIER, {"eval": dataclasses.replace(right, identical=False)}, Notes())


def test_only_differences_are_named_in_other_regimes(right):
    cells = dict.fromkeys([regime.name for regime in REGIMES], right)
    cells["float64"] = changed(right, "trace", REFUSED, "no trace")
    cells["clipping"] = dataclasses.replace(right, identical=False)
    found = second_row(CLASSIFIER, cells, Notes()).strip("| ").split(" | ")
    assert found == ["classifier", "✓", "✓", "✓", "trace [1](#1)", "training **changed**", "✓", "✓"]


def test_sentences_are_numbered_once_without_rounded_numbers_and_read_back(right):
    notes = Notes()
    assert [notes.link(text) for text in ("came out as 1.25", "other", "came out as 1.26e-05")] == [
        "[1](#1)",
        "[2](#2)",
        "[1](#1)",
    ]
    results = {kind.name: {regime.name: right for regime in REGIMES if applies(kind, regime)} for kind in KINDS}
    results["classifier"]["eval"] = changed(right, "loss", REFUSED, "as 3 and 1.5")
    text = page(results)
    assert Notes.of(text).sentences == ["as 3 and …"]
    for kind in KINDS:
        assert first_row(kind, results[kind.name], Notes.of(text)) in text.splitlines()
