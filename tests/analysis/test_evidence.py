"""The Occam curve on the axes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from landscape.analysis import plot_evidence

CURVE = {
    "precision": np.array([10.0, 0.1, 1.0]),
    "log_evidence": np.array([-30.0, -20.0, -10.0]),
    "n_eff": np.array([1.0, 3.0, 2.0]),
    "n": 5,
    "structure": "full",
    "curvature": "ggn",
}


def lines(ax: Any) -> list[np.ndarray]:
    return [np.asarray(line.get_xydata()) for line in ax.lines if line.get_linestyle() == "-"]


def stars(ax: Any) -> list[tuple[float, float]]:
    return [tuple(line.get_xydata()[0]) for line in ax.lines if line.get_marker() == "*"]


def caption(ax: Any) -> str:
    return ax.get_title(loc="left").replace("\n", " ")


def test_a_curve_in_the_order_of_precisions_with_its_largest_value() -> None:
    ax, lower = plot_evidence(CURVE)
    assert lines(lower)[0].tolist() == [[0.1, 3.0], [1.0, 2.0], [10.0, 1.0]]
    assert (lower.get_ylabel(), lower.get_xscale()) == ("N_eff (parameters)", "log")
    assert lines(ax)[0].tolist() == [[0.1, -20.0], [1.0, -10.0], [10.0, -30.0]]
    assert stars(ax) == [(1.0, -10.0)]
    assert (ax.get_xscale(), ax.get_ylabel()) == ("log", "log evidence (nats)")
    assert caption(ax) == "Laplace (full ggn). Star: the largest value measured."
    assert ax.get_legend() is None


def test_curves_by_label_and_per_example() -> None:
    other = SimpleNamespace(log_evidence=1, to_dict=lambda: {**CURVE, "n": 10})
    ax, _ = plot_evidence({"small": CURVE, "large": other}, per_example=True)
    assert stars(ax) == [(1.0, -2.0), (1.0, -1.0)]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["small", "large"]
    assert ax.get_ylabel() == "log evidence per example (nats)"


def test_gaps_and_ends_are_told() -> None:
    gap = {**CURVE, "log_evidence": np.array([-5.0, np.nan, -10.0])}
    ax, _ = plot_evidence({"gap": gap})
    assert stars(ax) == [(10.0, -5.0)]
    assert "Gaps: a direction without curvature" in caption(ax)
    assert "A star at the end of its curve is no maximum." in caption(ax)
    none = {**CURVE, "log_evidence": np.full(3, np.nan)}
    assert stars(plot_evidence(none)[0]) == []


def test_far_too_narrow_priors_do_not_flatten_the_curve() -> None:
    long = {**CURVE, "precision": np.logspace(-2, 3, 6), "log_evidence": np.array([-14, -12, -10, -11, -13, -1e6])}
    ax, _ = plot_evidence(long | {"n_eff": np.ones(6)})
    assert ax.get_ylim()[0] == pytest.approx(-10 - 4 * 2.5)  # the median is −12.5
    assert "1 value below the axis." in caption(ax)


def test_what_is_no_evidence_is_told() -> None:
    with pytest.raises(ValueError, match="at least one result"):
        plot_evidence({})
    with pytest.raises(ValueError, match="'a' has no 'n'"):
        plot_evidence({"a": {"precision": [1.0], "log_evidence": [1.0], "n_eff": [1.0]}})
    with pytest.raises(ValueError, match="unlike numbers of values: 2 of precision, 1 of log_evidence, 2 of n_eff"):
        plot_evidence({"precision": [1.0, 2.0], "log_evidence": [1.0], "n_eff": [1.0, 2.0], "n": 3})
