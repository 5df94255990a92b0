"""When the callbacks measure, what stands in a row, and how they are copied."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F  # noqa: N812
from landscape_test_trainings import (
    BATCH,
    Plain,
    Validated,
    Weighs,
    everything,
    flat,
    held_out,
    loader,
    make_trainer,
    run_of,
    seed_all,
)

from landscape import Objective
from landscape.callbacks import Compressibility, HessianSpectrum, Sharpness


def fit(folder, *callbacks, module=None, validation=False, **options):
    seed_all()
    trainer = make_trainer(folder, callbacks, **options)
    module = module or (Validated() if validation else Plain())
    trainer.fit(module, loader(), held_out() if validation else None)
    return trainer


def rows(trainer, group="weighs"):
    return run_of(trainer).dataset(group)


# ---------------------------------------------------------------------- when


@pytest.mark.parametrize(
    ("cadence", "options", "steps"),
    [
        ({"every_n_epochs": 1}, {"max_epochs": 3}, [3, 6, 9]),
        ({"every_n_epochs": 2}, {"max_epochs": 5}, [6, 12]),
        ({"every_n_steps": 2}, {"max_epochs": 2}, [2, 4, 6]),
        ({"every_n_steps": 1}, {"max_epochs": 1}, [1, 2, 3]),
        ({"every_n_steps": 1}, {"max_epochs": 2, "accumulate_grad_batches": 2}, [1, 2, 3, 4]),
        ({"every_n_steps": 2}, {"max_epochs": 3, "accumulate_grad_batches": 3}, [2]),
        ({"every_n_epochs": 1, "every_n_steps": 2}, {"max_epochs": 2}, [2, 3, 4, 6]),
        ({}, {"max_epochs": 2}, [6]),
        ({}, {"max_steps": 5, "max_epochs": None}, [5]),
        ({"every_n_epochs": 1}, {"max_steps": 5, "max_epochs": None}, [3, 5]),
    ],
)
def test_cadence(tmp_path, cadence, options, steps):
    trainer = fit(tmp_path, Weighs(**cadence), **options)
    assert rows(trainer)["step"].values.tolist() == steps


def test_several_optimizers_do_not_jump_over_the_cadence(tmp_path):
    class Two(Plain):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def landscape_loss(self, batch):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def training_step(self, batch, batch_idx):
            for optimizer in self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(self.landscape_loss(batch))
                optimizer.step()

        def configure_optimizers(self):
            return [
                torch.optim.SGD(layer.parameters(), lr=lr) for layer, lr in ((self.net[0], 0.1), (self.net[2], 0.2))
            ]

    trainer = fit(tmp_path, Weighs(every_n_steps=3), module=Two())
    assert trainer.global_step == 12
    assert rows(trainer)["step"].values.tolist() == [4, 6, 10, 12]
    assert rows(trainer)["learning_rate"].values.tolist() == [0.1] * 4


def test_an_early_end_is_measured(tmp_path):
    class Stops(Plain):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            self.trainer.should_stop = self.global_step == 4

    trainer = fit(tmp_path, Weighs(), module=Stops(), max_epochs=9, min_epochs=1)
    assert rows(trainer)["step"].values.tolist() == [4]
    assert rows(trainer)["epoch"].values.tolist() == [1]


@pytest.mark.parametrize("every_n_steps", [None, 1])
def test_nothing_happens_outside_of_a_real_fit(tmp_path, every_n_steps):
    callback = Weighs(every_n_steps=every_n_steps, log=True)
    fit(tmp_path, callback, fast_dev_run=True, validation=True)
    trainer = make_trainer(tmp_path, [callback])
    trainer.validate(Validated(), held_out(), verbose=False)
    trainer.test(type("Tested", (Plain,), {"test_step": lambda self, batch, index: None})(), held_out(), verbose=False)
    assert list(tmp_path.rglob("*.h5")) == []
    assert callback.state_dict() == {}


def test_the_sanity_check_records_nothing(tmp_path):
    trainer = fit(tmp_path, Weighs(every_n_epochs=1), validation=True, num_sanity_val_steps=2)
    assert rows(trainer)["step"].values.tolist() == [3, 6]


# ---------------------------------------------------------------------- what stands in a row


class Watched(Plain):
    """Keeps what a row should say, from the training's own side."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 / (1 + step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_batch_end(self, outputs, batch, batch_idx):
        blobs = self.trainer.train_dataloader.dataset
        with torch.no_grad():
            scores = self.net(blobs.x)
        loss = F.cross_entropy(scores.double(), blobs.y)
        error = (scores.argmax(dim=1) != blobs.y).double().mean()
        self.seen[self.global_step] = (
            self.current_epoch,
            batch_idx,
            float(loss),
            float(error),
            float(flat(self).sum()),
        )


@pytest.mark.parametrize("cadence", [{"every_n_steps": 1}, {"every_n_epochs": 1}, {}])
def test_rows_say_where_they_were_taken(tmp_path, cadence):
    module = Watched()
    trainer = fit(tmp_path, Weighs(batch_size=20, **cadence), module=module, max_epochs=3)
    table = rows(trainer).to_dataframe()
    assert len(table) == {"every_n_steps": 9, "every_n_epochs": 3}.get(next(iter(cadence), ""), 1)
    for step, row in table.iterrows():
        epoch, batch_index, loss, error, total = module.seen[step]
        assert (row["epoch"], row["batch_index"]) == (epoch, batch_index)
        assert row["learning_rate"] == 1.0 / step  # of the step that led to these weights, not of the next
        assert row["train_loss"] == pytest.approx(loss, rel=1e-6)
        assert row["train_error"] == error
        assert row["total"] == pytest.approx(total, rel=1e-5)
        assert row["wall_seconds"] > 0
        assert (row["status"], row["reason"]) == ("ok", "")


def test_held_out_examples(tmp_path):
    trainer = fit(tmp_path, Weighs(), validation=True)
    blobs = held_out().dataset
    with torch.no_grad():
        scores = trainer.lightning_module.net(blobs.x)
    row = rows(trainer).isel(step=0)
    assert float(row["held_out_loss"]) == pytest.approx(float(F.cross_entropy(scores, blobs.y)), rel=1e-6)
    assert float(row["held_out_error"]) == float((scores.argmax(dim=1) != blobs.y).double().mean())


def test_losses_have_errors_over_examples(tmp_path):
    trainer = fit(tmp_path, Weighs(), validation=True)
    row = rows(trainer).isel(step=-1)
    blobs, net = loader().dataset, trainer.lightning_module.net
    with torch.no_grad():
        scores = net(blobs.x)
    each = F.cross_entropy(scores, blobs.y, reduction="none").double(), (scores.argmax(dim=1) != blobs.y).double()
    losses, wrong = (values.reshape(-1, BATCH).mean(dim=1).numpy() for values in each)
    count = len(losses)
    assert count == 3
    widened = 4.302653 / 1.959964  # Student's t of two degrees of freedom
    for name, each in (("train_loss", losses), ("train_error", wrong)):
        expected = widened * each.std(ddof=1) / np.sqrt(count)
        assert float(row[f"{name}_stderr_sample"]) == pytest.approx(expected, rel=1e-5)
        assert float(row[f"{name.replace('train', 'held_out')}_stderr_sample"]) > 0
    table = run_of(trainer).table()
    assert table["train_loss_stderr_sample"].iloc[-1] == float(row["train_loss_stderr_sample"])


def test_examples_are_held_for_the_run_and_shared(tmp_path):
    trainer = fit(tmp_path, Weighs(every_n_epochs=1, examples=10), Weighs(every_n_steps=3, examples=10, name="second"))
    first, second = rows(trainer), rows(trainer, "second")
    assert first.attrs["measured"]["n_examples"] == 10
    assert first.attrs["measured"]["fingerprint"] == second.attrs["measured"]["fingerprint"]
    np.testing.assert_array_equal(first["train_loss"], second["train_loss"])


def test_two_callbacks_of_one_class_have_groups_of_their_own(tmp_path):
    trainer = fit(tmp_path, Weighs(examples=10), Weighs(examples=20), Weighs(name="third"))
    run = run_of(trainer)
    assert run.groups == ["third", "weighs", "weighs_2"]
    assert [run.dataset(name).attrs["measured"]["n_examples"] for name in run.groups] == [48, 10, 20]


def test_the_callbacks_of_one_path_share_a_file(tmp_path):
    path = tmp_path / "here" / "run.h5"
    fit(tmp_path, Weighs(path=path), Sharpness(path=str(path), draws=2, steps=2))
    assert list(tmp_path.rglob("*.h5")) == [path]


def test_the_noise_of_a_random_module_can_be_fixed(tmp_path):
    class Noisy(Plain):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * (1 + torch.rand(()))

    trainer = fit(tmp_path, Weighs(noise_seed=3, on_error="raise"), module=Noisy())
    assert rows(trainer).attrs["measured"]["noise_seed"] == 3


# ---------------------------------------------------------------------- arguments and copies


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("name", ["every_n_epochs", "every_n_steps", "examples", "batch_size"])
def test_numbers_must_be_positive(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be a positive number or None"):
        Weighs(**{name: value})


@pytest.mark.parametrize("name", ["on_error", "mode", "weights"])
def test_choices_are_named(name):
    with pytest.raises(ValueError, match=f"{name} is 'often'; it must be '.*' or '.*'"):
        Weighs(**{name: "often"})


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda callback: pickle.loads(pickle.dumps(callback))])
def test_copies_before_and_after_a_fit(tmp_path, copied):
    callbacks = [copied(callback) for callback in everything()]
    trainer = fit(tmp_path / "first", *callbacks)
    again = [copied(callback) for callback in callbacks]
    assert [callback.state_dict().keys() for callback in again] == [
        callback.state_dict().keys() for callback in callbacks
    ]
    assert max(len(pickle.dumps(callback)) for callback in callbacks) < 10_000  # neither module nor Trainer in it
    second = fit(tmp_path / "second", *again)
    assert run_of(second).attributes["run_id"] != run_of(trainer).attributes["run_id"]
    first, second = run_of(trainer).table(), run_of(second).table()
    assert first.drop(columns="wall_seconds").equals(second.drop(columns="wall_seconds"))


def test_state_keys_tell_settings_apart():
    keys = [
        Sharpness().state_key,
        Sharpness(draws=3).state_key,
        Sharpness(name="mine").state_key,
        HessianSpectrum().state_key,
    ]
    assert len(set(keys)) == 4
    assert Sharpness().state_key == Sharpness().state_key


def test_a_callback_of_the_user(tmp_path):
    trainer = fit(tmp_path, Weighs(every_n_epochs=1))
    np.testing.assert_allclose(rows(trainer)["total"].values[-1], flat(trainer.lightning_module).sum(), rtol=1e-5)


def test_the_objective_is_the_one_of_the_training_step(tmp_path):
    trainer = fit(tmp_path, Weighs())
    blobs = loader().dataset
    objective = Objective.from_lightning(trainer.lightning_module, [(blobs.x, blobs.y)])
    assert float(rows(trainer)["train_loss"][0]) == pytest.approx(float(objective.loss()), rel=1e-6)
    assert objective.n_examples == rows(trainer).attrs["measured"]["n_examples"] == len(blobs)
    assert len(blobs) > BATCH


def test_a_datamodule(tmp_path):
    class Data(pl.LightningDataModule):
        def train_dataloader(self):
            return loader()

        def val_dataloader(self):
            return held_out()

    seed_all()
    trainer = make_trainer(tmp_path, [Weighs(on_error="raise"), Compressibility(tolerances=(0.1,))])
    trainer.fit(Validated(), datamodule=Data())
    assert rows(trainer).attrs["held_out"]["n_examples"] == 24


@pytest.mark.parametrize(
    ("given", "epochs", "steps"),
    [
        ({}, 1, None),
        ({"every_n_epochs": 3}, 3, None),
        ({"every_n_steps": 50}, None, 50),
        ({"every_n_epochs": 1, "every_n_steps": 50}, 1, 50),
    ],
)
def test_a_cadence_in_steps_replaces_the_default_of_every_epoch(given, epochs, steps) -> None:
    callback = Sharpness(**given)
    assert (callback.every_n_epochs, callback.every_n_steps) == (epochs, steps)
