"""docs/support.md says what the toolkit does with every kind of module in every regime."""

from __future__ import annotations

import os

import pytest
from landscape_test_support.cells import examine
from landscape_test_support.page import COMMAND, KINDS, PAGE, Notes, applies, first_row, second_row, store
from landscape_test_support.regimes import REGIMES

_BY_NAME = {kind.name: kind for kind in KINDS}


def _page():
    assert PAGE.exists(), f"there is no {PAGE.name}; write it: {COMMAND}"
    return PAGE.read_text()


def _lines():
    return _page().splitlines()


def _notes():
    return Notes.of(_page())


@pytest.mark.parametrize("name", ["classifier", "manual optimisation"])
def test_a_right_and_a_refused_kind_are_as_on_the_page(tmp_path, name):
    cells = {"eval": examine(_BY_NAME[name], REGIMES[0], tmp_path)}
    assert first_row(_BY_NAME[name], cells, _notes()) in _lines()


def test_the_page_holds_every_kind_and_regime():
    lines = _lines()
    for kind in KINDS:
        assert any(line.startswith(f"| {kind.name} | identical |") for line in lines), kind.name
        assert f"- {kind.name}: {kind.about}." in lines
    for regime in REGIMES:
        assert f"| {regime.name} | {regime.about} |" in lines


def test_no_cell_is_wrong_or_empty():
    found = [line for line in _lines() if line.startswith("| ") and "**" in line.partition("|")[2]]
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_regime_is_as_on_the_page(tmp_path, kind):
    cells = {}
    for regime in REGIMES:
        if applies(kind, regime):
            (tmp_path / regime.name).mkdir()
            cells[regime.name] = examine(kind, regime, tmp_path / regime.name)
    if os.environ.get("LANDSCAPE_WRITE_SUPPORT"):
        store(kind, cells)
        return
    rows = [first_row(kind, cells, _notes())]
    rows += [second_row(kind, cells, _notes())] if len(cells) > 1 else []
    for row in rows:
        assert row in _lines(), f"{row}\nis not on the page; if it should be, write the page anew: {COMMAND}"
