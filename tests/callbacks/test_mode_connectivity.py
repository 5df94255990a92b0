"""What ModeConnectivity records is what landscape.connectivity gives between the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from landscape_test_trainings import (
    BUSY,
    Plain,
    Validated,
    assert_identical,
    fit,
    flat,
    held_out,
    left_behind,
    loader,
    make_trainer,
    objective_of,
    run_of,
    seed_all,
)

from landscape import MeasurementError, Objective
from landscape.callbacks import ModeConnectivity, SWATrajectory
from landscape.connectivity import DEFINITIONS, barrier, barriers, fit_curve, profile


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
    with pytest.raises(ValueError, match="it must be at least"):
        ModeConnectivity(**arguments)


def test_barriers_come_with_standard_errors_and_paths_with_lengths(tmp_path):
    trainer = fit(tmp_path, connectivity(since=1))
    row = run_of(trainer).dataset("mode_connectivity").isel(step=0)
    objective = objective_of(trainer.lightning_module)
    start, end = (torch.from_numpy(row[name].values) for name in ("end_a", "end_b"))
    found = barriers(profile(fit_curve(objective, start, end, kind="linear"), objective, np.linspace(0, 1, 5)))
    for each in found:
        stored = row[f"barrier_train_{each.which}_stderr"].sel(path="linear", definition=each.definition)
        assert float(stored) == pytest.approx(each.stderr, rel=1e-6)
    assert float(row["path_length"].sel(path="linear")) == pytest.approx(float(row["distance"]), rel=1e-6)
    assert float(row["path_length"].sel(path="bezier")) > float(row["distance"])


def forked(tmp_path, seed, *callbacks, epochs=4, ckpt=None, module=None, data=None, namespace="pytorch_lightning"):
    """Train a network with everything in it that draws random numbers, on a loader that shuffles by the global one."""
    trainer = make_trainer(tmp_path, list(callbacks), namespace, max_epochs=epochs)
    seed_all(seed)
    module = module or BUSY[namespace]()
    seed_all(seed)
    trainer.fit(module, data or loader(generator=None), held_out(), ckpt_path=ckpt)
    return trainer


@pytest.mark.parametrize("own_generator", [False, True])
def test_a_fork_goes_on_from_the_kept_epoch_and_replays_it_exactly(tmp_path, own_generator):
    def data():
        return loader() if own_generator else loader(generator=None)

    callbacks = [SWATrajectory(every_n_epochs=1), connectivity(fork_at=2)]
    first = forked(tmp_path / "first", 0, *callbacks, data=data())
    kept = run_of(first).path.with_name("landscape-fork-epoch2.ckpt")
    rows = run_of(first).dataset("swa_trajectory")["step"].values.tolist()
    replay = connectivity(other=run_of(first).path, replay=True)
    again = forked(tmp_path / "again", 5, replay, ckpt=kept, data=data())
    assert_identical(dict(again.lightning_module.state_dict()), dict(first.lightning_module.state_dict()))
    assert_identical(again.optimizers[0].state_dict(), first.optimizers[0].state_dict())
    row = run_of(again).dataset("mode_connectivity").isel(step=-1)
    assert float(row["distance"]) == 0
    # The first run's file is its own: the fork neither wrote into it nor cut it.
    assert run_of(first).dataset("swa_trajectory")["step"].values.tolist() == rows
    assert run_of(again).path != run_of(first).path


def test_a_fork_with_other_noise_ends_elsewhere_and_records_the_barrier(tmp_path):
    first = forked(tmp_path / "first", 0, SWATrajectory(), connectivity(fork_at=2))
    kept = run_of(first).path.with_name("landscape-fork-epoch2.ckpt")
    second = forked(tmp_path / "second", 1, connectivity(other=run_of(first).path), ckpt=kept)
    row = run_of(second).dataset("mode_connectivity").isel(step=-1)
    np.testing.assert_array_equal(row["end_a"], flat(first.lightning_module))
    np.testing.assert_array_equal(row["end_b"], flat(second.lightning_module))
    assert float(row["distance"]) > 0
    assert int(row["step"]) == first.global_step
    assert np.isfinite(row["barrier_train_loss"].sel(path="linear")).all()
    checkpoint = torch.load(kept, weights_only=True)
    assert checkpoint["global_step"] == first.global_step // 2
    assert not [key for key in checkpoint["callbacks"] if "ModeConnectivity" in key or "SWATrajectory" in key]


def test_keeping_a_fork_leaves_the_training_as_it_is(tmp_path):
    results = []
    for name, callbacks in (("without", []), ("with", [connectivity(fork_at=1)])):
        trainer = forked(tmp_path / name, 0, *callbacks)
        results.append(left_behind(trainer, trainer.lightning_module))
    assert_identical(*results)


def test_a_fork_that_never_came_or_cannot_be_replayed_is_told(tmp_path):
    with pytest.warns(UserWarning, match="could not keep epoch 9: the training ended after 2"):
        fit(tmp_path / "short", connectivity(fork_at=9))
    plain = fit(tmp_path / "plain")
    plain.save_checkpoint(tmp_path / "plain.ckpt")
    with pytest.raises(MeasurementError, match="replay=True needs a checkpoint"):
        forked(tmp_path / "no", 0, connectivity(replay=True), ckpt=tmp_path / "plain.ckpt", module=Validated())
    with pytest.raises(ValueError, match="fork_at"):
        ModeConnectivity(fork_at=0)
