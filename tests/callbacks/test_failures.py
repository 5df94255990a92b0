"""What cannot be measured or written: the training goes on untouched, the file says why, and there is one warning."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F  # noqa: N812
from landscape_test_trainings import (
    Blobs,
    Plain,
    Validated,
    assert_identical,
    everything,
    fit_warned,
    held_out,
    loader,
    make_trainer,
    run_of,
    seed_all,
)
from torch.utils.data import DataLoader, IterableDataset

from landscape._errors import LandscapeError
from landscape.callbacks import Compressibility, HessianSpectrum, ModeConnectivity, Sharpness, SWATrajectory


def check(tmp_path, make_module, callbacks, reason, data=loader, **options):
    """Train with and without: all is equal, each callback warns once, and its rows say `failed` and the reason."""
    _, without, _ = fit_warned(tmp_path / "without", make_module, [], data, **options)
    trainer, with_them, messages = fit_warned(tmp_path / "with", make_module, callbacks, data, **options)
    assert_identical(without, with_them)
    assert sorted(message.partition(" ")[0] for message in messages) == sorted(type(c).__name__ for c in callbacks)
    assert all(reason in message for message in messages)
    run = run_of(trainer)
    assert len(run.groups) == len(callbacks)
    for group in run.groups:
        rows = run.dataset(group)
        assert len(rows["step"]) > 0
        assert set(rows["status"].values) == {"failed"}
        assert all(reason in text for text in rows["reason"].values)
    return trainer


class Manual(Plain):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        loss = super().training_step(batch, batch_idx)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()


class ManualWithLoss(Manual):
    def landscape_loss(self, batch):
        x, y = batch
        return F.cross_entropy(self.net(x), y)


class NotScalar(Plain):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x), y, reduction="none")

    def backward(self, loss):
        loss.sum().backward()


class Nan(Plain):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * float("nan")


class Skips(Plain):
    def training_step(self, batch, batch_idx):
        return None


class Random(Plain):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * torch.rand(())


class Stream(IterableDataset):
    def __iter__(self):
        blobs = Blobs()
        return iter([blobs[index] for index in range(len(blobs))])


def stream():
    return DataLoader(Stream(), batch_size=16)


def test_manual_optimisation(tmp_path):
    check(tmp_path, Manual, everything(), "Add a method landscape_loss(self, batch)")


def test_manual_optimisation_with_its_way_out(tmp_path):
    _, without, _ = fit_warned(tmp_path / "without", ManualWithLoss, [])
    trainer, with_them, messages = fit_warned(tmp_path / "with", ManualWithLoss, everything())
    assert messages == []
    assert_identical(without, with_them)
    run = run_of(trainer)
    assert set(run.table()["status"]) == {"ok"}
    assert run.table()["learning_rate"].tolist() == [0.1, 0.1]


def test_a_loss_that_is_not_a_scalar(tmp_path):
    check(tmp_path, NotScalar, everything(), "not a scalar; reduce it to its mean")


def test_a_loss_that_is_nan(tmp_path):
    check(tmp_path, Nan, everything(), "the loss on the measured training examples is nan")


def test_weights_that_become_nan_are_not_averaged(tmp_path):
    class Explodes(Plain):
        def on_train_epoch_start(self):
            if self.current_epoch == 1:
                with torch.no_grad():
                    self.net[0].weight.fill_(float("nan"))

    trainer, _, messages = fit_warned(tmp_path, Explodes, [SWATrajectory()])
    assert len(messages) == 1
    run = run_of(trainer)
    assert run.dataset("swa_trajectory")["status"].values.tolist() == ["ok", "failed"]
    assert all(tensor.isfinite().all() for tensor in run.state_dict(step=3, average="swa").values())


def test_a_loss_that_is_random(tmp_path):
    check(tmp_path, Random, everything(), "it is not a function of the parameters")


def test_a_step_that_skips_its_batch(tmp_path):
    # No optimizer step is taken, so step 0 is all there is to record.
    check(tmp_path, Skips, [Sharpness(every_n_epochs=None)], "returned None (a skipped batch)", max_epochs=1)


def test_a_dataset_without_length(tmp_path):
    trainer, _, messages = fit_warned(tmp_path, Plain, everything(), stream)
    assert messages == []
    run = run_of(trainer)
    assert all(set(run.dataset(group)["status"].values) == {"ok"} for group in run.groups)


def test_all_examples_of_a_dataset_without_length(tmp_path):
    check(tmp_path, Plain, everything(examples=None), "has no length; give a number of examples", stream)


def test_a_dataset_without_length_and_batches_of_ones_own(tmp_path):
    blobs = Blobs()
    batches = [(blobs.x[:20], blobs.y[:20]), (blobs.x[20:24], blobs.y[20:24])]
    trainer, _, messages = fit_warned(tmp_path, Plain, everything(batches=batches), stream)
    assert messages == []
    table = run_of(trainer).table()
    assert set(table["status"]) == {"ok"}
    assert run_of(trainer).dataset("sharpness").attrs["measured"]["n_examples"] == 24


def test_more_eigenvalues_than_parameters(tmp_path):
    trainer, _, messages = fit_warned(tmp_path, Plain, [HessianSpectrum(k=200)])
    assert len(messages) == 1
    rows = run_of(trainer).dataset("hessian_spectrum")
    assert set(rows["status"].values) == {"partial"}
    assert all("eigenpairs: k=200" in text and "ask for k ≤ P" in text for text in rows["reason"].values)
    assert rows["lambda_max"].isnull().all()
    assert rows["trace"].notnull().all()
    assert rows["n_eff"].notnull().all()


def test_bits_without_a_reachable_tolerance_still_say_ok(tmp_path):
    trainer, _, messages = fit_warned(tmp_path, Plain, [Compressibility(tolerances=(0.1,))])
    assert messages == []
    assert set(run_of(trainer).table()["status"]) == {"ok"}


def _other_architecture(folder):
    torch.save(Plain(width=5).state_dict(), folder / "other.pt")
    return folder / "other.pt"


def _damaged(folder):
    (folder / "other.ckpt").write_bytes(b"no checkpoint")
    return folder / "other.ckpt"


def _damaged_run(folder):
    (folder / "other.h5").write_bytes(b"no run")
    return folder / "other.h5"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder: folder / "absent.ckpt", "absent.ckpt does not exist"),
        (lambda folder: folder / "absent.h5", "absent.h5"),
        (_other_architecture, "the two are of different architectures"),
        (_damaged, "other.ckpt cannot be read as a checkpoint"),
        (_damaged_run, "other.h5"),
    ],
)
def test_another_solution_that_cannot_be_read(tmp_path, make, reason):
    check(tmp_path, Plain, [ModeConnectivity(other=make(tmp_path), progress=False)], reason)


def test_an_epoch_that_never_came(tmp_path):
    check(tmp_path, Plain, [ModeConnectivity(since=5, progress=False)], "the weights after epoch 5 were not seen")


def test_the_running_mean_without_anybody_who_averages(tmp_path):
    check(tmp_path, Plain, [Sharpness(weights="swa")], "put a SWATrajectory first in the list")


def test_the_running_mean_of_a_later_callback(tmp_path):
    trainer, _, messages = fit_warned(tmp_path, Plain, [Sharpness(weights="swa"), SWATrajectory()])
    assert len(messages) == 1
    assert "put a SWATrajectory first in the list" in messages[0]
    assert run_of(trainer).dataset("swa_trajectory")["status"].values.tolist() == ["ok", "ok"]


@pytest.mark.parametrize("make_module", [Manual, Nan])
def test_raising_where_it_is_asked_for(tmp_path, make_module):
    with pytest.raises(LandscapeError):
        fit_warned(tmp_path, make_module, [Sharpness(on_error="raise")])


def test_validation_batches_that_the_training_step_does_not_take(tmp_path):
    class Differs(Plain):
        def validation_step(self, batch, batch_idx):
            return None

    seed_all()
    trainer = make_trainer(tmp_path, [Sharpness(on_error="raise")])
    trainer.fit(Differs(), loader(), DataLoader(torch.zeros(8, 2), batch_size=4))
    rows = run_of(trainer).dataset("sharpness")
    assert rows["status"].values.tolist() == ["ok", "ok"]
    assert rows["held_out_loss"].isnull().all()
    assert rows.attrs["held_out"].startswith("validation data cannot be measured")


def test_no_validation_data(tmp_path):
    trainer, _, _ = fit_warned(tmp_path, Plain, [Sharpness(on_error="raise")])
    assert run_of(trainer).dataset("sharpness").attrs["held_out"] == "there are no validation data"
    trainer = make_trainer(tmp_path / "validated", [Sharpness(on_error="raise")])
    trainer.fit(Validated(), loader(), held_out())
    rows = run_of(trainer).dataset("sharpness")
    assert rows.attrs["held_out"]["n_examples"] == 24
    assert rows["held_out_loss"].notnull().all()


def test_the_base_alone_measures_nothing():
    assert issubclass(Sharpness, pl.Callback)
    with pytest.raises(TypeError, match="abstract"):
        __import__("landscape.callbacks", fromlist=["LandscapeCallback"]).LandscapeCallback()
