from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import ndtr
from torch import nn

from landscape import MeasurementError, Objective
from landscape.sharpness import average_case, pac_bayes
from landscape.sharpness._noise import draw
from landscape.sharpness._pac_bayes import _Noisy


class Line(nn.Module):
    """Scores of a linear classifier without bias."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(weights.clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.w


def line(weights, x, flipped=()):
    """Objective of a linear classifier, right on all examples but the flipped ones."""
    target = (x @ weights > 0).double()
    for index in flipped:
        target[index] = 1 - target[index]
    return Objective(Line(weights), nn.BCEWithLogitsLoss(), [(x, target)])


@pytest.mark.parametrize("aware", [False, True])
@pytest.mark.parametrize("drop", [0.05, 0.1, 0.2])
def test_a_linear_classifier_in_closed_form(aware, drop):
    # Under noise of covariance Σ an example is wrong with probability Φ(−|w·x| / √(xᵀΣx)).
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(5, generator=generator, dtype=torch.float64) + 1
    x = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    epsilon = 1e-3

    def mean_drop(sigma):
        variance = (sigma * weights) ** 2 + epsilon**2 if aware else torch.full((5,), sigma**2).double()
        return float(ndtr(-((x @ weights).abs() / torch.sqrt(x**2 @ variance)).numpy()).mean()) - drop

    exact = brentq(mean_drop, 1e-3, 1e3)
    measured = pac_bayes(line(weights, x), drop, aware, draws=80, seed=2)
    assert measured.value == pytest.approx(measured.sigma**-2)
    assert measured.value == pytest.approx(exact**-2, abs=3 * measured.stderr)
    assert measured.stderr < 0.4 * measured.value
    assert (measured.n, measured.seed) == (80, 2)


def test_the_standard_error_is_the_spread_over_seeds():
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(5, generator=generator, dtype=torch.float64) + 1
    objective = line(weights, torch.randn(200, 5, generator=generator, dtype=torch.float64))
    runs = [pac_bayes(objective, draws=16, tol=0.1, seed=seed) for seed in range(25)]
    spread = np.std([run.value for run in runs], ddof=1)
    assert 0.7 < np.mean([run.stderr for run in runs]) / spread < 1.4


@pytest.mark.parametrize("aware", [False, True])
def test_the_noise_drawn_has_the_stated_deviation(watched, aware):
    weights = torch.linspace(-2, 3, 20_000, dtype=torch.float64)
    model, visited = watched(Line(weights))
    x = torch.ones(1, 20_000, dtype=torch.float64)
    noisy = _Noisy(Objective(model, nn.BCEWithLogitsLoss(), [(x, torch.ones(1))]), aware, 0.1, draws=4, seed=0)
    visited.clear()
    noisy.drops(0.3)
    stated = torch.sqrt((0.3 * weights) ** 2 + 0.01) if aware else 0.3  # not its square
    units = (torch.stack(visited) - weights) / stated
    assert units.shape == (4, 20_000)
    assert float(units.std()) == pytest.approx(1, rel=0.01)
    assert float(units.mean()) == pytest.approx(0, abs=0.01)
    assert float(units[0] @ units[1]) / 20_000 == pytest.approx(0, abs=0.03)


def test_wrong_examples_count_from_where_they_are():
    weights, x = torch.tensor([2.0]).double(), torch.ones(10, 1).double()
    # 9 of 10 right with one margin: noise z turns all ten where z < −2/σ, and the error rises by .8.
    measured = pac_bayes(line(weights, x, flipped=[0]), 0.1, draws=120, tol=1e-3)
    noise = sorted(float(draw(1, "l2", 0, index)) for index in range(120))
    # An eighth of the draws must turn: the fifteenth does not cross the drop yet, the sixteenth does.
    assert -2 / noise[15] == pytest.approx(-2 / noise[14], rel=0.1)
    assert -2 / noise[14] * 0.998 <= measured.sigma <= -2 / noise[15] * 1.002


def test_scaling_the_loss_changes_nothing(cases):
    batches = [cases.data(100)]
    model = cases.trained(cases.mlp(), nn.CrossEntropyLoss(), batches, steps=100)
    cross = nn.CrossEntropyLoss()
    first, second = (Objective(model, lambda s, t, f=f: f * cross(s, t), batches) for f in (1.0, 7.0))
    assert pac_bayes(first).value == pac_bayes(second).value
    assert average_case(first).value != average_case(second).value


def test_where_no_noise_costs_that_much_there_is_no_number():
    measured = pac_bayes(line(torch.ones(1).double(), torch.ones(4, 1).double()), drop=0.9)
    assert math.isnan(measured.value)
    assert math.isnan(measured.stderr)
    assert measured.sigma == math.inf


def test_where_the_least_noise_costs_too_much_there_is_none_either():
    x = torch.ones(4, 1, dtype=torch.float64)
    measured = pac_bayes(line(torch.full((1,), 1e-3).double(), x), 0.1, magnitude_aware=True, epsilon=1.0)
    assert measured.sigma == 0
    assert math.isnan(measured.value)


def test_refusals(cases):
    x, y = cases.data()
    with pytest.raises(MeasurementError, match="the loss knows no classes.*use average_case"):
        pac_bayes(Objective(cases.mlp(), nn.MSELoss(), [(x, torch.zeros(40, 3))]))
    objective = Objective(cases.mlp(), nn.CrossEntropyLoss(), [(x, y)])
    for settings, words in (
        ({"draws": 1}, "draws is 1"),
        ({"epsilon": -1}, "epsilon is -1"),
        ({"tol": 1}, "tol is 1"),
        ({"drop": 0}, "drop is 0"),
    ):
        with pytest.raises(ValueError, match=words):
            pac_bayes(objective, **settings)
