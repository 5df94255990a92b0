from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from landscape import MeasurementError, Objective
from landscape.curvature import hessian, top_eigenpairs
from landscape.sharpness import average_case
from landscape.sharpness._noise import draw


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("adaptive", [True, False])
def test_direct_evaluation(cases, norm, adaptive):
    x, y = cases.data()
    model = cases.mlp().double()
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    weights = objective.vector()
    c = weights.abs() if adaptive else torch.ones_like(weights)
    base = nn.functional.cross_entropy(model(x.double()), y)
    rises = []
    for index in range(6):
        noise = draw(139, norm, 3, index).double()
        pair = []
        for sign in (1, -1):
            moved = copy.deepcopy(model)
            nn.utils.vector_to_parameters(weights + sign * 0.1 * c * noise, moved.parameters())
            pair.append(float((nn.functional.cross_entropy(moved(x.double()), y) - base).detach()))
        rises.append(np.mean(pair))
    measured = average_case(objective, 0.1, adaptive, norm, draws=12, seed=3)
    assert measured.value == pytest.approx(np.mean(rises), rel=1e-10)
    assert measured.stderr == pytest.approx(np.std(rises, ddof=1) / np.sqrt(6), rel=1e-8)
    assert (measured.n, measured.seed) == (6, 3)


@pytest.mark.parametrize(("norm", "deviation"), [("l2", 1.0), ("linf", 1 / np.sqrt(3))])
@pytest.mark.parametrize("adaptive", [True, False])
def test_perturbations_drawn_have_the_stated_deviation(tmp_path, norm, deviation, adaptive):
    # What is really added to the weights is caught in the loss, in files: a list would be restored with the rest.
    weights = torch.linspace(-2, 3, 20_000, dtype=torch.float64)

    def loss(w, _):
        torch.save((w - weights).detach().clone(), tmp_path / f"{len(list(tmp_path.iterdir())):03d}.pt")
        return 0.0 * w.sum()

    holder = nn.Module()
    holder.w = nn.Parameter(weights.clone())
    holder.forward = lambda x: holder.w
    objective = Objective(holder, loss, [(torch.zeros(1), torch.zeros(1))])
    average_case(objective, rho=0.3, adaptive=adaptive, norm=norm, draws=10, antithetic=False)
    seen = [torch.load(path) for path in sorted(tmp_path.iterdir())]
    drawn = torch.stack([delta for delta in seen if delta.any()])
    assert len(drawn) == 10
    units = drawn / (0.3 * weights.abs() if adaptive else 0.3)
    assert float(units.std()) == pytest.approx(deviation, rel=0.01)
    assert float(units.mean()) == pytest.approx(0, abs=0.01)
    assert float(units[0] @ units[1]) / len(weights) == pytest.approx(0, abs=0.03)
    if norm == "linf":
        assert float(units.abs().max()) <= 1 + 1e-12


def test_antithetic_pairs_cancel_the_linear_term(quadratic):
    matrix, center = torch.eye(5).double(), torch.arange(1.0, 6).double()
    steep = quadratic(matrix, center, gradient=1e3 * torch.ones(5).double())
    flat = quadratic(matrix, center)
    assert average_case(steep, 0.1).value == pytest.approx(average_case(flat, 0.1).value, rel=1e-6)


def test_the_standard_error_covers(quadratic):
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(8, 8, generator=generator, dtype=torch.float64)
    center = torch.randn(8, generator=generator, dtype=torch.float64)
    objective = quadratic(factor @ factor.T, center, torch.ones(8).double())
    exact = 0.5 * 0.2**2 * float((torch.diag(factor @ factor.T) * center**2).sum())
    inside = []
    for seed in range(100):
        measured = average_case(objective, 0.2, draws=40, seed=seed)
        inside.append(abs(measured.value - exact) <= 3 * measured.stderr)
    assert np.mean(inside) >= 0.95


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize(("norm", "variance"), [("l2", 1.0), ("linf", 1 / 3)])
def test_small_radius_identity_at_a_minimum(quadratic, adaptive, norm, variance):
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(60, 60, generator=generator, dtype=torch.float64)
    matrix, center = factor @ factor.T, 1 + torch.rand(60, generator=generator, dtype=torch.float64)
    c = center if adaptive else torch.ones(60).double()
    exact = 0.5 * variance * float((torch.diag(matrix) * c**2).sum())
    measured = average_case(quadratic(matrix, center), 1e-2, adaptive, norm, draws=2000)
    assert measured.stderr < 0.01 * measured.value
    assert measured.value / 1e-4 == pytest.approx(exact, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("adaptive", [True, False])
def test_small_radius_identity_at_a_minimum_of_a_network(minimum, adaptive):
    # One direction carries most of the trace, so that it takes many draws to get within 2 %.
    objective, matrix = minimum
    c = objective.vector().abs() if adaptive else torch.ones(139).double()
    exact = 0.5 * float((torch.diag(matrix) * c**2).sum())
    measured = average_case(objective, 1e-3, adaptive, draws=30_000)
    assert measured.stderr < 0.015 * measured.value
    assert measured.value / 1e-6 == pytest.approx(exact, rel=0.02)


def test_two_weights_under_rescaling(two_weights):
    for g, h, largest in ((3.0, 0.5, 9.25), (12.0, 0.125, 144.015625)):
        objective = two_weights(g, h)
        assert top_eigenpairs(hessian(objective), 1).values[0] == pytest.approx(largest, rel=1e-12)
        rho = 1e-3
        measured = average_case(objective, rho, draws=2_000)
        assert measured.value / rho**2 == pytest.approx(2.25, abs=4 * measured.stderr / rho**2)
        assert measured.stderr / rho**2 < 0.2
    first, second = (average_case(two_weights(*w), 0.3).value for w in ((3.0, 0.5), (12.0, 0.125)))
    assert second == pytest.approx(first, rel=1e-12)


def test_layer_rescaling_of_a_relu_network_changes_nothing(cases):
    x, y = cases.data()
    model = cases.mlp(nn.ReLU).double()
    with torch.no_grad():
        for index in (0, 2):
            model[index].bias.zero_()  # so that the layers are positively homogeneous
    rescaled = copy.deepcopy(model)
    with torch.no_grad():
        rescaled[0].weight.mul_(5)
        rescaled[2].weight.div_(5)
    before, after = (Objective(m, nn.CrossEntropyLoss(), [(x, y)]) for m in (model, rescaled))
    assert float(after.loss()) == pytest.approx(float(before.loss()), rel=1e-12)
    for norm in ("l2", "linf"):
        assert average_case(after, 0.2, norm=norm).value == pytest.approx(
            average_case(before, 0.2, norm=norm).value, rel=1e-6
        )
    assert average_case(after, 0.2, adaptive=False).value != pytest.approx(
        average_case(before, 0.2, adaptive=False).value, rel=0.1
    )


def test_pruned_network(cases):
    x, y = cases.data()
    model = cases.mlp()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_((torch.rand(parameter.shape) > 0.9).float())
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    zeros = objective.vector() == 0
    assert float(zeros.float().mean()) > 0.8
    for norm in ("l2", "linf"):
        assert np.isfinite(average_case(objective, 0.5, norm=norm).value)
    moved = objective.vector() + 0.5 * objective.vector().abs() * draw(139, "l2", 0, 0)
    assert not moved[zeros].any()


def test_same_seed_same_number(cases):
    objective = Objective(cases.mlp(), nn.CrossEntropyLoss(), [cases.data()])
    assert average_case(objective, seed=4) == average_case(objective, seed=4)
    assert average_case(objective, seed=4).value != average_case(objective, seed=5).value


def test_refusals(cases):
    x, y = cases.data()
    objective = Objective(cases.mlp(), nn.CrossEntropyLoss(), [(x, y)])
    with pytest.raises(ValueError, match="draws is 1"):
        average_case(objective, draws=1)
    with pytest.raises(ValueError, match="norm is 'l1'"):
        average_case(objective, norm="l1")
    with pytest.raises(MeasurementError, match="is nan"):
        average_case(Objective(cases.mlp(), nn.CrossEntropyLoss(), [(x * torch.nan, y)]))


def test_draws_have_the_moments_and_quantiles_of_their_law():
    normal = torch.cat([draw(50_000, "l2", 1, index) for index in range(8)]).double().numpy()
    assert stats.kstest(normal, "norm").pvalue > 0.01
    uniform = torch.cat([draw(50_000, "linf", 1, index) for index in range(8)]).double().numpy()
    assert stats.kstest(uniform, "uniform", (-1, 2)).pvalue > 0.01
    few = torch.cat([draw(3, "l2", 1, index) for index in range(20_000)]).double().numpy()
    assert stats.kstest(few, "norm").pvalue > 0.01
    for first, second in (((1, 0), (1, 1)), ((1, 0), (2, 0)), ((0, 1), (1, 0))):
        drawn = [draw(50_000, "l2", *one).double() for one in (first, second)]
        assert abs(float(drawn[0] @ drawn[1])) / 50_000 < 0.02
