"""R-hat and effective sample size, as ArviZ gives them, against closed forms and what must be flagged."""

from __future__ import annotations

import math

import numpy as np
import pytest

from landscape.volume._chains import effective_sample_size, mean_error, split_rhat


def autoregressive(phi, chains, length, seed, shift=0.0):
    noise = np.random.default_rng(seed).standard_normal((chains, length))
    draws = np.zeros((chains, length))
    draws[:, 0] = noise[:, 0] / np.sqrt(1 - phi**2)
    for t in range(1, length):
        draws[:, t] = phi * draws[:, t - 1] + noise[:, t]
    return draws + shift * np.arange(chains)[:, None]


# R-hat (rank), ESS of the mean, bulk ESS and the mean's standard error as arviz-stats 0.8.0 gives them.
ARVIZ = [
    ((0.9, 4, 500, 0), 1.0383331646002285, 83.97393734685535, 83.93859305743703, 0.2516179280295355),
    ((0.0, 4, 100, 1), 0.9952087126953775, 593.6046083300442, 589.009556583529, 0.03740013714279525),
    ((-0.5, 2, 301, 2), 1.002889737701542, 1666.890750230186, 1666.890750230186, 0.02850288271010789),
    ((0.5, 3, 200, 3, 0.5), 1.1047884728510757, 21.790256835304344, 21.9986872137684, 0.2628949376669638),
    ((0.99, 4, 200, 4), 1.7398860457141252, 5.750217438383911, 6.277401888929371, 3.0683517665448594),
]


@pytest.mark.parametrize(("made", "rhat", "ess", "bulk", "error"), ARVIZ)
def test_the_numbers_are_those_of_arviz(made, rhat, ess, bulk, error):
    draws = autoregressive(*made)
    assert split_rhat(draws) == pytest.approx(rhat, rel=1e-12)
    assert effective_sample_size(draws) == pytest.approx(ess, rel=1e-10)
    assert effective_sample_size(draws, ranks=True) == pytest.approx(bulk, rel=1e-10)
    assert mean_error(draws) == pytest.approx(error, rel=1e-10)


@pytest.mark.parametrize("phi", [-0.3, 0.0, 0.5, 0.9])
def test_an_autoregressive_chain_has_its_known_sample_size(phi):
    draws = autoregressive(phi, 4, 20000, 7)
    assert effective_sample_size(draws) == pytest.approx(draws.size * (1 - phi) / (1 + phi), rel=0.1)


def test_rhat_sees_chains_of_other_values_and_of_other_widths():
    draws = autoregressive(0.0, 4, 1000, 0)
    assert split_rhat(draws) < 1.01
    assert split_rhat(draws + np.array([[0], [0], [0], [1]])) > 1.05
    assert split_rhat(draws * np.array([[1], [1], [1], [3]])) > 1.05
    assert split_rhat(np.linspace(0, 1, 100)) > 1.5  # one chain that drifts


def test_draws_without_a_spread_or_a_number():
    assert math.isnan(split_rhat(np.array([1.0, 2.0, math.nan, 3.0])))
    assert math.isnan(effective_sample_size(np.array([1.0, 2.0, math.inf, 3.0])))
    assert math.isnan(effective_sample_size(np.ones((2, 10))))
    assert split_rhat(np.ones((2, 10))) == 1
    assert split_rhat(np.array([[1.0] * 4, [2.0] * 4])) == math.inf
    assert math.isnan(split_rhat(np.arange(7.0)))  # too few of a single chain
    with pytest.raises(ValueError, match="at least 4 draws is needed"):
        split_rhat(np.ones((2, 3)))


def test_neither_the_unit_nor_the_origin_of_the_draws_counts():
    """The rise of a loss may be a millionth of the smallest number that ArviZ takes for a spread."""
    draws = autoregressive(0.5, 3, 200, 3)
    assert effective_sample_size(1e-21 * draws) == pytest.approx(effective_sample_size(draws), rel=1e-10)
    assert effective_sample_size(draws + 100) == pytest.approx(effective_sample_size(draws), rel=1e-8)
    assert split_rhat(1e-21 * draws) == pytest.approx(split_rhat(draws), rel=1e-12)
