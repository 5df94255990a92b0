"""With `log=True` the scalars reach loggers, and callbacks that monitor them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from landscape_test_trainings import (
    Plain,
    Validated,
    Weighs,
    everything,
    held_out,
    loader,
    make_trainer,
    run_of,
    seed_all,
    warned,
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


def logged_column(trainer, name):
    with Path(trainer.log_dir, "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


@pytest.mark.parametrize("cadence", [{"every_n_epochs": 1}, {"every_n_steps": 3}])
def test_scalars_reach_the_loggers(tmp_path, cadence):
    trainer = fit(tmp_path, Weighs(log=True, **cadence))
    expected = rows(trainer)["total"].values
    assert float(trainer.callback_metrics["landscape/total"]) == pytest.approx(expected[-1], rel=1e-6)
    np.testing.assert_allclose(logged_column(trainer, "landscape/total"), expected, rtol=1e-6)


def test_every_callback_logs_its_scalars(tmp_path):
    callbacks = everything(log=True, every_n_epochs=1)
    callbacks[-1] = ModeConnectivity(curve_steps=2, points=3, progress=False, log=True, every_n_epochs=2)
    trainer = fit(tmp_path, *callbacks, validation=True)
    expected = {f"landscape/{name}" for callback in callbacks for name in callback.scalar_names()}
    assert {name for name in trainer.callback_metrics if name.startswith("landscape/")} == expected
    assert all(torch.isfinite(trainer.callback_metrics[name]) for name in expected)
    table = run_of(trainer).dataset("compressibility").isel(step=-1)
    assert float(trainer.callback_metrics["landscape/bits"]) == float(table["bits"][1])


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


def test_monitors_of_a_failed_measurement_see_nan(tmp_path):
    class Fails(HessianSpectrum):
        def measure(self, objective, held_out, trainer):
            raise MeasurementError("not today")

    monitors = [
        EarlyStopping("landscape/lambda_max", check_finite=False, patience=9),
        ModelCheckpoint(tmp_path / "best", monitor="landscape/lambda_max"),
    ]
    with pytest.warns(UserWarning, match="not today") as caught:
        trainer = fit(tmp_path, Fails(log=True), *monitors, max_epochs=3, enable_checkpointing=True)
    assert warned(caught) == ["Fails could not measure at step 3: not today"]
    assert trainer.current_epoch == 3
    assert torch.isnan(trainer.callback_metrics["landscape/lambda_max"])


def test_monitors_of_an_average_that_has_not_begun_see_nan(tmp_path):
    callback = SWATrajectory(start=2, log=True)
    stops = EarlyStopping("landscape/swa_train_loss", check_finite=False, patience=9)
    trainer = fit(tmp_path, callback, stops, max_epochs=3)
    assert np.isnan(logged_column(trainer, "landscape/swa_train_loss")).tolist() == [True, True, False]


def test_the_last_event_after_training_logs_nothing(tmp_path):
    trainer = fit(tmp_path, Weighs(log=True))
    assert rows(trainer)["step"].values.tolist() == [6]
    assert not [name for name in trainer.callback_metrics if name.startswith("landscape/")]
