from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from landscape import MeasurementError, Objective
from landscape.sharpness import keskar

CENTER = torch.tensor([1.0, -2.0, 0.0, 0.5]).double()


@pytest.mark.parametrize("width", [1e-3, 5e-4, 0.2])
def test_a_linear_loss_in_closed_form(quadratic, width):
    gradient = torch.tensor([3.0, -1.0, 5.0, 1e-3]).double()
    measured = keskar(quadratic(torch.zeros(4, 4).double(), CENTER, gradient), width)
    corner = width * float((gradient.abs() * (CENTER.abs() + 1)).sum())
    assert measured.value == pytest.approx(100 * corner, rel=1e-9)  # the loss at the centre is 0
    assert (measured.stderr, measured.n) == (0, 1)


def test_a_box_that_does_not_grow_with_the_weights(quadratic):
    gradient = torch.tensor([3.0, -1.0, 5.0, 1e-3]).double()
    measured = keskar(quadratic(torch.zeros(4, 4).double(), CENTER, gradient), 1e-3, adaptive=False)
    assert measured.value == pytest.approx(100 * 1e-3 * float(gradient.abs().sum()), rel=1e-9)


def test_a_separable_minimum_in_closed_form(quadratic):
    # The gradient vanishes exactly, where L-BFGS-B would not move.
    curvature = torch.tensor([3.0, 1.0, 0.2, 5.0]).double()
    measured = keskar(quadratic(torch.diag(curvature), CENTER), 1e-2)
    corner = 0.5 * 1e-4 * float((curvature * (CENTER.abs() + 1) ** 2).sum())
    assert measured.value == pytest.approx(100 * corner, rel=1e-9)


def test_the_loss_itself_scales_it(cases):
    x, y = cases.data()
    model = cases.mlp().double()
    losses = (nn.CrossEntropyLoss(), lambda scores, target: nn.functional.cross_entropy(scores, target) + 1.0)
    low, high = (Objective(model, loss, [(x, y)]) for loss in losses)
    ratio = (2 + float(low.loss())) / (1 + float(low.loss()))
    assert keskar(low).value / keskar(high).value == pytest.approx(ratio, rel=1e-6)


def test_a_random_subspace_of_a_linear_loss_in_closed_form(quadratic):
    gradient = torch.tensor([3.0, -1.0, 5.0, 0.1]).double()
    measured = keskar(quadratic(torch.zeros(4, 4).double(), CENTER, gradient), 1e-3, subspace=2, draws=3, seed=7)
    exact = []
    for index in range(3):
        basis = np.random.default_rng((7, index)).standard_normal((4, 2))
        half = 1e-3 * (np.abs(np.linalg.pinv(basis) @ CENTER.numpy()) + 1)
        exact.append(100 * float(np.abs(basis.T @ gradient.numpy()) @ half))
    assert measured.value == pytest.approx(np.mean(exact), rel=1e-9)
    assert measured.stderr == pytest.approx(np.std(exact, ddof=1) / np.sqrt(3), rel=1e-6)
    assert (measured.n, measured.seed) == (3, 7)


@pytest.mark.parametrize("subspace", [None, 5])
def test_it_stays_in_the_box_and_beats_random_corners(cases, watched, subspace):
    x, y = cases.data()
    model, visited = watched(cases.mlp(nn.ReLU).double())
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    width, weights, base = 0.01, objective.vector(), float(objective.loss())
    measured = keskar(objective, width, subspace=subspace, draws=1)
    deltas = torch.stack(visited) - weights
    assert deltas.any()
    basis = torch.eye(139).double()
    if subspace:
        basis = torch.from_numpy(np.random.default_rng((0, 0)).standard_normal((139, subspace)))
    inverse = torch.linalg.pinv(basis)
    half = width * ((inverse @ weights).abs() + 1)
    assert float(((deltas @ inverse.T).abs() / half).max()) <= 1 + 1e-9
    with objective.session():
        for seed in range(50):
            signs = torch.randint(0, 2, (len(half),), generator=torch.Generator().manual_seed(seed)) * 2.0 - 1
            rise = float(objective.loss(weights + basis @ (signs * half))) - base
            assert 100 * rise / (1 + base) <= measured.value


def test_more_iterations_do_not_find_less(cases):
    objective = Objective(cases.mlp().double(), nn.CrossEntropyLoss(), [cases.data()])
    found = [keskar(objective, 0.05, iterations=count).value for count in (1, 3, 10)]
    assert 0 < found[0] <= found[1] <= found[2]


def test_refusals(cases, quadratic):
    x, y = cases.data()
    objective = Objective(cases.mlp(), nn.CrossEntropyLoss(), [(x, y)])
    with pytest.raises(ValueError, match="subspace is 140; its dimension lies between 1 and 139"):
        keskar(objective, subspace=140)
    with pytest.raises(ValueError, match="iterations 0"):
        keskar(objective, iterations=0)
    with pytest.raises(ValueError, match="defined in a box, so its norm must be 'linf'"):
        keskar(objective, norm="l2")
    negative = Objective(cases.mlp(), lambda s, t: nn.functional.cross_entropy(s, t) - 5, [(x, y)])
    with pytest.raises(MeasurementError, match=r"divides by 1 \+ loss"):
        keskar(negative)
