"""Directional sharpness on quadratics and against a dense Hessian."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from landscape import MeasurementError, Objective
from landscape.curvature import hessian
from landscape.sharpness import directional_sharpness

RATE = 0.1


@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_both_numbers_on_a_quadratic(quadratic, decay):
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(9, 9, generator=generator, dtype=torch.float64)
    matrix, (gradient, weights, update) = (
        root @ root.T,
        torch.randn(3, 9, generator=generator, dtype=torch.float64),
    )
    found = directional_sharpness(quadratic(matrix, weights, gradient), update, RATE, weight_decay=decay)
    curvature = float(update @ matrix @ update) + decay * float(update @ update)
    slope = float(update @ (gradient + decay * weights))
    assert found.value == pytest.approx(curvature / float(update @ update), rel=1e-12)
    assert found.slope == pytest.approx(slope, rel=1e-12)
    assert found.critical == pytest.approx(-curvature / (RATE * slope), rel=1e-12)


def test_a_network_agrees_with_its_dense_hessian_at_one_product(cases):
    x, y = cases.data(40)
    model = cases.mlp().double()
    loss_fn = nn.CrossEntropyLoss()
    objective = Objective(model, loss_fn, [(x[:10], y[:10]), (x[10:], y[10:])])
    matrix = cases.dense_hessian(model, lambda: loss_fn(model(x.double()), y))
    gradient = objective.gradient()
    operator = hessian(objective)
    found = directional_sharpness(objective, -RATE * gradient.sign(), RATE, operator, gradient)
    sign = gradient.sign()
    assert operator.n_matvecs == 1
    torch.testing.assert_close(found.product, -RATE * matrix @ sign)
    assert found.value == pytest.approx(float(sign @ matrix @ sign / (sign @ sign)), rel=1e-10)
    assert found.critical == pytest.approx(float(sign @ matrix @ sign / (sign @ gradient)), rel=1e-10)
    assert float(torch.linalg.eigvalsh(matrix)[0]) <= found.value <= float(torch.linalg.eigvalsh(matrix)[-1])


def test_a_step_along_a_level_has_no_ratio(quadratic):
    matrix, weights = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    found = directional_sharpness(quadratic(matrix, weights), torch.ones(3, dtype=torch.float64))
    assert found.value == pytest.approx(1.0)
    assert math.isnan(found.critical)


def test_a_step_of_nothing_is_refused(quadratic):
    matrix, weights = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    with pytest.raises(MeasurementError, match="gradient scalers skip a step"):
        directional_sharpness(quadratic(matrix, weights), torch.zeros(3, dtype=torch.float64))
