"""Curves with any number of bends, their loss and gradient against dense re-evaluation, lengths and planes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from landscape import MeasurementError, Objective
from landscape._layout import ParameterLayout
from landscape.connectivity import Curve, curve_on_plane, fit_curve, path_integral, plane_through
from landscape.connectivity._profile import PathProfile
from landscape.connectivity._training import curve_loss

DOUBLE = {"dtype": torch.float64}
LAYOUT = ParameterLayout(("w",), ((5,),))
POINTS = tuple(torch.randn(5, 5, generator=torch.Generator().manual_seed(0), **DOUBLE))


def casteljau(points: list[torch.Tensor], t: float) -> torch.Tensor:
    while len(points) > 1:
        points = [(1 - t) * a + t * b for a, b in zip(points, points[1:], strict=False)]
    return points[0]


@pytest.mark.parametrize("t", [0.0, 0.2, 0.5, 0.71, 1.0])
@pytest.mark.parametrize("n", [3, 4, 5])
def test_bezier_curves_of_any_degree_by_de_casteljau(n, t):
    curve = Curve("bezier", POINTS[:n], LAYOUT)
    torch.testing.assert_close(curve.point(t), casteljau(list(POINTS[:n]), t), rtol=1e-13, atol=1e-14)


def test_a_chain_runs_straight_from_point_to_point():
    curve = Curve("chain", POINTS[:4], LAYOUT)
    for k, point in enumerate(POINTS[:4]):
        torch.testing.assert_close(curve.point(k / 3), point, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(curve.point(0.5), (POINTS[1] + POINTS[2]) / 2, rtol=1e-14, atol=1e-14)
    assert torch.equal(curve.point(0), POINTS[0])
    assert torch.equal(curve.point(1), POINTS[3])


@pytest.mark.parametrize("kind", ["bezier", "chain"])
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_loss_and_gradients_of_all_bends_equal_dense_re_evaluation(kind, t):
    x = torch.randn(20, 3, **DOUBLE)
    y = (x[:, 0] > 0).long()
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    points = [point.requires_grad_(True) for point in torch.randn(4, objective.n_parameters, **DOUBLE)]
    with objective.session():
        loss, gradients = curve_loss(Curve(kind, tuple(points), objective.layout), objective, 0, t)
    if kind == "bezier":
        w = casteljau(points, t)
    else:
        k = min(int(3 * t), 2)
        w = (k + 1 - 3 * t) * points[k] + (3 * t - k) * points[k + 1]
    expected = F.cross_entropy(torch.func.functional_call(model, objective.layout.named(w), (x,)), y)
    expected.backward()
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-13)
    for found, point in zip(gradients, points[1:-1], strict=True):
        wanted = torch.zeros_like(found) if point.grad is None else point.grad
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize(("kind", "bends"), [("chain", 1), ("chain", 3), ("bezier", 3)])
def test_curves_with_more_bends_are_trained_between_pinned_ends(kind, bends):
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(1), **DOUBLE)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, (x[:, 0] > 0).long())])
    start, end = torch.randn(2, objective.n_parameters, generator=torch.Generator().manual_seed(2), **DOUBLE)
    curve, again = (fit_curve(objective, start, end, kind, 150, 0.05, bends=bends, progress=False) for _ in range(2))
    assert len(curve.points) == bends + 2
    assert torch.equal(curve.points[0], start)
    assert torch.equal(curve.points[-1], end)
    assert all(torch.equal(a, b) for a, b in zip(curve.points, again.points, strict=True))
    line = fit_curve(objective, start, end, "linear")
    assert curve.evaluate().loss[1:-1].mean() < 0.7 * line.evaluate().loss[1:-1].mean()


@pytest.mark.parametrize(("kind", "bends"), [("linear", 1), ("bezier", 0), ("chain", 0)])
def test_a_number_of_bends_that_a_kind_cannot_have_is_refused(kind, bends):
    objective = Objective(nn.Linear(3, 2), nn.CrossEntropyLoss(), [(torch.randn(4, 3), torch.zeros(4).long())])
    with pytest.raises(ValueError, match="control point"):
        fit_curve(objective, torch.zeros(8), torch.ones(8), kind, bends=bends)


def circle_like() -> Curve:
    """A parabola in a plane, whose length has a closed form."""
    points = [torch.tensor(p, **DOUBLE) for p in ((0.0, 0, 0, 0, 0), (1.0, 2, 0, 0, 0), (2.0, 0, 0, 0, 0))]
    return Curve("bezier", tuple(points), LAYOUT)


def test_lengths_in_closed_form():
    t = np.linspace(0, 1, 11)
    flat = PathProfile(t, np.ones(11), np.full(11, 0.5))
    # y = 2x − x² from x = 0 to 2: length = √5 + asinh(2)/2.
    found = path_integral(circle_like(), flat)
    assert found.length == pytest.approx(math.sqrt(5) + math.asinh(2) / 2, rel=1e-10)
    assert (found.loss, found.error) == pytest.approx((1, 0.5))
    chain = Curve("chain", POINTS[:4], LAYOUT)
    legs = [float((b - a).norm()) for a, b in zip(POINTS[:3], POINTS[1:4], strict=True)]
    assert path_integral(chain, flat).length == pytest.approx(sum(legs), rel=1e-12)
    line = Curve("linear", POINTS[:2], LAYOUT)
    assert path_integral(line, flat).length == pytest.approx(legs[0], rel=1e-12)


def test_the_mean_is_by_arc_length_not_by_t():
    # The first leg is nine times as long as the second; the loss is 1 on it and 0 on the other.
    corners = [torch.zeros(5), torch.tensor([9.0, 0, 0, 0, 0]), torch.tensor([9.0, 1, 0, 0, 0])]
    t = np.array([0, 0.25, 0.5, 0.5 + 1e-9, 0.75, 1.0])
    profile = PathProfile(t, np.array([1.0, 1, 1, 0, 0, 0]), np.full(6, np.nan))
    found = path_integral(Curve("chain", tuple(corners), LAYOUT), profile)
    assert found.length == pytest.approx(10)
    assert found.loss == pytest.approx(0.9, rel=1e-6)
    assert math.isnan(found.error)
    with pytest.raises(ValueError, match="needs both ends"):
        path_integral(circle_like(), PathProfile(t[1:], profile.loss[1:], profile.error[1:]))


def test_a_path_of_no_length_has_no_mean():
    t = np.array([0.0, 1.0])
    found = path_integral(Curve("linear", (POINTS[0], POINTS[0]), LAYOUT), PathProfile(t, t, t))
    assert found.length == 0
    assert math.isnan(found.loss)


def test_a_plane_holds_its_three_points_and_measures_true_distances():
    plane = plane_through(*POINTS[:3])
    torch.testing.assert_close(plane.basis @ plane.basis.T, torch.eye(2, **DOUBLE), rtol=0, atol=1e-14)
    for point, corner in zip(POINTS[:3], plane.corners, strict=True):
        torch.testing.assert_close(plane.point(*corner), point, rtol=1e-12, atol=1e-13)
    coordinates, distances = plane.project(POINTS[:4])
    np.testing.assert_allclose(coordinates[:3], plane.corners, atol=1e-13)
    np.testing.assert_allclose(distances[:3], 0, atol=1e-13)
    # Pythagoras for the point off the plane.
    off = float((POINTS[3] - plane.origin).square().sum())
    assert off == pytest.approx((coordinates[3] ** 2).sum() + distances[3] ** 2, rel=1e-12)
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert math.dist(plane.corners[a], plane.corners[b]) == pytest.approx(float((POINTS[a] - POINTS[b]).norm()))


def test_a_quadratic_curve_lies_in_the_plane_of_its_points_and_a_cubic_does_not():
    flat = curve_on_plane(Curve("bezier", POINTS[:3], LAYOUT), plane_through(*POINTS[:3]))
    np.testing.assert_allclose(flat.distances, 0, atol=1e-13)
    np.testing.assert_allclose(flat.coordinates[[0, -1]], flat.control_points[[0, -1]], atol=1e-13)
    t = flat.t[:, None]
    a, c, b = flat.control_points
    np.testing.assert_allclose(flat.coordinates, (1 - t) ** 2 * a + 2 * t * (1 - t) * c + t**2 * b, atol=1e-12)
    cubic = curve_on_plane(Curve("bezier", POINTS[:4], LAYOUT), plane_through(*POINTS[:3]), [0.0, 0.5, 1.0])
    assert cubic.distances[0] == pytest.approx(0, abs=1e-13)
    assert cubic.distances[1] > 0.1
    assert cubic.control_distances[3] == pytest.approx(cubic.distances[2])


def test_points_that_give_no_plane_are_refused():
    with pytest.raises(MeasurementError, match="lie on one line"):
        plane_through(POINTS[0], POINTS[1], (POINTS[0] + POINTS[1]) / 2)
    with pytest.raises(MeasurementError, match="lie on one line"):
        plane_through(POINTS[0], POINTS[0], POINTS[1])
    with pytest.raises(ValueError, match="of one length"):
        plane_through(POINTS[0], POINTS[1], POINTS[2][:4])
