"""LossSurface records a grid that can be drawn and evaluated again, with the training on it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from landscape_test_trainings import BUSY, held_out, loader, make_trainer, run_of, seed_all

from landscape import Objective, open_run
from landscape.callbacks import LossSurface, SWATrajectory
from landscape.surface import loss_surface, random_directions, trajectory_directions


def train(folder, *callbacks, seed=1, **options):
    seed_all(seed)
    trainer = make_trainer(folder, callbacks, **{"max_epochs": 3} | options)
    trainer.fit(BUSY["pytorch_lightning"](), loader(), held_out())
    return trainer


def objective_of(trainer) -> Objective:
    x, y = loader().dataset.x, loader().dataset.y
    batches = [(x[i : i + 16], y[i : i + 16]) for i in range(0, len(x), 16)]
    return Objective.from_lightning(trainer.lightning_module, batches)


def test_the_row_is_the_surface_of_the_function(tmp_path):
    trainer = train(tmp_path, SWATrajectory(), LossSurface(points=3, held_out=True, seed=4))
    run, objective = run_of(trainer), objective_of(trainer)
    data = run.dataset("loss_surface")
    assert data.sizes["step"] == 1
    row = data.isel(step=0)
    directions = random_directions(objective, seed=4)
    expected = loss_surface(objective, directions, points=3)
    np.testing.assert_allclose(row["surface_train_loss"], expected.loss, rtol=1e-5)
    np.testing.assert_array_equal(row["surface_train_error"], expected.error)
    np.testing.assert_array_equal(row["axis_0"], [-1, 0, 1])
    np.testing.assert_array_equal(row["directions"], directions.vectors)
    np.testing.assert_array_equal(row["center"], objective.vector())
    assert float(row["surface_train_loss"][1, 1]) == float(row["train_loss"])
    assert float(row["surface_held_out_loss"][1, 1]) == float(row["held_out_loss"])
    assert float(row["surface_max_train_loss"]) == expected.loss.max()
    visits = int((row["trajectory_step"] >= 0).sum())
    assert row["trajectory_step"].values[:visits].tolist() == run.trajectory().steps.tolist()
    assert np.isnan(row["trajectory_loss"].values[visits:]).all()
    # Each at its own weights and statistics: the losses that were recorded with them.
    np.testing.assert_allclose(row["trajectory_loss"][:visits], run.trajectory().scalars["train_loss"], rtol=1e-5)
    np.testing.assert_allclose(row["trajectory_coordinates"][visits - 1], 0, atol=1e-6)
    assert float(row["trajectory_residual"][visits - 1]) == pytest.approx(0, abs=1e-6)
    assert not list(tmp_path.rglob("*.points"))
    again = loss_surface(objective, directions, points=3, center=torch.from_numpy(row["center"].values))
    np.testing.assert_allclose(again.loss, row["surface_train_loss"], rtol=1e-5)


def test_along_the_training_s_own_components(tmp_path):
    trainer = train(tmp_path, SWATrajectory(every_n_steps=2), LossSurface("trajectory", points=5, trajectory=3))
    run = run_of(trainer)
    row = run.dataset("loss_surface").isel(step=0)
    directions = trajectory_directions(run)
    np.testing.assert_allclose(np.abs((row["directions"] * directions.vectors.numpy()).sum("parameter")), 1, rtol=1e-5)
    assert row["trajectory_step"].values[[0, -1]].tolist() == run.trajectory().steps[[0, -1]].tolist()
    for axis in range(2):
        places = row["trajectory_coordinates"].values[:, axis]
        assert row[f"axis_{axis}"].values[0] < places.min()
        assert row[f"axis_{axis}"].values[-1] > places.max()


def test_along_eigenvectors_at_a_cadence(tmp_path):
    trainer = train(tmp_path, LossSurface("hessian", dimensions=1, points=3, every_n_epochs=2, span=0.5, seed=1))
    data = run_of(trainer).dataset("loss_surface")
    assert data["surface_train_loss"].shape == (1, 3)
    np.testing.assert_allclose(np.linalg.norm(data["directions"].values[0, 0]), 1, rtol=1e-5)
    assert (data["trajectory_step"] == -1).all()


def test_through_two_other_solutions(tmp_path):
    others = [train(tmp_path / str(seed), SWATrajectory(), seed=seed) for seed in (2, 3)]
    files = [run_of(trainer).path for trainer in others]
    trainer = train(tmp_path / "this", LossSurface("plane", points=3, through=files, batchnorm="recompute"))
    row = run_of(trainer).dataset("loss_surface").isel(step=0)
    center, directions = row["center"].values.astype(np.float64), row["directions"].values.astype(np.float64)
    for other in others:
        offset = run_of(other).weights().astype(np.float64) - center
        assert np.linalg.norm(offset - (directions @ offset) @ directions) < 1e-5 * np.linalg.norm(offset)
    offsets = [run_of(other).weights().astype(np.float64) - center for other in others]
    np.testing.assert_allclose(row["plane_points"][0], 0)
    np.testing.assert_allclose(row["plane_points"][1:], offsets @ directions.T, atol=1e-5)


def test_without_a_trajectory_the_row_says_what_is_missing(tmp_path):
    with pytest.warns(UserWarning, match="put a SWATrajectory before"):
        trainer = train(tmp_path, LossSurface("trajectory", points=3))
    assert run_of(trainer).table()["status"].tolist() == ["failed"]


def test_a_killed_measurement_goes_on(tmp_path, monkeypatch):
    def stopping(self, *arguments):
        calls.append(1)
        if len(calls) == limit:
            raise KeyboardInterrupt
        return original(self, *arguments)

    calls, limit, original = [], 12, Objective.evaluate
    settings = {"points": 5, "trajectory": 0, "path": tmp_path / "run.h5"}
    whole = train(tmp_path / "whole", LossSurface(points=5, trajectory=0))
    expected = run_of(whole).dataset("loss_surface")["surface_train_loss"].values
    evaluations = 2 + 25  # train and held-out at the weights, and the grid
    monkeypatch.setattr(Objective, "evaluate", stopping)
    trainer = make_trainer(tmp_path, [LossSurface(**settings)], max_epochs=3)
    seed_all(1)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer.fit(BUSY["pytorch_lightning"](), loader(), held_out())
    (points,) = tmp_path.glob(".run.h5.loss_surface.train@*.points")
    done = len(points.read_text().splitlines()) - 1
    stale = points.with_name(".run.h5.loss_surface.train@0123456789ab.points")  # of other weights at the same step
    stale.write_text(points.read_text())
    assert 0 < done < 25
    calls.clear()
    limit = -1
    seed_all(1)
    again = make_trainer(tmp_path, [LossSurface(**settings)], max_epochs=3)
    again.fit(BUSY["pytorch_lightning"](), loader(), held_out())
    found = open_run(tmp_path / "run.h5").dataset("loss_surface")["surface_train_loss"].values
    np.testing.assert_array_equal(found, expected)
    assert len(calls) == evaluations - done
    assert not list(tmp_path.glob(".*.points"))


@pytest.mark.parametrize(
    "settings",
    [
        {"directions": "pca"},
        {"dimensions": 3},
        {"points": 2},
        {"directions": "plane"},
        {"through": ("a.h5", "b.h5")},
        {"batchnorm": "off"},
        {"normalization": "weight"},
    ],
)
def test_mistakes_are_told_at_once(settings):
    with pytest.raises(ValueError, match="must be|has 1 or 2|plane"):
        LossSurface(**settings)
