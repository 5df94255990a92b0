"""Critical sharpness against closed forms on quadratics, and a dense line search on a network."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from landscape import MeasurementError, Objective
from landscape.sharpness import critical_sharpness

RATE = 0.05


def curved(seed=0, size=12):
    """A positive matrix, a gradient, and weights, in float64."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
    matrix = basis @ torch.diag(torch.logspace(-2, 1, size, dtype=torch.float64)) @ basis.T
    return matrix, *torch.randn(2, size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(4))
def test_a_gradient_step_on_a_quadratic_has_the_rayleigh_quotient_of_the_gradient(quadratic, seed):
    matrix, gradient, weights = curved(seed)
    found = critical_sharpness(quadratic(matrix, weights, gradient), -RATE * gradient, RATE)
    exact = float(gradient @ matrix @ gradient / (gradient @ gradient))
    assert found.value == pytest.approx(exact, rel=1e-9)
    assert found.lower <= found.value <= found.upper <= 1.05 * found.lower
    assert found.critical_rate == pytest.approx(2 / exact, rel=1e-9)
    assert found.converged


@pytest.mark.parametrize("factor", [1 / 50, 1 / 3, 1.0, 1.3, 4.0, 60.0])
@pytest.mark.parametrize("known", [False, True])
def test_seven_evaluations_suffice_from_any_start_on_a_quadratic(quadratic, factor, known):
    matrix, gradient, weights = curved()
    exact = float(gradient @ matrix @ gradient / (gradient @ gradient))
    slope = -RATE * float(gradient @ gradient) if known else None
    objective = quadratic(matrix, weights, gradient)
    found = critical_sharpness(objective, -RATE * gradient, RATE, start=factor * 2 / exact, slope=slope)
    assert found.value == pytest.approx(exact, rel=1e-9)
    assert found.n_evaluations <= 7 if 1 / 8 <= factor <= 8 or known else found.converged


def test_coupled_weight_decay_is_part_of_what_the_step_descends(quadratic):
    matrix, gradient, weights = curved()
    objective, decay = quadratic(matrix, weights, gradient), 0.3
    update = -RATE * (gradient + decay * weights)
    whole = matrix + decay * torch.eye(len(matrix), dtype=matrix.dtype)
    exact = -float(update @ whole @ update) / (RATE * float(update @ (gradient + decay * weights)))
    assert critical_sharpness(objective, update, RATE, weight_decay=decay).value == pytest.approx(exact, rel=1e-9)
    named = critical_sharpness(objective, update, RATE, weight_decay={"w": decay})
    assert named.value == pytest.approx(exact, rel=1e-9)


@pytest.fixture(scope="module")
def network(cases):
    x, y = cases.data(60)
    model = cases.trained(cases.mlp(), nn.CrossEntropyLoss(), [(x, y)], steps=25)
    return Objective(model, nn.CrossEntropyLoss(), [(x[:20], y[:20]), (x[20:], y[20:])])


@pytest.mark.parametrize("direction", ["gradient", "sign", "noisy"])
def test_a_network_agrees_with_a_dense_line_search(network, direction):
    gradient, weights = network.gradient(), network.vector()
    noise = torch.randn(len(weights), generator=torch.Generator().manual_seed(1), dtype=gradient.dtype)
    size = torch.linalg.vector_norm(gradient) / math.sqrt(len(gradient))
    update = -RATE * {"gradient": gradient, "sign": gradient.sign(), "noisy": gradient + 0.3 * size * noise}[direction]
    start = float(network.loss(weights))

    def first_rise(rates):
        with network.session():
            losses = (float(network.loss(weights + rate / RATE * update)) for rate in rates)
            return next(i for i, loss in enumerate(losses) if loss > start)

    rates = RATE * np.geomspace(0.1, 1000, 200)
    rise = first_rise(rates)
    assert rise > 0
    rates = np.linspace(rates[rise - 1], rates[rise], 20)
    exact = 2 / rates[first_rise(rates)]
    first = critical_sharpness(network, update, RATE)
    again = critical_sharpness(network, update, RATE, start=1.4 * first.critical_rate)
    assert again.n_evaluations <= 7
    for found in (first, again):
        assert found.value == pytest.approx(exact, rel=0.007)
        assert found.converged


def test_an_update_that_climbs_is_infinitely_sharp_where_the_slope_says_so(quadratic):
    matrix, gradient, weights = curved()
    objective = quadratic(matrix, weights, gradient)
    found = critical_sharpness(objective, gradient, slope=float(gradient @ gradient))
    assert found.value == math.inf
    assert found.n_evaluations == 0
    blind = critical_sharpness(objective, gradient)
    assert math.isnan(blind.value)
    assert blind.upper == math.inf
    assert not blind.converged


def test_a_loss_that_never_rises_has_no_critical_rate(quadratic):
    matrix, gradient, weights = curved()
    found = critical_sharpness(quadratic(torch.zeros_like(matrix), weights, gradient), -gradient)
    assert math.isnan(found.value)
    assert found.lower == 0 < found.upper
    assert not found.converged


def test_a_loss_that_overflows_counts_as_a_rise():
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 1.0)
    x = torch.ones(1, 1, dtype=torch.float64)

    def loss(out, _):  # (w − 3)², and no number above 4
        return torch.where(out > 4, torch.inf, (out - 3) ** 2).sum()

    objective = Objective(model, loss, [(x, x)])
    found = critical_sharpness(objective, torch.ones(1, dtype=torch.float64), tol=0.01)
    assert found.critical_rate == pytest.approx(3, rel=0.01)  # w = 4


def test_rounding_is_not_taken_for_convergence(quadratic):
    matrix, gradient, weights = curved()
    objective = quadratic(matrix, weights, 1e-12 * gradient)
    lifted = Objective(objective.module, lambda w, _: (w - weights) @ (w - weights) * 1e-20 + 1, objective.batches)
    found = critical_sharpness(lifted.to(torch.float32), -1e-6 * gradient)
    assert not found.converged


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"start": -1.0}, "a positive start"),
        ({"tol": 1.5}, "tolerance between 0 and 1"),
        ({"max_evaluations": 2}, "at least 3 evaluations"),
    ],
)
def test_arguments(quadratic, arguments, message):
    matrix, gradient, weights = curved()
    with pytest.raises(ValueError, match=message):
        critical_sharpness(quadratic(matrix, weights, gradient), -gradient, **arguments)


def test_steps_that_mean_nothing(quadratic):
    matrix, gradient, weights = curved()
    objective = quadratic(matrix, weights, gradient)
    with pytest.raises(MeasurementError, match="did not move the weights"):
        critical_sharpness(objective, torch.zeros_like(gradient))
    with pytest.raises(MeasurementError, match="update is not finite"):
        critical_sharpness(objective, gradient * math.nan)
    with pytest.raises(ValueError, match="one number for each of the 12 parameters"):
        critical_sharpness(objective, gradient[:5])
