"""SWATrajectory stores the weights it saw, and its mean is their mean, measured with statistics of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from landscape_test_trainings import BUSY, Plain, fit, flat, held_out, loader, make_trainer, run_of, seed_all
from torch import nn

from landscape import Objective
from landscape.averaging import recompute_batchnorm, swa
from landscape.callbacks import Compressibility, HessianSpectrum, Sharpness, SWATrajectory
from landscape.curvature import hessian, spectrum
from landscape.sharpness import sam


class Kept(BUSY["pytorch_lightning"]):
    """Keeps its own copies of weights and buffers."""

    def __init__(self):
        super().__init__()
        self.kept = {}

    def on_train_epoch_end(self):
        self.kept[self.trainer.global_step] = {name: value.clone() for name, value in self.state_dict().items()}


def train(folder, *callbacks, module=None, **options):
    seed_all()
    module = module or Kept()
    trainer = make_trainer(folder, callbacks, **{"max_epochs": 4} | options)
    trainer.fit(module, loader(), held_out())
    return trainer, module


def all_batches(dataset, size=16):
    return [(dataset.x[i : i + size], dataset.y[i : i + size]) for i in range(0, len(dataset), size)]


def test_snapshots_are_float32_and_exact(tmp_path):
    trainer, module = train(tmp_path, SWATrajectory())
    run = run_of(trainer)
    assert run.dataset("swa_trajectory")["weights"].dtype == np.float32
    for step, expected in module.kept.items():
        state = run.state_dict(step)
        assert list(state) == list(expected) or set(state) == set(expected)
        for name, value in expected.items():
            assert state[name].dtype == value.dtype
            assert torch.equal(state[name], value), name
        module.load_state_dict(state, strict=True)


def test_the_mean_is_the_mean_of_the_iterates(tmp_path):
    trainer, module = train(tmp_path, SWATrajectory(start=1))
    run = run_of(trainer)
    steps = sorted(module.kept)[1:]
    assert run.dataset("swa_trajectory")["step"].values.tolist() == steps
    assert run.dataset("swa_trajectory")["n_averaged"].values.tolist() == [1, 2, 3]
    averaged = run.state_dict(average="swa")
    for name, _ in module.named_parameters():
        mean = torch.stack([module.kept[step][name].double() for step in steps]).mean(dim=0)
        torch.testing.assert_close(averaged[name].double(), mean, rtol=0, atol=1e-7)
    module.load_state_dict(averaged, strict=True)
    data = run.dataset("swa_trajectory").isel(step=-1)
    mean = trainer.callbacks[0].average[0].numpy()
    np.testing.assert_allclose(float(data["distance"]), np.linalg.norm(data["weights"] - mean), rtol=1e-6)
    assert swa(run)["net.0.weight"].equal(averaged["net.0.weight"])


def test_the_mean_is_measured_with_its_own_batch_statistics(tmp_path):
    trainer, module = train(tmp_path, SWATrajectory(start=1))
    run = run_of(trainer)
    row = run.dataset("swa_trajectory").isel(step=-1)
    module.load_state_dict(run.state_dict(average="swa"))
    objective = Objective.from_lightning(module, all_batches(loader().dataset))
    fresh = recompute_batchnorm(objective)
    for name, values in fresh.items():
        # The mean was taken in float64 there and cast once; what is loaded here was cast before.
        torch.testing.assert_close(dict(module.named_buffers())[name], values, rtol=1e-5, atol=1e-6)
    expected = objective.evaluate(buffers=fresh)
    assert float(row["swa_train_loss"]) == pytest.approx(expected.loss, rel=1e-5)
    assert float(row["swa_train_error"]) == expected.error
    validation = objective.restrict(all_batches(held_out().dataset, 12)).evaluate(buffers=fresh)
    assert float(row["swa_held_out_loss"]) == pytest.approx(validation.loss, rel=1e-5)
    assert float(row["swa_held_out_error"]) == validation.error
    assert float(row["train_loss"]) != float(row["swa_train_loss"])


def test_one_snapshot_is_its_own_mean(tmp_path):
    trainer, _ = train(tmp_path, SWATrajectory(start=3))
    run = run_of(trainer)
    np.testing.assert_array_equal(run.weights(12), flat(trainer.lightning_module))
    assert float(run.dataset("swa_trajectory")["distance"][0]) == 0


class Everywhere(Plain):
    """Tied, frozen and integer tensors, and a buffer that is not saved."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.first.weight
        self.frozen = nn.Parameter(torch.arange(3.0), requires_grad=False)
        self.norm = nn.BatchNorm1d(4, affine=False)
        self.register_buffer("temporary", torch.ones(2), persistent=False)
        self.register_buffer("flags", torch.tensor([True, False]))

    def training_step(self, batch, batch_idx):
        x, y = batch
        hidden = self.tied(torch.tanh(self.norm(self.first(x))))
        return nn.functional.cross_entropy(self.net(hidden) + self.frozen, y)


@pytest.mark.parametrize("average", [None, "swa"])
def test_the_state_dict_loads_strictly(tmp_path, average):
    trainer = fit(tmp_path, SWATrajectory(), module=Everywhere())
    state = run_of(trainer).state_dict(average=average)
    fresh = Everywhere()
    fresh.load_state_dict(state, strict=True)
    assert fresh.tied.weight is fresh.first.weight
    own = trainer.lightning_module.state_dict()
    for name in ("frozen", "flags", "norm.num_batches_tracked", *([] if average else list(own))):
        assert torch.equal(state[name], own[name]), name
    assert run_of(trainer).weights().shape == (67 + 16,)


def test_measuring_at_the_mean(tmp_path):
    settings = {"k": 2, "k_bottom": 1, "probes": 1, "max_matvecs": 20}
    trainer, module = train(
        tmp_path,
        SWATrajectory(start=1),
        HessianSpectrum(**settings, weights="swa"),
        Sharpness(draws=4, steps=2, weights="swa"),
        Compressibility(tolerances=(0.1,)),
    )
    run = run_of(trainer)
    assert run.groups == ["compressibility", "hessian_spectrum_swa", "sharpness_swa", "swa_trajectory"]
    trajectory = run.dataset("swa_trajectory")
    for group in ("hessian_spectrum_swa", "sharpness_swa"):
        data = run.dataset(group)
        assert data["step"].values.tolist() == [6, 9, 12]  # nothing before the mean begins
        assert set(data["status"].values) == {"ok"}
        for name in ("loss", "error"):
            np.testing.assert_array_equal(data[f"train_{name}"], trajectory[f"swa_train_{name}"])
            np.testing.assert_array_equal(data[f"held_out_{name}"], trajectory[f"swa_held_out_{name}"])
    objective = Objective.from_lightning(module, all_batches(loader().dataset)).at(*trainer.callbacks[0].average)
    direct = spectrum(hessian(objective), **settings, tol=1e-3, seed=0, steps=25)
    np.testing.assert_array_equal(run.dataset("hessian_spectrum_swa")["eigenvalues_top"][-1], direct.top.values)
    assert float(run.dataset("sharpness_swa")["sam"][-1]) == sam(objective, 0.05).value


@pytest.mark.parametrize(
    ("start", "options", "steps"),
    [
        (0, {}, [3, 6, 9, 12]),
        (2, {}, [9, 12]),
        (0.0, {}, [3, 6, 9, 12]),
        (0.5, {}, [9, 12]),
        (0.75, {}, [12]),
        (0.5, {"max_epochs": None, "max_steps": 12}, [6, 9, 12]),
        (9, {}, []),
    ],
)
def test_start(tmp_path, start, options, steps):
    trainer, _ = train(tmp_path, SWATrajectory(start=start), **options)
    assert run_of(trainer).dataset("swa_trajectory")["step"].values.tolist() == steps


@pytest.mark.parametrize("start", [-1, -0.5, 1.0, 1.5])
def test_starts_that_are_none(start):
    with pytest.raises(ValueError, match="it must be an epoch .* or a fraction of the epochs"):
        SWATrajectory(start=start)


def test_the_average_measures_no_average():
    with pytest.raises(ValueError, match="its weights cannot be 'swa'"):
        SWATrajectory(weights="swa")


def test_float64_weights_stay_so(tmp_path):
    class Double(Plain):
        def __init__(self):
            super().__init__()
            self.double()

        def training_step(self, batch, batch_idx):
            return super().training_step((batch[0].double(), batch[1]), batch_idx)

    trainer = fit(tmp_path, SWATrajectory(), module=Double())
    np.testing.assert_array_equal(run_of(trainer).weights(), flat(trainer.lightning_module))
    assert run_of(trainer).weights().dtype == np.float64
