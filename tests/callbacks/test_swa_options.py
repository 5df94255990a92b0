"""What SWATrajectory stores: rounded weights, some of them only, their components, nothing but them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from landscape_test_trainings import BUSY, fit, held_out, loader, make_trainer, run_of, seed_all, warned

from landscape import FileError, Objective
from landscape.averaging import recompute_batchnorm, recorded_components, swa
from landscape.callbacks import Sharpness, SWATrajectory


class Kept(BUSY["pytorch_lightning"]):
    """Keeps its own copies of the trainable weights: a network with batch normalisation."""

    def __init__(self):
        super().__init__()
        self.kept = {}

    def on_train_batch_end(self, *_):
        parts = [p.detach().reshape(-1) for p in self.parameters() if p.requires_grad]
        self.kept[self.trainer.global_step] = torch.cat(parts).clone()


def train(folder, *callbacks, **options):
    seed_all()
    trainer, module = make_trainer(folder, callbacks, **{"max_epochs": 4} | options), Kept()
    trainer.fit(module, loader(), held_out())
    return run_of(trainer), module


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rounded_weights(tmp_path, dtype):
    run, module = train(tmp_path, SWATrajectory(dtype=dtype))
    steps = run.trajectory().steps
    rounded = [module.kept[int(step)].to(getattr(torch, dtype)) for step in steps]
    for vector, expected in zip(run.trajectory(), rounded, strict=True):
        np.testing.assert_array_equal(vector, expected.double().numpy())
    mean = torch.stack([vector.double() for vector in rounded]).mean(0)
    state = run.state_dict(average="swa")
    found = torch.cat([state[name].reshape(-1) for name in run.layout.names])
    torch.testing.assert_close(found.double(), mean, rtol=0, atol=1e-7)
    assert run.dataset("swa_trajectory")["n_averaged"].values[-1] == len(steps)


def test_float16_refuses_what_it_cannot_hold(tmp_path):
    class Large(Kept):
        def on_train_start(self):
            with torch.no_grad():
                next(self.parameters()).fill_(1e5)

    seed_all()
    trainer = make_trainer(tmp_path, [SWATrajectory(dtype="float16")], max_epochs=1)
    with pytest.warns(UserWarning, match="do not fit into float16") as caught:
        trainer.fit(Large(), loader(), held_out())
    assert warned(caught)
    assert run_of(trainer).table()["status"].tolist() == ["failed"]


def test_the_weights_alone(tmp_path):
    run, module = train(tmp_path, SWATrajectory(evaluate=False))
    data = run.dataset("swa_trajectory")
    assert "swa_train_loss" not in data
    assert "n_averaged" not in data
    assert np.isnan(data["train_loss"]).all()
    steps = run.trajectory().steps
    for vector, step in zip(run.trajectory(), steps, strict=True):
        np.testing.assert_array_equal(vector, module.kept[int(step)].double().numpy())
    with pytest.raises(FileError, match=r"landscape\.averaging\.swa"):
        run.state_dict(average="swa")
    x, y = loader().dataset.x, loader().dataset.y
    objective = Objective.from_lightning(module, [(x[:20], y[:20]), (x[20:], y[20:])])
    state = swa(run, objective=objective)
    mean = torch.stack([module.kept[int(step)].double() for step in steps]).mean(0)
    found = torch.cat([state[name].reshape(-1) for name in run.layout.names])
    torch.testing.assert_close(found.double(), mean, rtol=0, atol=1e-7)
    fresh = recompute_batchnorm(objective, mean)
    assert fresh
    assert all(torch.equal(state[name], values) for name, values in fresh.items())
    module.load_state_dict(state, strict=True)


def test_nobody_measures_a_mean_that_is_not_kept(tmp_path):
    seed_all()
    callbacks = [SWATrajectory(evaluate=False), Sharpness(draws=2, steps=1, weights="swa")]
    trainer = make_trainer(tmp_path, callbacks, max_epochs=1)
    with pytest.warns(UserWarning, match="there is none among the callbacks"):
        trainer.fit(Kept(), loader(), held_out())


def test_some_weights_and_the_components_of_all(tmp_path):
    run, module = train(tmp_path, SWATrajectory(every_n_steps=1, keep=3, components=20))
    every = np.array(sorted(module.kept))
    assert run.trajectory().steps.tolist() == every[::3].tolist()
    found = recorded_components(run)
    assert found.steps.tolist() == every.tolist()
    weights = np.stack([module.kept[int(step)].double().numpy() for step in every])
    centred = weights - weights.mean(0)
    values, rows = np.linalg.svd(centred, full_matrices=False)[1:]
    np.testing.assert_allclose(found.mean, weights.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.variance[:3], values[:3] ** 2 / (len(every) - 1), rtol=1e-3)
    assert np.abs((found.components[:3] * rows[:3]).sum(1)).min() > 1 - 1e-4
    np.testing.assert_allclose(found.coordinates, centred @ found.components.T, atol=1e-5)
    assert np.isfinite(found.train_loss).all()
    data = run.dataset("swa_trajectory")
    assert data["kept"].values.tolist() == [1, 0, 0] * 4
    assert (data["n_averaged"].values[::3] == np.arange(1, 5)).all()
    assert np.isnan(data["weights"].values[1]).all()


def test_a_run_without_components_says_so(tmp_path):
    run = run_of(fit(tmp_path, SWATrajectory()))
    with pytest.raises(FileError, match="without components"):
        recorded_components(run)


def test_a_resumed_training_goes_on_with_its_components(tmp_path):
    settings = {"every_n_steps": 2, "keep": 2, "components": 20}
    whole, _ = train(tmp_path / "whole", SWATrajectory(**settings))
    seed_all()
    first = make_trainer(tmp_path / "cut", [SWATrajectory(**settings)], max_epochs=2, enable_checkpointing=False)
    module = Kept()
    first.fit(module, loader(), held_out())
    first.save_checkpoint(tmp_path / "half.ckpt")
    second = make_trainer(tmp_path / "cut", [SWATrajectory(**settings)], max_epochs=4, enable_checkpointing=False)
    second.fit(Kept(), loader(), held_out(), ckpt_path=tmp_path / "half.ckpt")
    resumed = run_of(first)
    assert resumed.trajectory().steps.tolist() == whole.trajectory().steps.tolist()
    one, other = recorded_components(whole), recorded_components(resumed)
    assert one.steps.tolist() == other.steps.tolist()
    assert other.components is not None
    weights = resumed.trajectory().matrix().astype(np.float64)
    shown = np.isin(other.steps, resumed.trajectory().steps)
    inside = (weights - other.mean) @ other.components.T
    np.testing.assert_allclose(other.coordinates[shown], inside, atol=1e-5)


@pytest.mark.parametrize("settings", [{"dtype": "int8"}, {"keep": 0}, {"components": -1}])
def test_mistakes_are_told_at_once(settings):
    with pytest.raises(ValueError, match=r"must be"):
        SWATrajectory(**settings)
