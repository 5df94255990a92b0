"""Trainings with a clock that the test moves: what is measured, and what the rows say of it."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from landscape_test_trainings import Plain, Weighs, fit, loader, make_trainer, run_of, seed_all
from pytorch_lightning.callbacks import EarlyStopping

from landscape import open_run
from landscape.callbacks import Compressibility, HessianSpectrum, ModeConnectivity, Sharpness, SWATrajectory, _scheduler
from landscape.callbacks._effort import Prices, Work
from landscape.callbacks._scheduler import Scheduler


class Hand:
    """A clock that stands until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


HAND = Hand()


@pytest.fixture(autouse=True)
def _by_hand(monkeypatch):
    HAND.now = 0.0
    monkeypatch.setattr(Scheduler, "now", HAND)
    # A product takes two seconds a batch of 16, a gradient one.
    monkeypatch.setattr(_scheduler, "prices_of", lambda *given, **more: Prices(2.0, 1.0, 0.5, 16))


class Steps(Plain):
    """A step takes a second."""

    def on_train_batch_start(self, batch, batch_idx):
        HAND.now += 1.0


class Costs(Weighs):
    """A measure whose two forms take 12 seconds and 3."""

    draws = 4

    def forms(self):
        return [{}, {"draws": 1}]

    def work(self):
        return Work(gradients=1.0 * self.draws)

    def measure(self, objective, held_out, trainer):
        HAND.now += 3.0 * self.draws
        return super().measure(objective, held_out, trainer)


def rows_of(trainer, group="weighs"):
    return run_of(trainer).dataset(group)


def test_the_share_is_kept_and_the_ends_are_measured(tmp_path):
    trainer = fit(tmp_path, Costs(every_n_epochs=1, overhead="10%"), module=Steps(), max_epochs=100)
    rows = rows_of(trainer)
    assert (rows.status == "ok").all()
    spent = float((3.0 * np.where(rows.reduced == "", 4, 1)).sum())
    assert 0.07 * 300 <= spent <= 0.12 * 300
    assert (rows.step.values[0], rows.step.values[-1]) == (3, 300)
    assert float(rows.overhead[-1]) == pytest.approx(spent / 300)
    assert len(rows.step) + int(rows.left_out.sum()) == 100


def test_without_overhead_the_cadence_is_kept(tmp_path):
    trainer = fit(tmp_path, Costs(every_n_epochs=1), module=Steps(), max_epochs=4)
    rows = rows_of(trainer)
    assert rows.step.values.tolist() == [3, 6, 9, 12]
    assert rows.left_out.values.tolist() == [0] * 4
    assert set(rows.reduced.values) == {""}
    assert np.isnan(rows.overhead).all()
    assert rows.measured_examples.values.tolist() == [48] * 4


def test_a_training_that_is_stopped_early_is_measured_at_its_end(tmp_path):
    class Worse(Steps):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("rising", float(self.global_step), on_step=False, on_epoch=True)
            return loss

    stop = EarlyStopping("rising", patience=19, check_on_train_epoch_end=True)
    trainer = fit(tmp_path, Costs(every_n_epochs=1, overhead="2%"), stop, module=Worse(), max_epochs=100)
    rows = rows_of(trainer)
    assert trainer.global_step < 300
    assert (rows.step.values[0], rows.step.values[-1]) == (3, trainer.global_step)


def test_examples_are_fewer_when_probes_are_not_enough(tmp_path):
    class Dear(Costs):
        def measure(self, objective, held_out, trainer):
            HAND.now += self.draws * objective.n_examples / 16 - 3.0 * self.draws
            return super().measure(objective, held_out, trainer)

    seed_all()
    trainer = make_trainer(tmp_path, [Dear(every_n_epochs=1, examples=512, overhead="10%")], max_epochs=10)
    trainer.fit(Steps(), loader(640))
    rows = rows_of(trainer)
    # 400 s of training; an event takes 32 s a draw over 512 examples, and 8 s over 128.
    assert (rows.step.values[0], rows.step.values[-1]) == (40, 400)
    assert set(rows.measured_examples.values) == {128}
    assert 0.06 <= float(rows.overhead[-1]) <= 0.12
    assert all("examples=128" in text for text in rows.reduced.values)


@pytest.mark.parametrize("given", [False, True])
def test_smallest_forms_of_all_measures(tmp_path, given):
    batches = list(loader(256)) if given else None
    common = {"overhead": 1e-6, "on_error": "raise", "batches": batches, "examples": 256}
    callbacks = [
        HessianSpectrum(k=4, k_bottom=2, **common),
        Sharpness(measures=["gradient_norm", "average_case", "worst_case", "trace_chc"], **common),
        SWATrajectory(**common),
        Compressibility(family=["uniform-tensor", "uniform-channel"], **common),
        ModeConnectivity(curve_steps=100, **common),
    ]
    seed_all()
    trainer = make_trainer(tmp_path, callbacks, max_epochs=3)
    trainer.fit(Steps(), loader(256))
    spectrum, sharp, swa, bits, path = (
        rows_of(trainer, name)
        for name in ("hessian_spectrum", "sharpness", "swa_trajectory", "compressibility", "mode_connectivity")
    )
    for rows in (spectrum, sharp, bits):
        assert rows.step.values.tolist() == [16, 48]
        assert rows.measured_examples.values.tolist() == [32, 32]
    assert spectrum.n_matvecs.values.tolist() == [10, 10]
    assert np.isfinite(spectrum.eigenvalues_top[:, 0]).all()
    assert np.isnan(spectrum.eigenvalues_top[:, 1:]).all()
    assert (spectrum.converged_top[:, 1:] == -1).all()
    assert np.isfinite(spectrum.trace).all()
    assert np.isnan(spectrum.trace_stderr).all()
    assert np.isnan(spectrum.condition_number).all(), "one eigenvalue of four says nothing of the others"
    assert sharp.reduced.values[0] == "average_case.draws=4, worst_case.steps=5, trace_chc.max_matvecs=20, examples=32"
    assert swa.step.values.tolist() == [16, 32, 48]  # the weights of all epochs
    assert np.isfinite(swa.weights).all()
    assert np.isnan(swa.swa_train_loss.values[1]), "the second event records the weights alone"
    assert swa.n_averaged.values.tolist() == [1, 2, 3]
    middle = bits.bits.sel({"tolerance": 0.03, "family": "uniform-tensor"})
    assert np.isfinite(middle).all()
    assert np.isfinite(bits.bits).sum() == middle.size
    assert set(bits.reached.sel({"family": "uniform-channel"}).values.ravel()) == {-1}
    assert int(np.isfinite(path.curve_train_loss.sel(path="bezier")).sum()) == 7
    assert path.reduced.values[0] == "points=7, curve_steps=30, examples=32"


@pytest.mark.parametrize(("work", "batches"), [(Work(gradients=9.0), 1), (Work(batch_gradients=9.0), 2)])
def test_steps_of_one_batch_keep_the_batches_of_the_training(tmp_path, work, batches):
    seen = []

    class Looks(Weighs):
        def work(self):
            return work

        def measure(self, objective, held_out, trainer):
            seen.append(objective.batch_sizes)
            return super().measure(objective, held_out, trainer)

    seed_all()
    trainer = make_trainer(tmp_path, [Looks(every_n_epochs=1, examples=512, overhead=1e-6)], max_epochs=2)
    trainer.fit(Steps(), loader(640))
    assert [sum(sizes) for sizes in seen] == [32, 32]
    assert [len(sizes) for sizes in seen] == [batches, batches]


def test_lines_at_the_start_and_at_the_end(tmp_path, caplog):
    logger = logging.getLogger("pytorch_lightning")
    logger.setLevel(logging.INFO)
    logger.addHandler(caplog.handler)
    propagates, logger.propagate = logger.propagate, False
    try:
        fit(tmp_path, Costs(every_n_epochs=1, overhead="10%"), module=Steps(), max_epochs=100)
    finally:
        logger.removeHandler(caplog.handler)
        logger.setLevel(logging.ERROR)
        logger.propagate = propagates
    ours = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Landscape")]
    assert len(ours) == 2
    assert ours[0].startswith("Landscape measures weighs (100 events, 14 s each); as asked, 22 min in all")
    assert "of 100 times" in ours[1]
    assert "of 5 min of training" in ours[1]


def test_two_fits_of_one_trainer_have_clocks_of_their_own(tmp_path):
    seed_all()
    trainer = make_trainer(tmp_path, [Costs(every_n_epochs=1, overhead="10%")], max_epochs=30)
    module = Steps()
    trainer.fit(module, loader())
    trainer.fit_loop.max_epochs = 60
    trainer.fit(module, loader())
    rows = rows_of(trainer)
    assert {3, 90, 93, 180} <= set(rows.step.values.tolist())
    assert (rows.status == "ok").all()


def test_a_resumed_training_has_a_budget_for_what_is_left(tmp_path):
    def train(epochs, checkpoint=None):
        seed_all()
        trainer = make_trainer(tmp_path, [Costs(every_n_epochs=1, overhead="10%", path=path)], max_epochs=epochs)
        trainer.fit(Steps(), loader(), ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / "half.ckpt")

    path = tmp_path / "run.h5"
    train(50)
    HAND.now = 0.0
    train(100, tmp_path / "half.ckpt")
    rows = open_run(path).dataset("weighs")
    assert (rows.status == "ok").all()
    later = rows.isel(step=rows.step.values > 150)
    spent = float((3.0 * np.where(later.reduced == "", 4, 1)).sum())
    assert 0.07 * 150 <= spent <= 0.12 * 150
    assert {153, 300} <= set(rows.step.values.tolist())
