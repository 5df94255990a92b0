from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from landscape import MeasurementError, Objective
from landscape._layout import ParameterLayout
from landscape.connectivity import SimplicialComplex, fit_simplexes
from landscape.connectivity._simplex import _volume_gradient, log_volume, simplex_loss

DOUBLE = {"dtype": torch.float64}
LOSS = nn.CrossEntropyLoss()


def problem() -> Objective:
    torch.manual_seed(0)
    x = torch.randn(64, 3, **DOUBLE)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    return Objective(model, LOSS, [(x[:40], (x[:40, 0] > 0).long()), (x[40:], (x[40:, 0] > 0).long())])


def solutions(objective: Objective, n: int = 3) -> list[torch.Tensor]:
    """Points of low loss, by full-batch Adam from different starts."""
    found = []
    for seed in range(n):
        generator = torch.Generator().manual_seed(seed)
        point = torch.randn(objective.n_parameters, generator=generator, **DOUBLE)
        adam = torch.optim.Adam([point], lr=0.05)
        for _ in range(60):
            point.grad = objective.gradient(point)
            adam.step()
        found.append(point.detach())
    return found


def test_volumes_by_formula():
    square = [torch.tensor(p, **DOUBLE) for p in ((0.0, 0, 0), (2.0, 0, 0), (0.0, 3, 0), (0.0, 0, 4))]
    assert float(log_volume(square[:2])) == pytest.approx(math.log(2), rel=1e-12)
    assert float(log_volume(square[:3])) == pytest.approx(math.log(3), rel=1e-12)
    assert float(log_volume(square)) == pytest.approx(math.log(4), rel=1e-12)
    layout = ParameterLayout(("w",), ((3,),))
    both = SimplicialComplex((square[1], square[2]), (square[0],), layout)
    assert both.volume == pytest.approx(5, rel=1e-12)
    assert both.log_volume == pytest.approx(math.log(5), rel=1e-12)


def test_points_are_uniform_in_the_simplexes():
    layout = ParameterLayout(("w",), ((2,),))
    ends = (torch.tensor([3.0, 0.0]), torch.tensor([0.0, 1.0]))
    complex_ = SimplicialComplex(ends, (torch.zeros(2),), layout)
    drawn = torch.stack(list(itertools.islice(complex_.sample(0), 4000))).numpy()
    along = drawn[:, 0] > 0
    # Two segments of lengths 3 and 1: three quarters of the points lie on the first, uniformly.
    assert along.mean() == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / 4000))
    assert drawn[along, 0].mean() == pytest.approx(1.5, abs=4 * math.sqrt(9 / 12 / 3000))
    assert drawn[along, 0].var() == pytest.approx(9 / 12, rel=0.1)
    assert (drawn >= 0).all()


def test_loss_and_gradient_equal_a_dense_re_evaluation():
    objective = problem()
    generator = torch.Generator().manual_seed(3)
    vertices = list(torch.randn(4, objective.n_parameters, generator=generator, **DOUBLE))
    coordinates = np.array([0.1, 0.2, 0.3, 0.4])
    with objective.session():
        loss, gradient = simplex_loss(objective, 1, vertices, coordinates)
    vertices[-1].requires_grad_(True)
    w = objective.layout.named(sum(c * vertex for c, vertex in zip(coordinates, vertices, strict=True)))
    x, y = objective.batches[1]
    expected = LOSS(torch.func.functional_call(objective.module, w, (x,)), y)
    expected.backward()
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-14)
    torch.testing.assert_close(gradient, vertices[-1].grad, rtol=1e-12, atol=1e-15)


def test_the_gradient_of_the_volume_by_differences():
    ends, others = tuple(torch.randn(2, 6, **DOUBLE)), tuple(torch.randn(1, 6, **DOUBLE))
    point = torch.randn(6, **DOUBLE)

    def total(at):
        return SimplicialComplex(ends, (*others, at), ParameterLayout(("w",), ((6,),))).log_volume

    found = _volume_gradient(ends, others, point)
    step = 1e-6 * torch.eye(6, **DOUBLE)
    expected = [(total(point + each) - total(point - each)) / 2e-6 for each in step]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_three_solutions_are_joined_and_stay_where_they_are():
    objective = problem()
    ends = solutions(objective)
    complex_ = fit_simplexes(objective, ends, connectors=2, steps=150, learning_rate=0.05, progress=False)
    for end, pinned in zip(ends, complex_.ends, strict=True):
        assert torch.equal(end, pinned)
    middle = objective.loss(torch.stack(ends).mean(0))
    mean = complex_.loss(samples=20)
    assert mean.value + 3 * mean.stderr < float(middle)
    for first, second in ((0, 1), (1, 2), (0, 2)):
        path = complex_.path(first, second)
        assert torch.equal(path.point(0), ends[first])
        assert torch.equal(path.point(0.5), complex_.connectors[0])
        assert torch.equal(path.point(1), ends[second])
        straight = float(objective.loss((ends[first] + ends[second]) / 2))
        assert path.evaluate().loss.max() < max(straight, path.evaluate(t=[0.0, 1.0]).loss.max() * 1.5)
    again = fit_simplexes(objective, ends, connectors=2, steps=150, learning_rate=0.05, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(complex_.connectors, again.connectors, strict=True))


def test_more_weight_on_the_volume_gives_more_volume():
    objective = problem()
    ends = solutions(objective, 2)
    small, large = (
        fit_simplexes(objective, ends, 2, 60, 0.05, regularisation=weight, progress=False) for weight in (0.0, 0.1)
    )
    assert large.log_volume > small.log_volume


def test_what_means_nothing_is_refused():
    objective = problem()
    ends = solutions(objective, 2)
    with pytest.raises(ValueError, match="at least two solutions"):
        fit_simplexes(objective, ends[:1])
    with pytest.raises(ValueError, match="not negative"):
        fit_simplexes(objective, ends, regularisation=-1)
    with pytest.raises(MeasurementError, match="all the same"):
        fit_simplexes(objective, [ends[0], ends[0]])
    with pytest.raises(MeasurementError, match="not finite"):
        fit_simplexes(objective, [ends[0], ends[1] * float("nan")])
    with pytest.raises(ValueError, match="carries no model"):
        SimplicialComplex(tuple(ends), (ends[0] + 1,), objective.layout).loss()
