from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from landscape import MeasurementError, Objective
from landscape.sharpness import worst_case


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_small_radius_identity_on_a_quadratic(quadratic, adaptive, seed):
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(20, 20, generator=generator, dtype=torch.float64)
    matrix = factor @ torch.diag(torch.exp(-torch.arange(20.0) / 2).double()) @ factor.T
    center = torch.randn(20, generator=generator, dtype=torch.float64)
    c = center.abs() if adaptive else torch.ones(20).double()
    largest = float(torch.linalg.eigvalsh(c[:, None] * matrix * c)[-1])
    measured = worst_case(quadratic(matrix, center), 0.1, adaptive).value
    assert measured == pytest.approx(0.5 * 0.01 * largest, rel=0.02)
    assert measured <= 0.5 * 0.01 * largest * (1 + 1e-12)


@pytest.mark.parametrize("adaptive", [True, False])
def test_small_radius_identity_at_a_minimum_of_a_network(minimum, adaptive):
    objective, matrix = minimum
    c = objective.vector().abs() if adaptive else torch.ones(objective.n_parameters).double()
    largest = float(torch.linalg.eigvalsh(c[:, None] * matrix * c)[-1])
    rho = 1e-3
    assert worst_case(objective, rho, adaptive).value / rho**2 == pytest.approx(0.5 * largest, rel=0.02)


def test_near_a_minimum(quadratic):
    # The gradient is small and points elsewhere; the worst direction is still the top eigenvector.
    matrix = torch.diag(torch.tensor([10.0, 1.0, 0.1]).double())
    objective = quadratic(matrix, torch.ones(3).double(), torch.tensor([1e-9, 1e-6, 1e-6]).double())
    assert worst_case(objective, 0.1, adaptive=False).value == pytest.approx(0.5 * 0.01 * 10, rel=0.02)


def test_linear_loss_in_closed_form(quadratic):
    center, gradient = torch.tensor([1.0, -2.0, 0.0]).double(), torch.tensor([3.0, 1.0, 5.0]).double()
    objective = quadratic(torch.zeros(3, 3).double(), center, gradient)
    c = center.abs()
    assert worst_case(objective, 0.1).value == pytest.approx(
        0.1 * float(torch.linalg.vector_norm(c * gradient)), rel=1e-6
    )
    assert worst_case(objective, 0.1, norm="linf").value == pytest.approx(
        0.1 * float((c * gradient).abs().sum()), rel=1e-6
    )
    assert worst_case(objective, 0.1, adaptive=False).value == pytest.approx(0.1 * float(gradient.norm()), rel=1e-6)


def test_two_weights_under_rescaling(two_weights):
    first, second = (worst_case(two_weights(*w), 0.2).value for w in ((3.0, 0.5), (12.0, 0.125)))
    assert second == pytest.approx(first, rel=1e-9)
    # CHC has the eigenvalue 2 G²H² = 4.5.
    assert worst_case(two_weights(3.0, 0.5), 1e-3).value == pytest.approx(0.5e-6 * 4.5, rel=0.02)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_layer_rescaling_of_a_relu_network_changes_nothing(cases, norm):
    x, y = cases.data()
    model = cases.mlp(nn.ReLU).double()
    with torch.no_grad():
        for index in (0, 2):
            model[index].bias.zero_()
    rescaled = copy.deepcopy(model)
    with torch.no_grad():
        rescaled[0].weight.mul_(5)
        rescaled[2].weight.div_(5)
    before, after = (Objective(m, nn.CrossEntropyLoss(), [(x, y)]) for m in (model, rescaled))
    rho = 0.5 if norm == "l2" else 0.01
    assert worst_case(after, rho, norm=norm).value == pytest.approx(worst_case(before, rho, norm=norm).value, rel=1e-4)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_network_of_zeros_stays_in_its_ball(cases, norm):
    x, y = cases.data()
    model = cases.mlp()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_((torch.rand(parameter.shape) > 0.9).float())
    weights = nn.utils.parameters_to_vector(model.parameters()).detach()
    assert float((weights == 0).float().mean()) > 0.8
    visited = []

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, x):
            visited.append(torch.cat([p.detach().reshape(-1) for p in self.net.parameters()]))
            return self.net(x)

    rho = 0.5
    objective = Objective(Watched(), nn.CrossEntropyLoss(), [(x, y)])
    objective.derivatives.gradient(objective)
    visited.clear()  # the first look at an objective and at its derivatives visits other weights
    measured = worst_case(objective, rho, norm=norm)
    assert np.isfinite(measured.value)
    assert measured.value >= 0
    deltas = torch.stack(visited) - weights
    assert deltas.any()
    assert not deltas[:, weights == 0].any()
    ratios = (deltas[:, weights != 0] / weights[weights != 0].abs()).double()
    lengths = torch.linalg.vector_norm(ratios, ord=2 if norm == "l2" else torch.inf, dim=1)
    assert float(lengths.max()) <= rho * (1 + 1e-5)


def test_it_is_at_least_what_random_search_finds(cases):
    x, y = cases.data()
    objective = Objective(cases.mlp().double(), nn.CrossEntropyLoss(), [(x, y)])
    weights, base = objective.vector(), float(objective.loss())
    measured = worst_case(objective, 0.5).value
    with objective.session():
        for seed in range(50):
            ratio = torch.randn(139, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            delta = 0.5 * weights.abs() * ratio / ratio.norm()
            assert float(objective.loss(weights + delta)) - base <= measured


def test_groups_have_a_mean_and_its_error(cases):
    x, y = cases.data(40)
    model = cases.mlp().double()
    objective = Objective(model, nn.CrossEntropyLoss(), [(x[:30], y[:30]), (x[30:], y[30:])])
    parts = [
        worst_case(Objective(model, nn.CrossEntropyLoss(), [(x[a:b], y[a:b])]), 0.3).value
        for a, b in ((0, 10), (10, 20), (20, 30), (30, 40))
    ]
    grouped = worst_case(objective, 0.3, group=10)
    assert grouped.value == pytest.approx(np.mean(parts), rel=1e-9)
    assert grouped.stderr == 0
    assert grouped.stderr_sample == pytest.approx(3.182446 / 1.959964 * np.std(parts, ddof=1) / 2, rel=1e-6)
    assert grouped.n == 4
    assert grouped.value > worst_case(objective, 0.3).value


def test_an_unbounded_rise_is_said_as_it_is(quadratic):
    def loss(w, _):
        return torch.exp(1e4 * w.sum())

    holder = nn.Module()
    holder.w = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    holder.forward = lambda x: holder.w
    objective = Objective(holder, loss, [(torch.zeros(1), torch.zeros(1))])
    assert worst_case(objective, 1.0, adaptive=False).value == np.inf


def test_refusals(cases):
    x, y = cases.data()
    objective = Objective(cases.mlp(), nn.CrossEntropyLoss(), [(x, y)])
    with pytest.raises(ValueError, match="steps is 0"):
        worst_case(objective, steps=0)
    with pytest.raises(MeasurementError, match="is nan"):
        worst_case(Objective(cases.mlp(), nn.CrossEntropyLoss(), [(x * torch.nan, y)]))
