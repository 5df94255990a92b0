"""Kendall's tau against scipy and by simulation."""

from __future__ import annotations

import dataclasses
import inspect
import math

import numpy as np
import pytest
import scipy.stats

from landscape.analysis import kendall


@pytest.mark.parametrize("n", [2, 3, 10, 57])
@pytest.mark.parametrize("ties", [False, True])
def test_tau_is_scipys(n: int, ties: bool) -> None:
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(2, n))
    if ties:
        x, y = np.round(x), np.round(2 * y)
    expected = scipy.stats.kendalltau(x, y).statistic
    assert kendall(x, y, n_bootstrap=10).tau == pytest.approx(expected, abs=1e-14, nan_ok=True)


def test_interval_is_scipys_percentile_bootstrap() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=20)
    y = x + rng.normal(size=20)
    found = kendall(x, y, n_bootstrap=400, seed=3)
    generator = (
        "rng" if "rng" in inspect.signature(scipy.stats.bootstrap).parameters else "random_state"
    )  # scipy < 1.15
    expected = scipy.stats.bootstrap(
        (x, y),
        lambda a, b: scipy.stats.kendalltau(a, b).statistic,
        paired=True,
        vectorized=False,
        n_resamples=400,
        method="percentile",
        **{generator: np.random.default_rng(3)},
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_interval_covers_the_true_tau() -> None:
    correlation, n, simulations = 0.6, 30, 200
    truth = 2 / math.pi * math.asin(correlation)  # of a bivariate normal
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(simulations):
        x = rng.normal(size=n)
        y = correlation * x + math.sqrt(1 - correlation**2) * rng.normal(size=n)
        found = kendall(x, y, n_bootstrap=400, seed=seed)
        covered += found.low <= truth <= found.high
    assert 0.88 <= covered / simulations <= 0.99


def test_confidence_widens_the_interval() -> None:
    x, y = np.random.default_rng(2).normal(size=(2, 15))
    narrow, wide = (kendall(x, y, n_bootstrap=500, confidence=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low <= narrow.tau <= narrow.high < wide.high


def test_perfect_order_and_infinities() -> None:
    found = kendall([1.0, 2.0, 3.0, math.inf], [1.0, 5.0, 6.0, 7.0])
    assert (found.tau, found.low, found.high, found.n) == (1.0, 1.0, 1.0, 4)
    assert kendall([1, 2, 3], [3, 2, 1]).tau == -1.0


@pytest.mark.parametrize(("x", "y"), [([], []), ([1.0], [2.0]), ([1.0, math.nan, 3.0], [1.0, 2.0, 3.0])])
def test_undefined_is_nan(x: list[float], y: list[float]) -> None:
    found = kendall(x, y)
    assert np.isnan([found.tau, found.low, found.high]).all()
    assert found.n == len(x)


def test_a_constant_measure_has_no_tau() -> None:
    found = kendall([1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0])
    assert np.isnan([found.tau, found.low, found.high]).all()


def test_two_pairs_have_no_interval() -> None:
    found = kendall([1.0, 2.0], [5.0, 4.0])
    assert found.tau == -1.0
    assert np.isnan([found.low, found.high]).all()


def test_the_seed_decides_and_the_result_is_frozen() -> None:
    x, y = np.random.default_rng(4).normal(size=(2, 12))
    assert kendall(x, y, seed=1) == kendall(x, y, seed=1)
    assert kendall(x, y, seed=1) != kendall(x, y, seed=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        kendall(x, y).tau = 0.0  # type: ignore[misc]


def test_it_prints_its_interval() -> None:
    assert str(kendall([1, 2, 3, 4], [4, 3, 2, 1])) == "τ = −1.00 [−1.00, −1.00] (95 % bootstrap interval, n = 4)"
    assert str(kendall([1, 2], [2, 1])) == "τ = −1.00 (n = 2, no interval)"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([1.0, 2.0], [1.0]), "one value a run each"),
        (([1.0, 2.0], [1.0, 2.0], 0), "at least one resample"),
        (([1.0, 2.0], [1.0, 2.0], 10, 0, 95.0), "between 0 and 1"),
    ],
)
def test_wrong_arguments_are_told(arguments: tuple, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        kendall(*arguments)
