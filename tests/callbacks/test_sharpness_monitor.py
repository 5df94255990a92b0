"""What SharpnessMonitor records is what the measures give at the weights before the step, for any optimizer."""

from __future__ import annotations

import copy
import functools
import math
import pickle

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F  # noqa: N812
from landscape_test_trainings import (
    BUSY,
    NAMESPACES,
    Plain,
    assert_identical,
    fit,
    held_out,
    left_behind,
    loader,
    make_trainer,
    objective_of,
    run_of,
    seed_all,
)

from landscape.callbacks import SharpnessMonitor
from landscape.callbacks._last_step import LastStep
from landscape.curvature import hessian, top_eigenpairs
from landscape.sharpness import critical_sharpness, directional_sharpness, preconditioned_sharpness

EVERY = [
    "critical_sharpness",
    "directional_sharpness",
    "lambda_max",
    "preconditioned_sharpness",
    "gradient_noise_scale",
]


class Seen(pl.Callback):
    """Notes the weights before and after every optimizer step, and the optimizers' state after it."""

    def __init__(self):
        self.before, self.after, self.states = {}, {}, {}

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.before.setdefault(trainer.global_step + 1, flat(pl_module))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.after[trainer.global_step] = flat(pl_module)
        self.states[trainer.global_step] = [copy.deepcopy(one.state_dict()) for one in trainer.optimizers]


def flat(module):
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()]).clone()


class Trained(Plain):
    """The tanh network of 67 parameters under another optimizer."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def configure_optimizers(self):
        return self.make(self.parameters())


OPTIMIZERS = {
    "sgd, momentum": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": functools.partial(torch.optim.Adam, lr=0.01, weight_decay=0.01),
    "adamw": functools.partial(torch.optim.AdamW, lr=0.01),
    "rmsprop": functools.partial(torch.optim.RMSprop, lr=0.003),
    "nadam": functools.partial(torch.optim.NAdam, lr=0.01),
    "lbfgs": functools.partial(torch.optim.LBFGS, lr=0.1, max_iter=3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_row_describes_the_step_at_the_weights_that_it_began_from(tmp_path, name):
    seen = Seen()
    monitor = SharpnessMonitor(every_n_steps=2, on_error="raise", log=True)
    trainer = fit(tmp_path, seen, monitor, module=Trained(OPTIMIZERS[name]))
    data = run_of(trainer).dataset("sharpness_monitor")
    assert data["step"].values.tolist() == [2, 4, 6]
    for step in (2, 6):
        row = data.sel(step=step)
        objective = objective_of(trainer.lightning_module).at(seen.before[step])
        update = seen.after[step] - seen.before[step]
        rate = float(row["learning_rate"])
        decay = 0.01 if name in ("sgd, momentum", "adam") else 0.0
        operator = hessian(objective)
        along = directional_sharpness(objective, update, rate, operator, weight_decay=decay)
        assert float(row["train_loss"]) == pytest.approx(float(objective.loss()), rel=1e-6)
        assert float(row["directional_sharpness"]) == pytest.approx(along.value, rel=1e-4)
        assert float(row["critical_sharpness_quadratic"]) == pytest.approx(along.critical, rel=1e-4)
        assert float(row["directional_sharpness_stderr_sample"]) == pytest.approx(along.stderr_sample, rel=1e-3)
        for column, expected in (
            ("update_slope_stderr_sample", along.slope_stderr_sample),
            ("critical_sharpness_quadratic_stderr_sample", along.critical_stderr_sample),
        ):
            assert float(row[column]) == pytest.approx(expected, rel=1e-3)
        critical = critical_sharpness(objective, update, rate, slope=along.slope, weight_decay=decay)
        assert float(row["critical_sharpness"]) == pytest.approx(critical.value, rel=0.02)
        error = float(row["critical_sharpness_stderr_sample"])
        assert error == pytest.approx(critical.stderr_sample, rel=0.2, nan_ok=math.isnan(critical.stderr_sample))
        if name in ("adam", "adamw", "rmsprop"):
            optimizer = trainer.lightning_module.make(trainer.lightning_module.parameters())
            optimizer.load_state_dict(seen.states[step][0])
            exact = preconditioned_sharpness(objective, optimizer, operator=operator)
            assert float(row["preconditioned_sharpness"]) == pytest.approx(exact.value, rel=1e-3)
            error = float(row["preconditioned_sharpness_stderr_sample"])
            assert error == pytest.approx(exact.stderr_sample, rel=0.02)
            assert "lambda_max" not in data
        else:
            exact = top_eigenpairs(operator, 1, method="dense")
            assert float(row["lambda_max"]) == pytest.approx(float(exact.values[0]), rel=1e-3)
            # A vector from five products is less exact than its value, to first order, and so is its error.
            error = float(row["lambda_max_stderr_sample"])
            assert error == pytest.approx(float(exact.stderr_sample[0]), rel=0.2)
            assert "preconditioned_sharpness" not in data
    assert (data["n_matvecs"].values[1:] <= 6).all()
    assert (data["n_evaluations"].values[1:] <= 7).all()
    assert np.isnan(data["held_out_loss"].values).all()
    assert data.attrs["weights"] == "before_step"


def train(folder, callbacks, namespace, **options):
    seed_all()
    trainer = make_trainer(folder, callbacks, namespace, **options)
    module, data = BUSY[namespace](), loader(noise=0.2)
    trainer.fit(module, data, held_out())
    return trainer, left_behind(trainer, module, data.dataset, data.generator)


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_the_training_stays_bit_identical(tmp_path, namespace):
    options = {"accumulate_grad_batches": 2 if namespace == "pytorch_lightning" else 1, "gradient_clip_val": 0.5}
    _, without = train(tmp_path / "without", [], namespace, **options)
    monitor = SharpnessMonitor(EVERY, every_n_steps=1, examples=24, on_error="raise", log=True)
    trainer, with_it = train(tmp_path / "with", [monitor], namespace, **options)
    assert_identical(without, with_it)
    data = run_of(trainer).dataset("sharpness_monitor")
    assert set(data["status"].values) == {"ok"}
    assert len(data["step"]) == trainer.global_step


def test_weights_are_kept_only_at_steps_that_are_measured(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(LastStep, "keep", lambda self, module: kept.append(module.trainer.global_step + 1))
    monitor = SharpnessMonitor(every_n_steps=4, every_n_epochs=2)
    with pytest.warns(UserWarning, match="weights before the last step were not kept"):
        fit(tmp_path, monitor, max_epochs=4)
    assert kept == [4, 6, 8, 12]
    assert monitor._last._before == []


class Stuck(torch.optim.SGD):
    """An optimizer whose third step moves nothing, as a gradient scaler's does whose gradients overflow."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.count = 0

    def step(self, closure=None):
        self.count += 1
        if self.count == 3:
            return closure()
        return super().step(closure)


def test_a_skipped_step_leaves_its_columns_empty_and_says_why(tmp_path):
    monitor = SharpnessMonitor(every_n_steps=1)
    with pytest.warns(UserWarning, match="did not move the weights"):
        trainer = fit(tmp_path, monitor, module=Trained(functools.partial(Stuck, lr=0.1)))
    data = run_of(trainer).dataset("sharpness_monitor")
    assert data["status"].values.tolist() == ["ok", "ok", "partial", "ok", "ok", "ok"]
    skipped = data.sel(step=3)
    assert math.isnan(float(skipped["critical_sharpness"]))
    assert math.isnan(float(skipped["directional_sharpness"]))
    assert math.isfinite(float(skipped["lambda_max"]))
    assert "gradient scalers skip a step" in str(skipped["reason"].values)


def test_a_rate_of_zero_is_named(tmp_path):
    with pytest.warns(UserWarning, match="the learning rate is 0"):
        trainer = fit(
            tmp_path, SharpnessMonitor(), module=Trained(functools.partial(torch.optim.SGD, lr=0.0)), max_epochs=4
        )
    data = run_of(trainer).dataset("sharpness_monitor")
    assert data["step"].values.tolist() == [10]
    assert data["status"].values.tolist() == ["partial"]


class TwoOptimizers(pl.LightningModule):
    """Two optimizers that step one after the other in each batch, by hand."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))

    def landscape_loss(self, batch):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def training_step(self, batch, batch_idx):
        loss = self.landscape_loss(batch)
        first, second = self.optimizers()
        first.zero_grad()
        second.zero_grad()
        self.manual_backward(loss)
        first.step()
        second.step()

    def configure_optimizers(self):
        return torch.optim.Adam(self.net[0].parameters(), lr=0.01), torch.optim.AdamW(self.net[2].parameters(), lr=0.01)


def test_several_optimizers_make_one_update_in_their_own_coordinates(tmp_path):
    seen = Seen()
    monitor = SharpnessMonitor(every_n_steps=4)
    trainer = fit(tmp_path, seen, monitor, module=TwoOptimizers())
    data = run_of(trainer).dataset("sharpness_monitor")
    assert data["step"].values.tolist() == [4, 8, 12]
    assert set(data["status"].values) == {"ok"}
    for step in (4, 12):
        row, update = data.sel(step=step), seen.after[step] - seen.before[step - 1]
        assert float(row["update_norm"]) == pytest.approx(float(torch.linalg.vector_norm(update)), rel=1e-5)
        objective = objective_of(trainer.lightning_module).at(seen.before[step - 1])
        optimizers = trainer.lightning_module.configure_optimizers()
        for optimizer, state in zip(optimizers, seen.states[step], strict=True):
            optimizer.load_state_dict(state)
        exact = preconditioned_sharpness(objective, optimizers).value
        assert float(row["preconditioned_sharpness"]) == pytest.approx(exact, rel=1e-3)


def test_an_optimizer_without_a_known_preconditioner_fails_that_column_alone(tmp_path):
    monitor = SharpnessMonitor(["lambda_max", "preconditioned_sharpness"], every_n_steps=3)
    with pytest.warns(UserWarning, match="the preconditioner of NAdam is not known"):
        trainer = fit(tmp_path, monitor, module=Trained(OPTIMIZERS["nadam"]))
    data = run_of(trainer).dataset("sharpness_monitor")
    assert set(data["status"].values) == {"partial"}
    assert np.isfinite(data["lambda_max"].values).all()
    assert np.isnan(data["preconditioned_sharpness"].values).all()


def test_the_end_of_an_epoch_is_a_cadence_too(tmp_path):
    trainer = fit(tmp_path, SharpnessMonitor(every_n_epochs=1, on_error="raise"))
    data = run_of(trainer).dataset("sharpness_monitor")
    assert data["step"].values.tolist() == [3, 6]
    assert np.isfinite(data["critical_sharpness"].values).all()


def test_settings_copies_and_pickles():
    monitor = SharpnessMonitor(max_matvecs=4)
    assert monitor.every_n_steps == 10
    assert monitor.every_n_epochs is None
    assert SharpnessMonitor(every_n_epochs=1).every_n_steps is None
    monitor._last.keep(torch.nn.Linear(2, 2))
    for other in (copy.deepcopy(monitor), pickle.loads(pickle.dumps(monitor))):
        assert other._last._before == []
        assert other.settings() == monitor.settings()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": "swa"}, "weights='swa' has no meaning here"),
        ({"max_matvecs": 3}, "max_matvecs is 3; it must be at least 4"),
        ({"measures": ["sharpness"]}, "measures is 'sharpness'; it must be 'critical_sharpness' or"),
        ({"measures": "lambda_max"}, "give a list"),
        ({"noise_groups": 1}, "noise_groups is 1"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SharpnessMonitor(**arguments)


def test_the_key_of_a_callback_is_fixed_within_a_fit(tmp_path):
    class Asks(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            assert monitor.state_key is monitor.state_key

    monitor = SharpnessMonitor(every_n_steps=2)
    before = monitor.state_key
    fit(tmp_path, Asks(), monitor)
    assert monitor.state_key == before
    monitor.max_matvecs = 4
    assert monitor.state_key != before


def test_every_row_is_in_the_file_when_its_batch_ends(tmp_path):
    found = {}

    class Reads(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step % 2 == 0:
                found[trainer.global_step] = run_of(trainer).dataset("sharpness_monitor")["step"].values.tolist()

    fit(tmp_path, SharpnessMonitor(every_n_steps=2), Reads())
    assert found == {2: [2], 4: [2, 4], 6: [2, 4, 6]}
