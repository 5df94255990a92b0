from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from landscape import FileError, MeasurementError, Objective
from landscape._distributed import Processes
from landscape.averaging import recompute_batchnorm
from landscape.connectivity import plane_through
from landscape.surface import given_directions, loss_surface, plane_directions, project, random_directions


class Bowl(nn.Module):
    """½ wᵀAw as an output, so that every loss on a grid has a closed form."""

    def __init__(self, matrix: torch.Tensor, weights: torch.Tensor):
        super().__init__()
        self.w = nn.Parameter(weights.clone())
        self.register_buffer("matrix", matrix)

    def forward(self, x):
        return x * (0.5 * self.w @ self.matrix @ self.w)


def bowl() -> tuple[Objective, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    matrix = half @ half.T
    model = Bowl(matrix, torch.randn(4, generator=generator, dtype=torch.float64))
    batches = [(torch.ones(n, 1, dtype=torch.float64), torch.zeros(n)) for n in (3, 5)]
    return Objective(model, lambda output, target: output.mean(), batches), matrix


def network(seed: int = 0, norm: bool = False) -> Objective:
    torch.manual_seed(seed)
    layers = [nn.Linear(4, 6), *([nn.BatchNorm1d(6)] if norm else []), nn.ReLU(), nn.Linear(6, 3)]
    x, y = torch.randn(30, 4), torch.randint(0, 3, (30,))
    return Objective(nn.Sequential(*layers), nn.CrossEntropyLoss(), [(x[:20], y[:20]), (x[20:], y[20:])])


def test_a_rectangular_grid_of_a_quadratic_is_its_closed_form():
    objective, matrix = bowl()
    generator = torch.Generator().manual_seed(1)
    d = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    found = loss_surface(objective, given_directions(d), points=(5, 8), span=((-1.0, 2.0), (-0.5, 3.0)))
    assert found.loss.shape == (5, 8)
    w = objective.vector()
    for i, a in enumerate(found.axes[0]):
        for j, b in enumerate(found.axes[1]):
            point = w + a * d[0] + b * d[1]
            assert found.loss[i, j] == pytest.approx(float(0.5 * point @ matrix @ point), rel=1e-12), (i, j)
    line = loss_surface(objective, given_directions(d[:1]), points=5, span=((-1.0, 2.0),))
    np.testing.assert_allclose(line.loss, found.loss[:, found.center_index[1]], rtol=1e-12)


def test_the_centre_is_the_trained_point_and_a_corner_is_what_it_says():
    objective = network()
    directions = random_directions(objective, seed=2)
    found = loss_surface(objective, directions, points=(3, 5), span=0.7)
    trained = objective.evaluate()
    assert found.axes[0][1] == found.axes[1][2] == 0.0
    assert found.center_index == (1, 2)
    assert found.loss[1, 2] == trained.loss
    assert found.error[1, 2] == trained.error
    state = objective.layout.named(objective.vector() - 0.7 * directions.vectors[0] + 0.7 * directions.vectors[1])
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    model.load_state_dict(state)
    by_hand = torch.stack([nn.functional.cross_entropy(model(x), y, reduction="sum") for x, y in objective.batches])
    assert found.loss[0, 4] == pytest.approx(float(by_hand.sum().detach()) / 30, rel=1e-5)
    torch.testing.assert_close(found.vector(-0.7, 0.7), objective.flatten(list(state.values())), rtol=1e-6, atol=1e-7)
    assert str(found).startswith("Surface(3 x 5, random, center=")


def test_nothing_is_left_displaced_and_two_runs_agree():
    objective = network(norm=True)
    module = objective.module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    first = loss_surface(objective, random_directions(objective), points=3)
    second = loss_surface(objective, random_directions(objective), points=3)
    assert np.array_equal(first.loss, second.loss)
    assert np.array_equal(first.error, second.error)
    assert all(torch.equal(module.state_dict()[name], value) for name, value in before.items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(part.training for part in module.modules())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_an_interrupted_surface_leaves_nothing_either(monkeypatch):
    objective = network()
    before = objective.vector()
    calls = [0]

    def failing(*arguments):
        calls[0] += 1
        if calls[0] == 4:
            raise KeyboardInterrupt
        return original(*arguments)

    original = objective.evaluate
    monkeypatch.setattr(objective, "evaluate", failing)
    with pytest.raises(KeyboardInterrupt):
        loss_surface(objective, random_directions(objective), points=3)
    assert torch.equal(objective.vector(), before)


@pytest.mark.parametrize("torn", [False, True])
def test_an_interrupted_surface_goes_on(tmp_path, monkeypatch, torn):
    objective, path = network(), tmp_path / "points"
    directions = random_directions(objective)
    whole = loss_surface(objective, directions, points=(4, 3))
    evaluated = []
    original = objective.evaluate

    def counting(*arguments):
        evaluated.append(1)
        if len(evaluated) == 6:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(objective, "evaluate", counting)
    with pytest.raises(KeyboardInterrupt):
        loss_surface(objective, directions, points=(4, 3), path=path)
    if torn:  # killed within a line
        path.write_bytes(path.read_bytes()[:-7])
    found = loss_surface(objective, directions, points=(4, 3), path=path)
    assert len(evaluated) == 6 + 12 - 5 + torn
    assert np.array_equal(found.loss, whole.loss)
    assert np.array_equal(found.error, whole.error)
    loss_surface(objective, directions, points=(4, 3), path=path)
    assert len(evaluated) == 6 + 12 - 5 + torn  # nothing was left to do
    with pytest.raises(FileError, match="another surface"):
        loss_surface(objective, random_directions(objective, seed=1), points=(4, 3), path=path)
    path.write_text("something else\n")
    with pytest.raises(FileError, match="no file of surface points"):
        loss_surface(objective, directions, points=(4, 3), path=path)


def test_statistics_are_kept_or_recomputed_at_every_point():
    objective = network(norm=True)
    directions = random_directions(objective, 1, biases=True)
    kept = loss_surface(objective, directions, points=3, span=0.5)
    assert kept.loss[0] == objective.evaluate(kept.vector(-0.5)).loss
    recomputed = loss_surface(objective, directions, points=3, span=0.5, batchnorm="recompute")
    for index, a in enumerate(recomputed.axes[0]):
        vector = recomputed.vector(a)
        assert recomputed.loss[index] == objective.evaluate(vector, recompute_batchnorm(objective, vector)).loss
    train = objective.restrict(objective.batches[:1])
    held = objective.restrict(objective.batches[1:])
    other = loss_surface(held, directions, points=3, span=0.5, batchnorm="recompute", statistics=train)
    vector = other.vector(0.5)
    assert other.loss[2] == held.evaluate(vector, recompute_batchnorm(train, vector)).loss


def test_a_plane_through_three_solutions_passes_through_them():
    objectives = [network(seed) for seed in range(3)]
    ends = [objective.vector() for objective in objectives]
    directions = plane_directions(*ends)
    found = loss_surface(objectives[0], directions, points=7)
    for axis, values in zip(found.axes, directions.points.T, strict=True):
        assert axis[0] < values.min() <= 0
        assert axis[-1] > values.max()
    assert found.loss[found.center_index] == objectives[0].evaluate(ends[0]).loss
    at = loss_surface(objectives[0], directions, points=3, span=[(-1.0, directions.points[1, 0]), (-1.0, 1.0)])
    assert at.loss[2, 1] == pytest.approx(objectives[0].evaluate(ends[1]).loss, rel=1e-5)
    plane = plane_through(*ends)
    np.testing.assert_array_equal(loss_surface(objectives[0], plane, points=7).loss, found.loss)
    np.testing.assert_array_equal(found.to_dataset()["plane_points"], plane.corners)


def test_the_corners_stay_where_they_are_when_the_centre_is_another():
    objectives = [network(seed) for seed in range(3)]
    ends = [objective.vector() for objective in objectives]
    found = loss_surface(objectives[0], plane_directions(*ends), points=3, center=ends[2])
    for end, corner in zip(ends, found.to_dataset()["plane_points"].values, strict=True):
        torch.testing.assert_close(found.vector(*corner), end, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("low", "high", "points"), [(-1, 1, 51), (-1, 1, 4), (-0.1, 5, 3), (-3, 0.2, 9), (-1, 2, 7)])
def test_zero_and_both_ends_are_on_every_axis(low, high, points):
    objective = network()
    found = loss_surface(objective, random_directions(objective, 1), points=points, span=[(low, high)])
    (axis,) = found.axes
    assert len(axis) == points
    assert (axis[0], axis[-1]) == (low, high)
    assert (np.diff(axis) > 0).all()
    assert np.count_nonzero(axis == 0.0) == 1


def test_the_loss_alone():
    objective = network()
    directions = random_directions(objective)
    alone = loss_surface(objective, directions, points=3, error=False)
    np.testing.assert_allclose(alone.loss, loss_surface(objective, directions, points=3).loss, rtol=1e-6)
    assert np.isnan(alone.error).all()


def test_nan_stays_nan():
    objective = network()
    weights = objective.vector()
    weights[0] = float("nan")
    found = loss_surface(objective, random_directions(objective, 1), points=3, center=weights)
    assert np.isnan(found.loss).all()


def test_the_dataset_has_its_axes():
    objective = network()
    data = loss_surface(objective, random_directions(objective), points=(3, 4)).to_dataset()
    assert data["surface_train_loss"].dims == ("point_0", "point_1")
    assert data["axis_1"].shape == (4,)
    assert data.attrs == {"kind": "random", "normalization": "filter"}


def test_projections_tell_place_and_distance():
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(2, 9, generator=generator)  # not orthogonal
    center = torch.randn(9, generator=generator)
    off = torch.randn(9, generator=generator)
    off -= off @ torch.linalg.pinv(basis) @ basis
    directions = given_directions(basis)
    weights = [directions.at(center, 0.3, -2.0), directions.at(center, 1.0, 1.0) + off, center]
    found = project(weights, center, directions)
    np.testing.assert_allclose(found.coordinates, [[0.3, -2.0], [1.0, 1.0], [0.0, 0.0]], atol=1e-5)
    np.testing.assert_allclose(found.residuals, [0.0, float(off.norm()), 0.0], atol=1e-5)
    np.testing.assert_allclose(found.distances[2], 0.0, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"points": 2}, "at least 3 points"),
        ({"span": [(0.1, 1.0), (-1.0, 1.0)]}, "0 between"),
        ({"points": (3, 3, 3)}, "2 axes"),
        ({"span": [(-1.0, 1.0)]}, "2 axes"),
        ({"span": (-1, 1)}, r"2 pairs: \[\(low, high\), \(low, high\)\]"),
        ({"batchnorm": "off"}, "recompute"),
    ],
)
def test_mistakes_are_told(settings, message):
    objective = network()
    with pytest.raises(ValueError, match=message):
        loss_surface(objective, random_directions(objective), **({"points": 3} | settings))


def test_directions_of_another_model_are_told():
    objective = network()
    with pytest.raises(MeasurementError, match="do not fit"):
        loss_surface(objective, given_directions(torch.ones(2, 5)), points=3)
    three = dataclasses.replace(random_directions(objective), vectors=torch.ones(3, objective.n_parameters))
    with pytest.raises(ValueError, match="one or two axes"):
        loss_surface(objective, three, points=3)


class Second(Processes):
    """The second of two processes; the first says which points it read from a file."""

    rank, size = 1, 2

    def __init__(self, known):
        self.known = known

    def first(self, value):
        return self.known if value == {} else value


def test_points_of_an_interrupted_surface_are_left_out_in_all_processes(tmp_path):
    objective = network()
    directions = random_directions(objective, 1)
    whole = loss_surface(objective, directions, points=5)
    evaluated = []
    shared = objective.shard(Second({(0,): (-1.0, 0.5), (3,): (-2.0, 0.25)}))
    original = shared.evaluate
    shared.evaluate = lambda *at: evaluated.append(at) or original(*at)
    found = loss_surface(shared, directions, points=5, path=tmp_path / "points")
    assert found.loss[[0, 3]].tolist() == [-1.0, -2.0]
    np.testing.assert_allclose(found.loss[[1, 2, 4]], whole.loss[[1, 2, 4]], rtol=1e-6)
    assert len(evaluated) == 3
    assert not list(tmp_path.iterdir())


def test_bare_tensors_are_not_taken_for_directions():
    with pytest.raises(TypeError, match="given_directions"):
        loss_surface(network(), torch.randn(2, 3))
    with pytest.raises(ValueError, match="draw at least one"):
        random_directions(network(), 0)
