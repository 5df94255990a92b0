from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from landscape import MeasurementError, Objective
from landscape.sharpness import sam


@pytest.mark.parametrize("rho", [0.01, 0.05, 0.5])
@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
def test_direct_evaluation(cases, rho, activation):
    x, y = cases.data()
    model = cases.mlp(activation).double()
    moved = copy.deepcopy(model)
    loss = nn.functional.cross_entropy(moved(x.double()), y)
    loss.backward()
    length = torch.sqrt(sum((p.grad**2).sum() for p in moved.parameters()))
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter += rho * parameter.grad / length
        after = nn.functional.cross_entropy(moved(x.double()), y)
    measured = sam(Objective(model, nn.CrossEntropyLoss(), [(x[:30], y[:30]), (x[30:], y[30:])]), rho)
    assert measured.value == pytest.approx(float(after) - float(loss.detach()), rel=1e-10)
    assert (measured.stderr, measured.seed) == (0, None)


def test_quadratic_in_closed_form(quadratic):
    matrix, gradient = torch.diag(torch.tensor([1.0, 4.0]).double()), torch.tensor([3.0, 4.0]).double()
    measured = sam(quadratic(matrix, torch.ones(2).double(), gradient), rho=0.1)
    assert measured.value == pytest.approx(0.1 * 5 + 0.5 * 0.01 * (0.36 + 4 * 0.64), rel=1e-12)


def test_zero_gradient_gives_zero(quadratic):
    assert sam(quadratic(torch.eye(2).double(), torch.ones(2).double())).value == 0


def test_tiny_gradients_still_give_a_step(cases):
    x, y = cases.data()
    cross = nn.CrossEntropyLoss()
    whole, scaled = (
        sam(Objective(cases.mlp().double(), lambda s, t, f=f: f * cross(s, t), [(x, y)])).value for f in (1.0, 1e-6)
    )
    assert scaled == pytest.approx(1e-6 * whole, rel=1e-8)


def test_refusals(cases):
    x, y = cases.data()
    with pytest.raises(
        MeasurementError, match="the loss on the measured examples is nan.*check them, the learning rate"
    ):
        sam(Objective(cases.mlp(), nn.CrossEntropyLoss(), [(x * torch.nan, y)]))
    with pytest.raises(ValueError, match="rho is -1"):
        sam(Objective(cases.mlp(), nn.CrossEntropyLoss(), [(x, y)]), rho=-1)
