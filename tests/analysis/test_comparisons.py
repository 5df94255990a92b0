"""Granulated Kendall and sign errors: cases by hand, the formula written out, theorems, and coverage of intervals."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landscape.analysis import granulated_kendall, kendall, sign_error


def full_grid(*sizes: int, seeds: int = 1) -> pd.DataFrame:
    """A row for every combination of levels a, b, ... and seed."""
    names = [*"abcdef"[: len(sizes)], "seed"]
    return pd.DataFrame(itertools.product(*map(range, [*sizes, seeds])), columns=names)


def by_hand(table: pd.DataFrame, axes: list[str]) -> list[float]:
    """ψ of each axis by Jiang et al.'s formula, one run a setting: ordered pairs, ties count 0."""
    psi = []
    for axis in axes:
        taus = []
        for _, rows in table.groupby([name for name in axes if name != axis], sort=False):
            points = list(zip(rows["mu"], rows["g"], strict=True))
            signs = [np.sign(m - n) * np.sign(g - h) for (m, g), (n, h) in itertools.permutations(points, 2)]
            taus.append(sum(signs) / (len(points) * (len(points) - 1)))
        psi.append(float(np.mean(taus)))
    return psi


# Two axes: a has two values, b three. g rises along both.
HAND = pd.DataFrame(
    {
        "a": [0, 0, 0, 1, 1, 1],
        "b": [0, 1, 2, 0, 1, 2],
        "g": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        "mu": [1.0, 3.0, 2.0, 0.0, 3.0, 7.0],
    }
)


def test_granulated_kendall_by_hand() -> None:
    found = granulated_kendall(HAND, "mu", "g", ["a", "b"], n_bootstrap=50)
    # Along a, at b = 0, 1, 2: 1 → 0 falls (−1), 3 → 3 is tied (0), 2 → 7 rises (1).
    # Along b, at a = 0: 1 < 3, 1 < 2, but 3 > 2: (1 + 1 − 1)/3; at a = 1: all three rise, 1.
    assert found.psi == pytest.approx((0.0, 2 / 3))
    assert found.value == pytest.approx(1 / 3)
    assert (found.axes, found.n_groups, found.n, found.resampled) == (("a", "b"), (3, 2), 6, "settings")


def test_sign_error_by_hand() -> None:
    found = sign_error(HAND, "mu", "g", ["a", "b"], n_bootstrap=50)
    # Three environments along a: wrong, tied, right; six along b, one of them wrong.
    assert sorted(found.by_environment) == [0, 0, 0, 0, 0, 0, 0.5, 1, 1]
    assert found.environment_axis == ("a",) * 3 + ("b",) * 6
    assert (found.mean, found.worst) == (pytest.approx(2.5 / 9), 1.0)
    assert found.worst_environment == "a: 0 against 1, at b = 0"
    assert (found.n_environments, found.n_discarded, found.n) == (9, 0, 6)
    assert math.isnan(found.worst_low)
    assert math.isnan(found.worst_high)


def test_seeds_are_taken_in_all_pairs() -> None:
    table = pd.DataFrame({"a": [0, 0, 1, 1], "mu": [1.0, 4.0, 2.0, 3.0], "g": [1.0, 2.0, 5.0, 6.0]})
    # g says: the second setting is larger. mu agrees in (1, 2), (1, 3), not in (4, 2), (4, 3).
    assert sign_error(table, "mu", "g", ["a"], n_bootstrap=10).worst == 0.5
    assert granulated_kendall(table, "mu", "g", ["a"], n_bootstrap=10).value == 0.0
    lopsided = pd.concat([table, pd.DataFrame({"a": [0], "mu": [0.0], "g": [0.0]})])
    assert sign_error(lopsided, "mu", "g", ["a"], n_bootstrap=10).worst == pytest.approx(2 / 6)


def test_within_compares_equal_seeds_only() -> None:
    rng = np.random.default_rng(0)
    table = full_grid(2, 3, 2, seeds=3)
    table["mu"], table["g"] = rng.normal(size=(2, len(table)))
    paired = granulated_kendall(table, "mu", "g", ["a", "b", "c"], within=["seed"], n_bootstrap=10)
    repeats = [by_hand(part, ["a", "b", "c"]) for _, part in table.groupby("seed")]
    assert paired.psi == pytest.approx(np.mean(repeats, axis=0))
    assert paired.n_groups == (3 * 6, 3 * 4, 3 * 6)


@pytest.mark.parametrize("ties", [False, True])
def test_granulated_kendall_is_the_formula(ties: bool) -> None:
    rng = np.random.default_rng(1)
    table = full_grid(3, 2, 4)
    table["mu"], table["g"] = rng.normal(size=(2, len(table)))
    if ties:
        table = table.round({"mu": 0, "g": 0})
    found = granulated_kendall(table.sample(frac=1, random_state=0), "mu", "g", ["a", "b", "c"], n_bootstrap=10)
    assert found.psi == pytest.approx(by_hand(table, ["a", "b", "c"]), abs=1e-14)
    assert found.value == pytest.approx(np.mean(found.psi), abs=1e-14)


def test_one_axis_without_ties_is_kendalls_tau() -> None:
    rng = np.random.default_rng(2)
    table = pd.DataFrame({"a": range(12), "mu": rng.normal(size=12), "g": rng.normal(size=12)})
    expected = kendall(table["mu"], table["g"]).tau
    assert granulated_kendall(table, "mu", "g", ["a"], n_bootstrap=10).value == pytest.approx(expected, abs=1e-14)
    assert sign_error(table, "mu", "g", ["a"], n_bootstrap=10).mean == pytest.approx((1 - expected) / 2, abs=1e-14)


def test_an_axis_that_explains_all_is_seen_through() -> None:
    """A measure that follows one hyper-parameter alone has a high tau and a Ψ of about nothing on the others."""
    rng = np.random.default_rng(3)
    table = full_grid(10, 5, 4)
    table["g"] = 100.0 * table["a"] + rng.normal(size=len(table))
    table["mu"] = 100.0 * table["a"] + rng.normal(size=len(table))
    found = granulated_kendall(table, "mu", "g", ["a", "b", "c"], n_bootstrap=10)
    assert kendall(table["mu"], table["g"], n_bootstrap=10).tau > 0.85
    assert found.psi[0] == 1.0
    assert np.abs(found.psi[1:]).max() < 0.2


values = st.lists(st.floats(-5, 5).map(lambda x: round(x, 1)), min_size=12, max_size=12)


@settings(max_examples=40, deadline=None)
@given(mu=values, g=values)
def test_order_is_all_that_counts(mu: list[float], g: list[float]) -> None:
    table = full_grid(2, 3, seeds=2).assign(mu=mu, g=g)
    moved = table.assign(mu=[math.exp(x) for x in mu], g=[x**3 + 2 * x for x in g])
    for function in (granulated_kendall, sign_error):
        one, other = (function(each, "mu", "g", ["a", "b"], n_bootstrap=20).to_dict() for each in (table, moved))
        assert str(one) == str(other)  # as texts NaN equals NaN


@settings(max_examples=40, deadline=None)
@given(mu=values, g=values)
def test_reversal_and_range(mu: list[float], g: list[float]) -> None:
    table = full_grid(2, 3, seeds=2).assign(mu=mu, g=g)
    turned = table.assign(mu=[-x for x in mu])
    forwards, backwards = (granulated_kendall(each, "mu", "g", ["a", "b"], n_bootstrap=5) for each in (table, turned))
    assert forwards.psi == pytest.approx([-x for x in backwards.psi], abs=1e-12)
    assert -1 <= forwards.value <= 1
    right, wrong = (sign_error(each, "mu", "g", ["a", "b"], n_bootstrap=5) for each in (table, turned))
    assert right.mean == pytest.approx(1 - wrong.mean, abs=1e-12)
    assert 0 <= right.mean <= right.worst <= 1


def test_a_perfect_measure() -> None:
    table = full_grid(3, 2, 2, seeds=2)
    table["g"] = np.random.default_rng(4).permutation(len(table)).astype(float)
    table["mu"] = np.exp(table["g"])
    found = granulated_kendall(table, "mu", "g", ["a", "b", "c"])
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    errors = sign_error(table, "mu", "g", ["a", "b", "c"])
    assert (errors.mean, errors.mean_high, errors.worst, errors.worst_low, errors.worst_high) == (0, 0, 0, 0, 0)


def test_a_random_measure() -> None:
    rng = np.random.default_rng(5)
    table = full_grid(4, 4, 4, seeds=3)
    table["mu"], table["g"] = rng.normal(size=(2, len(table)))
    # 3 axes of 16 groups of 6 pairs: the standard deviation of Ψ is below 0.06.
    assert abs(granulated_kendall(table, "mu", "g", ["a", "b", "c"], n_bootstrap=10).value) < 0.18
    assert sign_error(table, "mu", "g", ["a", "b", "c"], n_bootstrap=10).mean == pytest.approx(0.5, abs=0.09)


def test_nan_stays_nan_where_it_is_compared() -> None:
    table = HAND.assign(mu=[1.0, math.nan, 2.0, 0.0, 3.0, 7.0])
    found, errors = (f(table, "mu", "g", ["a", "b"]) for f in (granulated_kendall, sign_error))
    assert np.isnan([found.value, found.low, found.high, *found.psi]).all()
    assert np.isnan([errors.mean, errors.worst, errors.mean_low, *errors.by_environment]).all()
    alone = pd.concat([HAND, pd.DataFrame({"a": [7], "b": [7], "g": [1.0], "mu": [math.nan]})])
    assert granulated_kendall(alone, "mu", "g", ["a", "b"], n_bootstrap=9).value == pytest.approx(1 / 3)


def test_infinities_have_an_order() -> None:
    table = HAND.assign(mu=[-math.inf, 0.0, math.inf, math.inf, math.inf, math.inf])
    # Along a: −∞ < ∞, 0 < ∞, and a tie; along b: all right, then three ties.
    assert granulated_kendall(table, "mu", "g", ["a", "b"], n_bootstrap=9).psi == pytest.approx((2 / 3, 1 / 2))


def test_an_axis_without_a_group_has_no_psi() -> None:
    table = HAND.assign(c=HAND["a"])  # moves with a: no two runs differ in one of them alone
    found = granulated_kendall(table, "mu", "g", ["a", "b", "c"])
    assert found.n_groups == (0, 2, 0)
    assert found.psi[1] == pytest.approx(2 / 3)
    assert np.isnan([found.psi[0], found.psi[2], found.value]).all()
    assert sign_error(table, "mu", "g", ["a", "b", "c"]).n_environments == 6


def test_missing_and_listed_hyper_parameters_are_values() -> None:
    table = pd.DataFrame({"a": [None, "x", [1, 2], [1, 2]], "mu": [1.0, 2.0, 3.0, 4.0], "g": [1.0, 2.0, 3.0, 4.0]})
    assert sign_error(table, "mu", "g", ["a"], n_bootstrap=9).n_environments == 3


def test_weights_by_hoeffding() -> None:
    table = pd.DataFrame({"a": [0, 1, 2], "mu": [3.0, 2.0, 1.0], "g": [0.1, 0.2, 0.5]})
    m = 400

    def weight(gap: float) -> float:
        return max(0.0, 1 - 2 * math.exp(-2 * m * gap**2 / 4)) ** 2

    assert [weight(gap) for gap in (0.1, 0.3, 0.4)] == pytest.approx([0.531, 1.0, 1.0], abs=1e-3)
    found = sign_error(table, "mu", "g", ["a"], examples=m, least_weight=0.6, n_bootstrap=9)
    assert (found.n_environments, found.n_discarded) == (2, 1)
    assert math.isnan(found.by_environment[0])
    kept = sign_error(table, "mu", "g", ["a"], examples=m, least_weight=0.5, n_bootstrap=9)
    assert (kept.n_environments, kept.mean) == (3, 1.0)
    # In one environment a certain and a doubtful pair: the mean weighs them.
    seeds = pd.DataFrame({"a": [0, 1, 1], "mu": [2.0, 1.0, 3.0], "g": [0.1, 0.2, 0.5]})
    both = sign_error(seeds, "mu", "g", ["a"], examples=m, n_bootstrap=9)
    assert both.worst == pytest.approx(weight(0.1) / (weight(0.1) + weight(0.4)))


def test_effective_pairs() -> None:
    # Ten seeds a setting, g far apart: 100 pairs of weight 1. One seed a setting: one pair.
    many = pd.DataFrame({"a": [0] * 10 + [1] * 10, "mu": range(20), "g": [0.1] * 10 + [0.9] * 10})
    assert sign_error(many, "mu", "g", ["a"], examples=1000, least_pairs=100 - 1e-9, n_bootstrap=9).n_environments == 1
    assert sign_error(many, "mu", "g", ["a"], examples=1000, least_pairs=100.1, n_bootstrap=9).n_environments == 0
    few = many.iloc[[0, 10]]
    assert sign_error(few, "mu", "g", ["a"], examples=1000, least_pairs=12, n_bootstrap=9).n_discarded == 1


def test_pairs_within_noise_leave_nothing() -> None:
    table = pd.DataFrame({"a": [0, 1], "mu": [1.0, 2.0], "g": [0.100, 0.101]})
    found = sign_error(table, "mu", "g", ["a"], examples=100)
    assert (found.n_environments, found.n_discarded, found.worst_environment) == (0, 1, "")
    assert np.isnan([found.mean, found.worst]).all()


def _draw(rng: np.random.Generator, seeds: int) -> pd.DataFrame:
    table = full_grid(3, 3, seeds=seeds)
    table["g"] = 0.5 * table["a"] + 0.5 * table["b"] + 0.5 * rng.normal(size=len(table))
    table["mu"] = 0.5 * table["a"] - 0.2 * table["b"] + 0.5 * rng.normal(size=len(table))
    return table


def test_the_interval_over_seeds_covers_the_expectation() -> None:
    rng = np.random.default_rng(6)
    truth = _expected()
    covered = {"psi": 0, "error": 0}
    simulations = 120
    for _ in range(simulations):
        table = _draw(rng, seeds=6)
        found = granulated_kendall(table, "mu", "g", ["a", "b"], n_bootstrap=300)
        errors = sign_error(table, "mu", "g", ["a", "b"], n_bootstrap=300)
        assert found.resampled == errors.resampled == "seeds"
        covered["psi"] += found.low <= truth <= found.high
        covered["error"] += errors.mean_low <= (1 - truth) / 2 <= errors.mean_high
    assert min(covered.values()) / simulations >= 0.85


def _expected() -> float:
    """E Ψ of `_draw`: of two normals with shifts s and t over √2 · 0.5, E sign · sign = erf(s') erf(t')."""

    def psi(mu_slope: float) -> float:
        gaps = (1, 1, 2)
        return sum(math.erf(0.5 * gap) * math.erf(mu_slope * gap) for gap in gaps) / 3  # sd of a difference: √½

    return (psi(0.5) + psi(-0.2)) / 2


def test_the_seed_decides() -> None:
    table = _draw(np.random.default_rng(7), seeds=3)
    for function in (granulated_kendall, sign_error):
        one, same, other = (function(table, "mu", "g", ["a", "b"], seed=seed, n_bootstrap=99) for seed in (1, 1, 2))
        assert one == same
        assert one != other


def test_settings_can_be_resampled_beside_seeds() -> None:
    table = _draw(np.random.default_rng(8), seeds=3)
    seeds, whole = (
        granulated_kendall(table, "mu", "g", ["a", "b"], resample=how, n_bootstrap=300) for how in ("seeds", "settings")
    )
    assert seeds.value == whole.value
    assert whole.low <= whole.value <= whole.high
    assert (seeds.low, seeds.high) != (whole.low, whole.high)
    errors = sign_error(table, "mu", "g", ["a", "b"], resample="settings", n_bootstrap=300)
    assert errors.worst_low <= errors.worst_high  # over seeds all the same
    assert errors.resampled == "settings"


def test_they_print() -> None:
    assert str(granulated_kendall(HAND, "mu", "g", ["a", "b"])).startswith("Ψ = 0.33 [")
    assert "a 0.00 (3), b 0.67 (2)" in str(granulated_kendall(HAND, "mu", "g", ["a", "b"]))
    assert "1.00 [nan, nan] at worst (9 environments, n = 6)" in str(sign_error(HAND, "mu", "g", ["a", "b"]))


@pytest.mark.parametrize("function", [granulated_kendall, sign_error])
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"axes": []}, "axes is empty"),
        ({"axes": ["z"]}, "no column 'z'"),
        ({"axes": ["a", "a"]}, "name a column twice"),
        ({"measure": "zz"}, "no column 'zz'"),
        ({"n_bootstrap": 0}, "at least one resample"),
        ({"confidence": 95}, "between 0 and 1"),
        ({"resample": "runs"}, "expected 'settings' or 'seeds'"),
        ({"table": HAND.assign(mu="large")}, "holds no numbers"),
    ],
)
def test_wrong_arguments_are_told(function: Any, change: dict[str, Any], sentence: str) -> None:
    arguments = {"table": HAND, "measure": "mu", "target": "g", "axes": ["a", "b"]} | change
    with pytest.raises(ValueError, match=sentence):
        function(**arguments)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"examples": 0}, "at least one example"),
        ({"examples": 10}, "holds 2, which is no error rate"),
        ({"least_weight": 1.5}, "between 0 and 1"),
    ],
)
def test_wrong_weights_are_told(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        sign_error(HAND, "mu", "g", ["a", "b"], **change)
