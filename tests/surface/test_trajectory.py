"""Principal components of recorded weights, and the training projected onto them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from landscape import MeasurementError, Objective
from landscape._layout import ParameterLayout
from landscape.record import Coordinate, GroupSchema, Recorder, Variable
from landscape.surface import loss_surface, project_run, trajectory_directions

SIZE = 15


@pytest.fixture
def make_run(tmp_path):
    def make(weights: np.ndarray, dtype: str = "f4"):
        path = tmp_path / "run.h5"
        layout = ParameterLayout(("weight", "bias"), ((3, 4), (3,)))
        recorder = Recorder.create(path, {}, layout)
        variables = [Variable("weights", ("parameter",), dtype), Variable("buffers", ("buffer",))]
        axes = [Coordinate("parameter", SIZE), Coordinate("buffer", 0)]
        recorder.declare(GroupSchema("swa_trajectory", "weights", variables, axes))
        for index, row in enumerate(weights):
            values = {"step": 5 * index, "weights": row, "train_loss": float(index), "buffers": np.zeros(0)}
            assert recorder.append("swa_trajectory", values)
        return path

    return make


def rows(n: int = 8) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, SIZE)) * np.linspace(2, 0.2, SIZE)


def test_directions_are_the_principal_components(make_run):
    weights = rows()
    found = trajectory_directions(make_run(weights, "f8"))
    _, values, components = np.linalg.svd(weights - weights.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs((found.vectors.numpy() * components[:2]).sum(1)), 1, rtol=1e-9)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(2), atol=1e-9)
    np.testing.assert_array_equal(found.center, weights[-1])
    np.testing.assert_allclose(found.points, (weights - weights[-1]) @ found.vectors.numpy().T, atol=1e-9)
    np.testing.assert_allclose(found.points.std(0, ddof=1), values[:2] / 7**0.5, rtol=1e-9)
    assert (found.vectors.gather(1, found.vectors.abs().argmax(1, keepdim=True)) > 0).all()


def test_a_window_and_half_precision(make_run):
    weights = rows(12)
    found = trajectory_directions(make_run(weights, "f2"), 1, start=10, stop=40, every=2)
    chosen = weights[2:9:2].astype(np.float16).astype(np.float64)
    component = np.linalg.svd(chosen - chosen.mean(0), full_matrices=False)[2][0]
    assert abs(float(found.vectors[0].double().numpy() @ component)) == pytest.approx(1, abs=1e-5)
    assert found.vectors.dtype == torch.float32


def test_too_few_rows_are_told(make_run):
    with pytest.raises(MeasurementError, match="holds 2 rows of weights"):
        trajectory_directions(make_run(rows(2)))


def test_weights_on_a_line_span_no_plane(make_run):
    line = np.arange(6.0)[:, None] * rows(1)
    path = make_run(line, "f8")
    with pytest.raises(MeasurementError, match="fewer than 2 directions"):
        trajectory_directions(path)
    assert trajectory_directions(path, 1).vectors.shape == (1, SIZE)


def test_the_training_lies_on_its_surface_with_true_losses(make_run):
    weights = rows()
    path = make_run(weights)
    directions = trajectory_directions(path)
    model, x, y = nn.Linear(4, 3), torch.randn(20, 4), torch.randint(0, 3, (20,))
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    surface = loss_surface(objective, directions, points=5)
    assert surface.loss[surface.center_index] == objective.evaluate(torch.from_numpy(weights[-1]).float()).loss
    for axis, places in zip(surface.axes, directions.points.T, strict=True):
        assert axis[0] < places.min()
        assert axis[-1] > places.max()
    found = project_run(path, surface.center, directions, objective)
    np.testing.assert_allclose(found.coordinates, directions.points, atol=1e-5)
    offsets = weights - weights[-1]
    np.testing.assert_allclose(found.distances, np.linalg.norm(offsets, axis=1), rtol=1e-5)
    np.testing.assert_allclose(
        found.residuals**2, found.distances**2 - (found.coordinates**2).sum(1), rtol=1e-4, atol=1e-5
    )
    losses = [objective.evaluate(torch.from_numpy(row).float()).loss for row in weights.astype(np.float32)]
    np.testing.assert_array_equal(found.loss, losses)
    assert found.steps.tolist() == [5 * index for index in range(8)]
    recorded = project_run(path, surface.center, directions)
    assert recorded.loss.tolist() == [float(index) for index in range(8)]
