"""Every callback records on another device what it records on the CPU, and the training is the same with or without."""

from __future__ import annotations

import contextlib
import logging
import warnings
from typing import Any

import pytest
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.strategies import SingleDeviceStrategy

from landscape import callbacks as public
from landscape.callbacks import LearningCoefficient, LossSurface, SharpnessMonitor

COMMON = {"examples": 24}


class PretendAccelerator(CPUAccelerator):
    """What Lightning needs to train on the device."""

    def setup_device(self, device: Any) -> None:
        """Prepare nothing."""


@pytest.fixture(autouse=True)
def _quiet(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


def callbacks(trainings: Any) -> list[Any]:
    """All of them, cheap."""
    return [
        *trainings.everything(**COMMON),
        LearningCoefficient(chains=1, draws=6, step_size=1e-4, **COMMON),
        LossSurface(points=3, progress=False, **COMMON),
        SharpnessMonitor(every_n_steps=2),
    ]


def train(trainings: Any, folder: Any, device: Any, chosen: Any) -> tuple[Any, dict[str, Any]]:
    """Train with dropout, batch normalisation and metrics on a device."""
    trainings.seed_all()
    strategy = SingleDeviceStrategy(device, accelerator=PretendAccelerator())
    module = trainings.BUSY["pytorch_lightning"]()
    data = trainings.loader()
    trainer = trainings.make_trainer(folder, chosen, strategy=strategy, accelerator="auto", max_epochs=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*tensorboard.*")
        trainer.fit(module, data, trainings.held_out())
    return trainer, trainings.left_behind(trainer, module, data.dataset, data.generator)


@pytest.fixture(scope="module")
def fits(trainings, pretend, tmp_path_factory) -> dict[str, Any]:
    """The same training with all callbacks and with none."""
    folder = tmp_path_factory.mktemp("fits")
    with contextlib.chdir(folder):
        return {
            "none": train(trainings, folder / "none", pretend, []),
            "all": train(trainings, folder / "all", pretend, callbacks(trainings)),
        }


def test_training_is_bit_identical_with_and_without_callbacks(trainings, accelerator, fits):
    (_, without), (_, measured) = fits["none"], fits["all"]
    trainings.assert_identical(without, measured)


def test_every_callback_records_rows_without_a_failure(trainings, fits):
    run = trainings.run_of(fits["all"][0])
    assert len(run.groups) == 8
    for group in run.groups:
        rows = run.dataset(group)
        assert rows.sizes["row"] > 0 if "row" in rows.sizes else rows.sizes
        assert set(rows["reason"].values) <= {""}, group


def test_every_public_callback_is_among_them(trainings):
    kinds = {type(callback).__name__ for callback in callbacks(trainings)}
    assert set(public.__all__) - kinds == {"LandscapeCallback", "default_callbacks"}
