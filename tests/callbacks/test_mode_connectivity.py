"""What ModeConnectivity records is what landscape.connectivity gives between the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from landscape_test_trainings import (
    BUSY,
    Plain,
    Validated,
    fit,
    flat,
    held_out,
    loader,
    make_trainer,
    objective_of,
    run_of,
)

from landscape import Objective
from landscape.callbacks import ModeConnectivity, SWATrajectory
from landscape.connectivity import DEFINITIONS, barrier, fit_curve, profile


def connectivity(**options):
    return ModeConnectivity(**{"points": 5, "curve_steps": 6, "progress": False} | options)


def test_values_equal_the_direct_call(tmp_path):
    trajectory = SWATrajectory()
    trainer = make_trainer(tmp_path, [trajectory, connectivity(since=2)], max_epochs=4)
    trainer.fit(Validated(), loader(), held_out())
    run = run_of(trainer)
    row = run.dataset("mode_connectivity").isel(step=-1)
    assert run.dataset("mode_connectivity")["step"].values.tolist() == [12]
    start, end = (torch.from_numpy(run.weights(step)) for step in (6, 12))
    np.testing.assert_array_equal(row["end_a"], start)
    np.testing.assert_array_equal(row["end_b"], end)
    assert float(row["distance"]) == pytest.approx(float((end - start).norm()), rel=1e-6)
    objective = objective_of(trainer.lightning_module)
    blobs = held_out().dataset
    validation = Objective.from_lightning(
        trainer.lightning_module, [(blobs.x[:12], blobs.y[:12]), (blobs.x[12:], blobs.y[12:])]
    )
    t = np.linspace(0, 1, 5)
    curves = {
        "linear": fit_curve(objective, start, end, kind="linear"),
        "bezier": fit_curve(objective, start, end, steps=6, learning_rate=0.01, seed=0),
    }
    np.testing.assert_array_equal(row["control"], curves["bezier"].points[1])
    for name, curve in curves.items():
        for data, measured in (("train", objective), ("held_out", validation)):
            expected = profile(curve, measured, t)
            for kind in ("loss", "error"):
                found = row[f"curve_{data}_{kind}"].sel(path=name)
                np.testing.assert_array_equal(found, getattr(expected, kind))
                for definition in DEFINITIONS:
                    value = row[f"barrier_{data}_{kind}"].sel(path=name, definition=definition)
                    assert float(value) == barrier(expected, definition, which=kind)


@pytest.mark.parametrize("kind", ["run", "checkpoint", "state_dict"])
def test_another_training_is_the_other_end(tmp_path, kind):
    first = fit(tmp_path / "first", SWATrajectory(), module=Plain(seed=1))
    if kind == "run":
        other = run_of(first).path
    elif kind == "checkpoint":
        other = tmp_path / "other.ckpt"
        first.save_checkpoint(other)
    else:
        other = tmp_path / "other.pt"
        torch.save(first.lightning_module.state_dict(), other)
    second = fit(tmp_path / "second", connectivity(other=other))
    row = run_of(second).dataset("mode_connectivity").isel(step=0)
    np.testing.assert_array_equal(row["end_a"], flat(first.lightning_module))
    np.testing.assert_array_equal(row["end_b"], flat(second.lightning_module))
    assert np.isfinite(row["curve_train_loss"]).all()
    assert np.isnan(row["curve_held_out_loss"]).all()


def test_batch_normalisation_and_a_cadence(tmp_path):
    trainer = make_trainer(tmp_path, [connectivity(every_n_epochs=2, examples=24)], max_epochs=4)
    trainer.fit(BUSY["pytorch_lightning"](), loader(), held_out())
    data = run_of(trainer).dataset("mode_connectivity")
    assert data["step"].values.tolist() == [6, 12]
    assert np.isfinite(data["curve_held_out_loss"]).all()


@pytest.mark.parametrize("arguments", [{"since": 0}, {"points": 1}])
def test_arguments(arguments):
    with pytest.raises(ValueError, match="since must be at least 1, points at least 2"):
        ModeConnectivity(**arguments)
