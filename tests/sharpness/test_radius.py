from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.sharpness import random_radius
from landscape.sharpness._noise import draw


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("threshold", [1e-8, 0.1, 1e4])
def test_a_quadratic_in_closed_form(quadratic, adaptive, threshold):
    matrix = torch.diag(torch.tensor([5.0, 1.0, 0.2, 3.0]).double())
    center = torch.tensor([1.0, -2.0, 0.0, 0.5]).double()
    c = center.abs() if adaptive else torch.ones(4).double()
    radii = []
    for index in range(6):
        unit = draw(4, "l2", 3, index).double()
        ray = c * unit / unit.norm()
        radii.append(math.sqrt(2 * threshold / float(ray @ matrix @ ray)))
    measured = random_radius(quadratic(matrix, center), threshold, adaptive, draws=6, tol=1e-6, seed=3)
    assert measured.value == pytest.approx(np.mean(radii), rel=1e-5)
    assert measured.stderr == pytest.approx(np.std(radii, ddof=1) / math.sqrt(6), rel=1e-4)
    assert (measured.n, measured.seed) == (6, 3)


def test_the_loss_at_the_radius_is_the_threshold(cases):
    objective = Objective(cases.mlp().double(), nn.CrossEntropyLoss(), [cases.data()])
    radius = random_radius(objective, 0.2, draws=1, tol=1e-8, seed=1).value
    unit = draw(139, "l2", 1, 0).double()
    weights = objective.vector()
    moved = weights + radius * weights.abs() * unit / unit.norm()
    assert float(objective.loss(moved) - objective.loss()) == pytest.approx(0.2, rel=1e-5)


def test_a_loss_that_never_rises_so_far(cases):
    x, y = cases.data()
    bounded = Objective(cases.mlp(), lambda s, t: torch.sigmoid(nn.functional.cross_entropy(s, t)), [(x, y)])
    measured = random_radius(bounded, threshold=2.0, draws=3)
    assert measured.value == math.inf
    assert math.isnan(measured.stderr)


def test_weights_of_zero_have_nowhere_to_go(quadratic):
    assert random_radius(quadratic(torch.eye(3).double(), torch.zeros(3).double())).value == math.inf


def test_refusals(cases):
    objective = Objective(cases.mlp(), nn.CrossEntropyLoss(), [cases.data()])
    for settings, words in (
        ({"draws": 0}, "draws is 0"),
        ({"tol": 2}, "tol is 2"),
        ({"threshold": -1}, "threshold is"),
    ):
        with pytest.raises(ValueError, match=words):
            random_radius(objective, **settings)
