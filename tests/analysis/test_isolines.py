"""Lines of equal bound: each stands where `countable_bound` has its value, and the caption says what is assumed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from landscape import FileError
from landscape.analysis import plot_flatness_compressibility
from landscape.analysis._isolines import bits_at
from landscape.bounds import countable_bound

METHODS = ("hoeffding", "kl", "exact", "catoni")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("level", [0.3, 0.5, 0.7])
def test_the_bound_at_the_line_is_its_level(method: str, level: float) -> None:
    setting: dict[str, Any] = {"error": 0.05, "n": 1000, "delta": 0.05, "method": method, "choices": [4, 10]}
    bits = bits_at(level, **setting)
    assert countable_bound(bits=bits, **setting) == pytest.approx(level, abs=1e-8)
    assert countable_bound(bits=bits, **setting) <= level
    assert countable_bound(bits=bits * (1 + 1e-6), **setting) > level


def test_lines_of_closed_form() -> None:
    n, error, delta = 1000, 0.1, 0.05
    spent = math.log(1 / delta)
    # Hoeffding: (level − error)² = (b ln 2 + ln 1/δ)/2n; at 1 it ends there.
    for level in (0.5, 1.0):
        expected = (2 * n * (level - error) ** 2 - spent) / math.log(2)
        found = bits_at(level, error=error, n=n, delta=delta, method="hoeffding")
        assert found == pytest.approx(expected, rel=1e-8)
    # kl from an error of 0: −ln(1 − level) = (b ln 2 + ln 1/δ)/n; 1 stands for .995.
    for level, reached in ((0.5, 0.5), (1.0, 0.995)):
        expected = (-n * math.log1p(-reached) - spent) / math.log(2)
        assert bits_at(level, error=0.0, n=n, delta=delta) == pytest.approx(expected, rel=1e-8)


def test_a_level_below_what_the_error_alone_gives_is_not_to_be_had() -> None:
    assert math.isnan(bits_at(0.3, error=0.4, n=1000, delta=0.05))
    assert math.isnan(bits_at(0.3, error=0.299, n=1000, delta=0.05))  # n examples alone do not show .3
    assert bits_at(0.3, error=0.2, n=1000, delta=0.05) > 0


def lines(ax: Any) -> dict[str, float]:
    """Heights of the lines by their labels."""
    heights = {
        line.get_ydata()[0] for line in ax.lines if len(set(line.get_ydata())) == 1 and len(line.get_ydata()) == 2
    }
    texts = {text.get_text(): text.xy[1] for text in ax.texts if text.get_text().startswith("bound")}
    assert set(texts.values()) == heights
    return texts


def caption(ax: Any) -> str:
    return ax.get_title(loc="left").replace("\n", " ").replace("\u00a0", " ")


def test_lines_on_the_plot(grid: list[Path]) -> None:
    ax = plot_flatness_compressibility(grid, bound={"n": 60_000, "delta": 0.05, "error": "train_error"})
    errors = [0.025, 0.05, 0.075, 0.1, 0.125, 0.15]  # half of the held-out ones, by the fixture
    median = float(np.median(errors))
    expected = {
        f"bound {level:g}" + ": vacuous" * (level == 1): bits_at(level, error=median, n=60_000, delta=0.05)
        for level in (0.3, 0.5, 0.7, 1.0)
    }
    assert lines(ax) == pytest.approx(expected)
    text = caption(ax)
    assert "the bound (kl, n = 60,000, δ = 0.05)" in text
    assert "IF the decoded network errs on 0.0875 of these examples (the median of the runs' train error" in text
    assert "no certificate" in text
    assert "Vacuous: .995 or more." in text
    low, high = ax.get_ylim()
    assert low < 1000 < max(expected.values()) < high  # the runs and all lines are seen
    assert ax.get_yscale() == "log"


def test_settings_of_the_lines(grid: list[Path]) -> None:
    given = {"n": 1000, "error": 0.4, "levels": (0.3, 1), "method": "hoeffding", "choices": [8], "classes": 10}
    ax = plot_flatness_compressibility(grid, bound=given)
    setting: dict[str, Any] = {"error": 0.4, "n": 1000, "delta": 0.05, "method": "hoeffding", "choices": [8]}
    assert lines(ax) == pytest.approx(
        {"bound 0.9: guessing": bits_at(0.9, **setting), "bound 1: vacuous": bits_at(1.0, **setting)}
    )
    text = caption(ax)
    assert "choices [8] charged" in text
    assert "(assumed)" in text
    assert "Not to be had at that error: 0.3." in text
    assert ".995" not in text


def test_the_number_of_examples_is_the_runs(make_run: Any) -> None:
    runs = [make_run(attributes={"n_examples": count}) for count in (500, 500)]
    assert "n = 500," in caption(plot_flatness_compressibility(runs, bound=True))
    with pytest.raises(FileError, match=r"differ in \(500, 600\) how many examples"):
        plot_flatness_compressibility([*runs, make_run(attributes={"n_examples": 600})], bound=True)
    with pytest.raises(FileError, match="do not say how many examples"):
        plot_flatness_compressibility(make_run(), bound=True)


def test_without_lines_nothing_changes(grid: list[Path]) -> None:
    ax = plot_flatness_compressibility(grid)
    assert lines(ax) == {}
    assert "bound" not in caption(ax)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"y": "ideal_bits[tolerance=0.03]", "bound": True}, "needs an axis of bits that decode"),
        ({"bound": {"error": 0.1, "n": 10, "deltas": 0.1}}, "no setting 'deltas'; it has n, delta"),
        ({"bound": {"error": 0.1, "n": 10, "levels": (0.5, 2)}}, "levels holds 2"),
        ({"bound": {"error": 0.1, "n": 10, "method": "union"}}, "the method is 'union'"),
        ({"bound": {"error": 0.1, "n": 10, "delta": 0}}, "strictly between 0 and 1"),
    ],
)
def test_wrong_settings_are_told(grid: list[Path], arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        plot_flatness_compressibility(grid, **arguments)


def test_an_error_that_was_not_recorded_is_told(grid: list[Path]) -> None:
    with pytest.raises(FileError, match="No run has 'swa_train_error' at the rows"):
        plot_flatness_compressibility(grid, bound={"n": 10, "error": "swa_train_error"})
