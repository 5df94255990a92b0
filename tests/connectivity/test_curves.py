from __future__ import annotations

import pytest
import torch
from torch import nn

from landscape import Objective
from landscape._layout import ParameterLayout
from landscape.connectivity import Curve

LAYOUT = ParameterLayout(("w",), ((5,),))
A, B, C = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 0.8, 1.0])
def test_points_by_formula(t):
    linear, bezier = Curve("linear", (A, B), LAYOUT), Curve("bezier", (A, C, B), LAYOUT)
    torch.testing.assert_close(linear.point(t), (1 - t) * A + t * B, rtol=1e-15, atol=1e-15)
    expected = (1 - t) ** 2 * A + 2 * t * (1 - t) * C + t**2 * B
    torch.testing.assert_close(bezier.point(t), expected, rtol=1e-15, atol=1e-15)
    assert sum(bezier.coefficients(t)) == pytest.approx(1, abs=1e-15)


def test_the_ends_are_exact_whatever_lies_between():
    curve = Curve("bezier", (A, torch.full((5,), float("inf"), dtype=torch.float64), B), LAYOUT)
    assert torch.equal(curve.point(0), A)
    assert torch.equal(curve.point(1), B)


def test_a_bend_at_the_midpoint_gives_the_straight_line():
    linear, bezier = Curve("linear", (A, B), LAYOUT), Curve("bezier", (A, (A + B) / 2, B), LAYOUT)
    for t in (0.1, 0.37, 0.9):
        torch.testing.assert_close(bezier.point(t), linear.point(t), rtol=1e-14, atol=1e-14)


def test_control_points_are_copies_and_may_be_numpy():
    start = A.clone()
    curve = Curve("linear", (start, B.numpy()), LAYOUT)
    start.zero_()
    curve.point(0).zero_()
    assert torch.equal(curve.point(0), A)
    assert torch.equal(curve.point(1), B)


def test_buffers_between_the_ends():
    first = {"mean": torch.tensor([0.0, 2.0]), "count": torch.tensor(3), "extra": torch.tensor(1.0)}
    last = {"mean": torch.tensor([4.0, 6.0]), "count": torch.tensor(9)}
    curve = Curve("linear", (A, B), LAYOUT, (first, last))
    assert curve.buffers(0.25)["mean"].tolist() == [1.0, 3.0]
    assert [int(curve.buffers(t)["count"]) for t in (0, 0.25, 0.75, 1)] == [3, 3, 9, 9]
    assert torch.equal(curve.buffers(1)["mean"], last["mean"])
    assert "extra" not in curve.buffers(0.5)
    assert Curve("linear", (A, B), LAYOUT).buffers(0.5) == {}


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="linear, bezier, chain"):
        Curve("spline", (A, B), LAYOUT)
    with pytest.raises(ValueError, match="at least one control point between its ends, found 0"):
        Curve("bezier", (A, B), LAYOUT)
    with pytest.raises(ValueError, match=r"the bend .* shape \(4,\); expected .* \(5,\)"):
        Curve("bezier", (A, C[:4], B), LAYOUT)
    with pytest.raises(ValueError, match="recompute, interpolate, keep"):
        Curve("linear", (A, B), LAYOUT, batchnorm="update")
    with pytest.raises(ValueError, match="carries no model"):
        Curve("linear", (A, B), LAYOUT).evaluate()


def test_a_curve_from_stored_points_is_evaluated_on_an_objective():
    model = nn.Linear(4, 1)
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    objective = Objective(model, nn.MSELoss(), [(x, torch.zeros(6, 1))], dtype=torch.float64)
    curve = Curve("linear", (A.float(), B.float()), objective.layout)
    found = curve.evaluate(objective, [0.5])
    weights = (A.float() + B.float()) / 2
    expected = ((x @ weights[:4] + weights[4]) ** 2).mean()
    assert found.loss[0] == pytest.approx(float(expected), rel=1e-6)
    assert repr(curve) == "Curve(kind='linear', P=5, batchnorm='recompute')"
