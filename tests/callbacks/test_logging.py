"""With `log=True` the scalars reach loggers, and callbacks that monitor them."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from landscape_test_trainings import (
    BUSY,
    NAMESPACES,
    Plain,
    Validated,
    Weighs,
    everything,
    held_out,
    loader,
    make_trainer,
    run_of,
    seed_all,
)
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from landscape import MeasurementError
from landscape.callbacks import HessianSpectrum, ModeConnectivity, SWATrajectory


def fit(folder, *callbacks, module=None, validation=False, **options):
    seed_all()
    trainer = make_trainer(folder, callbacks, **options)
    module = module or (Validated() if validation else Plain())
    trainer.fit(module, loader(), held_out() if validation else None)
    return trainer


def rows(trainer, group="weighs"):
    return run_of(trainer).dataset(group)


def logged_column(trainer, name, of="value"):
    """The logged values of a scalar, or the steps that they were logged at."""
    with Path(trainer.log_dir, "metrics.csv").open() as file:
        return [float(row["step" if of == "step" else name]) for row in csv.DictReader(file) if row.get(name)]


@pytest.mark.parametrize("cadence", [{"every_n_epochs": 1}, {"every_n_steps": 2}, {}])
def test_scalars_reach_the_loggers_once_and_at_the_step_of_the_file(tmp_path, cadence):
    trainer = fit(tmp_path, Weighs(log=True, **cadence), max_epochs=3)
    recorded = rows(trainer)
    expected = recorded["total"].values
    assert float(trainer.callback_metrics["landscape/total"]) == pytest.approx(expected[-1], rel=1e-6)
    np.testing.assert_array_equal(logged_column(trainer, "landscape/total"), expected)
    np.testing.assert_array_equal(logged_column(trainer, "landscape/total", "step"), recorded["step"].values)


def test_every_callback_logs_its_scalars(tmp_path):
    callbacks = everything(log=True, every_n_epochs=1)
    callbacks[-1] = ModeConnectivity(curve_steps=2, points=3, progress=False, log=True, every_n_epochs=2)
    trainer = fit(tmp_path, *callbacks, validation=True)
    expected = {f"landscape/{name}" for callback in callbacks for name in callback.scalar_names()}
    assert {name for name in trainer.callback_metrics if name.startswith("landscape/")} == expected
    assert all(torch.isfinite(trainer.callback_metrics[name]) for name in expected)
    table = run_of(trainer).dataset("compressibility").isel(step=-1)
    assert float(trainer.callback_metrics["landscape/bits_0.3"]) == float(table["bits"][1])


def spectrum(**options):
    return HessianSpectrum(k=1, k_bottom=1, probes=1, max_matvecs=6, trace_max_matvecs=8, log=True, **options)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("validation", [True, False])
def test_monitors_find_the_scalars_whatever_the_order(tmp_path, first, validation):
    monitors = [
        EarlyStopping("landscape/lambda_max", patience=1, mode="min", min_delta=1e9),
        ModelCheckpoint(tmp_path / "best", monitor="landscape/lambda_max", save_top_k=1, mode="max"),
    ]
    callbacks = [spectrum(), *monitors] if first else [*monitors, spectrum()]
    trainer = fit(tmp_path, *callbacks, validation=validation, max_epochs=6, enable_checkpointing=True)
    assert trainer.current_epoch == 2  # nothing falls by a milliard
    values = rows(trainer, "hessian_spectrum")["lambda_max"].values
    assert float(monitors[1].best_model_score) == pytest.approx(values.max(), rel=1e-6)


class SometimesFails(HessianSpectrum):
    """Fails at some of its events."""

    def __init__(self, fails, **options):
        super().__init__(k=1, k_bottom=1, probes=1, max_matvecs=6, trace_max_matvecs=8, log=True, **options)
        self.fails, self.events = fails, 0

    def measure(self, objective, held_out, trainer):
        self.events += 1
        if self.events in self.fails:
            raise MeasurementError("not today")
        return super().measure(objective, held_out, trainer)


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize(
    ("cadence", "fails"),
    [({"every_n_epochs": 1}, range(9)), ({"every_n_epochs": 1}, (1, 3)), ({"every_n_steps": 8}, ())],
)
def test_no_missing_and_no_failed_measurement_ends_a_training_or_is_the_best(tmp_path, validation, cadence, fails):
    stops = EarlyStopping("landscape/lambda_max", mode="max", patience=2)
    saves = ModelCheckpoint(tmp_path / "best", "{epoch}", monitor="landscape/lambda_max", save_top_k=2, mode="min")
    rising = SometimesFails(fails, **cadence)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "SometimesFails could not measure")
        options = {"max_epochs": 5, "enable_checkpointing": True}
        trainer = fit(tmp_path, rising, stops, saves, validation=validation, **options)
    data = rows(trainer, "hessian_spectrum")
    good = data["lambda_max"].values[data["status"].values == "ok"]
    assert stops.stopped_epoch == 0 or len(good) >= 3
    assert len(saves.best_k_models) == min(2, len(good))
    assert all(float(score) in good.astype(np.float32) for score in saves.best_k_models.values())
    assert torch.isfinite(trainer.callback_metrics["landscape/lambda_max"])
    assert not {"check_monitor_top_k", "_run_early_stopping_check"} & {*vars(stops), *vars(saves)}
    if len(good) == 0:
        assert trainer.current_epoch == 5
        assert saves.best_model_path == ""


@pytest.mark.parametrize("mode", ["min", "max"])
def test_patience_counts_measurements(tmp_path, mode):
    stops = EarlyStopping("landscape/lambda_max", mode=mode, min_delta=1e9, patience=2)
    trainer = fit(tmp_path, spectrum(every_n_epochs=2), stops, max_epochs=10)
    # Measured after the epochs 2, 4 and 6: the first is the best, the others exhaust the patience.
    assert (stops.wait_count, trainer.current_epoch) == (2, 6)


def test_a_checkpoint_of_every_epoch_leaves_none_out(tmp_path):
    saves = ModelCheckpoint(tmp_path / "all", "{epoch}", monitor="landscape/lambda_max", save_top_k=-1, mode="max")
    fit(tmp_path, spectrum(every_n_epochs=2), saves, max_epochs=3, enable_checkpointing=True)
    assert len(saves.best_k_models) == 3
    assert saves.best_model_path.endswith("epoch=1.ckpt")


def test_a_scheduler_that_monitors_a_value_finds_it_at_once(tmp_path):
    class OnPlateau(Plain):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", patience=5)
            return [optimizer], [{"scheduler": scheduler, "monitor": "landscape/lambda_max"}]

    trainer = fit(tmp_path, spectrum(every_n_epochs=2), module=OnPlateau(), max_epochs=3)
    (measured,) = rows(trainer, "hessian_spectrum")["lambda_max"].values
    assert trainer.lr_scheduler_configs[0].scheduler.best == pytest.approx(measured, rel=1e-6)


def test_what_does_not_exist_is_not_logged(tmp_path):
    class Regression(Plain):
        def training_step(self, batch, batch_idx):
            return torch.nn.functional.mse_loss(self.net(batch[0])[:, 0], batch[0][:, 0])

    trainer = fit(tmp_path, SWATrajectory(start=1, log=True), module=Regression(), max_epochs=3)
    found = {name for name in trainer.callback_metrics if name.startswith("landscape/")}
    assert found == {"landscape/swa_train_loss"}
    expected = rows(trainer, "swa_trajectory")["swa_train_loss"].values
    np.testing.assert_allclose(logged_column(trainer, "landscape/swa_train_loss"), expected)
    assert logged_column(trainer, "landscape/swa_train_error") == []


def test_keys_say_which_weights_and_which_callback(tmp_path):
    fits = [SWATrajectory(), Weighs(log=True), Weighs(log=True, weights="swa"), Weighs(log=True, name="other")]
    trainer = fit(tmp_path, *fits, Weighs(log=True, seed=1))
    found = {name for name in trainer.callback_metrics if name.startswith("landscape/")}
    others = {f"landscape/{group}/total" for group in ("weighs_swa", "other", "weighs_2")}
    assert found == {"landscape/total"} | others


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_monitors_of_both_namespaces(tmp_path, namespace):
    space = NAMESPACES[namespace]
    stops = space.callbacks.EarlyStopping("landscape/lambda_max", mode="max", min_delta=1e9, patience=1)
    trainer = make_trainer(tmp_path, [spectrum(every_n_epochs=2), stops], namespace, max_epochs=9)
    trainer.fit(BUSY[namespace](), loader(), held_out())
    assert trainer.current_epoch == 4


def test_a_logger_that_fails_does_not_end_the_training(tmp_path):
    trainer = make_trainer(tmp_path, [Weighs(log=True, every_n_epochs=1)])
    trainer.logger.log_metrics = _refuse
    with pytest.warns(UserWarning, match="Weighs could not log step 3: OSError: no connection"):
        trainer.fit(Plain(), loader())
    assert rows(trainer)["step"].values.tolist() == [3, 6]


def _refuse(metrics, step=None):
    if any(name.startswith("landscape/") for name in metrics):
        raise OSError("no connection")


def test_a_monitor_of_what_does_not_exist_is_told(tmp_path):
    class Regression(Plain):
        def training_step(self, batch, batch_idx):
            return torch.nn.functional.mse_loss(self.net(batch[0])[:, 0], batch[0][:, 0])

    stops = EarlyStopping("landscape/swa_train_error", patience=1)
    with pytest.warns(UserWarning, match="swa_train_error, of which SWATrajectory has no finite value") as caught:
        trainer = fit(tmp_path, SWATrajectory(log=True), stops, module=Regression(), max_epochs=3)
    assert sum("swa_train_error" in str(entry.message) for entry in caught) == 1
    assert (trainer.current_epoch, stops.wait_count) == (3, 0)


def test_a_monitor_that_cannot_be_made_to_wait_is_told(tmp_path, monkeypatch):
    monkeypatch.delattr(EarlyStopping, "_run_early_stopping_check")
    stops = EarlyStopping("landscape/lambda_max", mode="max", check_on_train_epoch_end=True)
    monkeypatch.setattr(stops, "_should_skip_check", lambda trainer: True)
    with pytest.warns(UserWarning, match="no longer checks monitored values by EarlyStopping.*The training goes on"):
        trainer = fit(tmp_path, spectrum(), stops, max_epochs=2)
    assert trainer.current_epoch == 2
    assert torch.isfinite(trainer.callback_metrics["landscape/lambda_max"])
