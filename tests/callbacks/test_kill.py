"""SIGKILL at random moments of a recording training: nothing acknowledged is lost, and the training can go on.

One warm process is forked for every training, so that a kill costs no interpreter start.
"""

from __future__ import annotations

import os
import random
import signal
import time
import warnings

import h5py
import numpy as np
import pytest
import pytorch_lightning as pl
import xarray as xr
from landscape_test_trainings import Plain, loader, make_trainer, seed_all

from landscape import open_run
from landscape.callbacks import HessianSpectrum, Sharpness, SWATrajectory
from landscape.callbacks._session import Session

EPOCHS = 40
GROUPS = ["hessian_spectrum", "sharpness", "swa_trajectory"]


class Saves(pl.callbacks.Checkpoint):
    """Saves the checkpoint under a temporary name first, so that a kill leaves the one before."""

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch % 2:
            trainer.save_checkpoint("saving.ckpt")
            os.replace("saving.ckpt", "last.ckpt")


def callbacks():
    common = {"examples": 16, "path": "run.h5", "on_error": "raise"}
    return [
        SWATrajectory(every_n_steps=1, **common),
        Sharpness(draws=2, steps=1, every_n_epochs=None, every_n_steps=1, **common),
        HessianSpectrum(k=1, k_bottom=1, probes=1, max_matvecs=4, trace_max_matvecs=8, **common),
        Saves(),
    ]


def train(folder, epochs, ckpt=None):
    os.chdir(folder)
    warnings.simplefilter("ignore")
    seed_all()
    trainer = make_trainer(folder, callbacks(), max_epochs=epochs, logger=False, enable_checkpointing=True)
    trainer.fit(Plain(lr=0.01), loader(generator=None, shuffle=False), ckpt_path=ckpt)


def acknowledging(folder, pipe):
    append = Session.append

    def say(session, group, row, *how):
        append(session, group, row, *how)
        os.write(pipe, f"{group} {row['step']}\n".encode())

    Session.append = say
    train(folder, EPOCHS)


def kill_one(forked, folder, delay):
    """Train in a child, kill it `delay` seconds after its first row, and return the acknowledged rows."""
    read, write = os.pipe()
    child = forked(acknowledging, folder, write)
    os.close(write)
    with os.fdopen(read, "rb") as said:
        first = said.readline()
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        lines = (first + said.read()).decode().splitlines()
    assert os.WIFSIGNALED(status), "the training ended before it was killed"
    acknowledged = {group: [] for group in GROUPS}
    for group, step in (line.split() for line in lines):
        acknowledged[group].append(int(step))
    return acknowledged


def check(path, acknowledged, in_xarray):
    """The file opens in h5py, the reader and, where it is asked for, xarray, and holds what was acknowledged."""
    with h5py.File(path, "r") as file:
        file.visititems(lambda _, item: item[()] if isinstance(item, h5py.Dataset) else None)
    if in_xarray:  # which takes longer than all the rest
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            tree.load()
    run = open_run(path)
    assert run.groups == GROUPS
    for group, steps in acknowledged.items():
        found = run.dataset(group)["step"].values.tolist()
        assert found[: len(steps)] == steps
        assert len(found) <= len(steps) + 1  # written, and not said yet
        assert set(run.dataset(group)["status"].values) <= {"ok"}
    return run


def go_on(forked, folder):
    """Resume from the last checkpoint, and compare with a training that was never stopped."""
    checkpoint = folder / "last.ckpt"
    child = forked(train, folder, 6, checkpoint)
    assert os.waitpid(child, 0)[1] == 0
    run = open_run(folder / "run.h5")
    assert run.dataset("sharpness")["step"].values.tolist() == list(range(1, 19))
    assert run.dataset("swa_trajectory")["n_averaged"].values.tolist() == list(range(1, 19))
    assert run.dataset("hessian_spectrum")["step"].values.tolist() == [3, 6, 9, 12, 15, 18]
    return run


def kill_many(forked, tmp_path, count, longest):
    whole = tmp_path / "whole"
    whole.mkdir()
    assert os.waitpid(forked(train, whole, 6), 0)[1] == 0
    expected = open_run(whole / "run.h5")
    generator = random.Random(0)
    rows, resumed = 0, 0
    for index in range(count):
        folder = tmp_path / str(index)
        folder.mkdir()
        acknowledged = kill_one(forked, folder, generator.uniform(0.0, longest))
        rows += sum(map(len, acknowledged.values()))
        run = check(folder / "run.h5", acknowledged, in_xarray=index % 5 == 4)
        # Every second one goes on, if it was saved within the epochs that are compared.
        saved = folder.joinpath("last.ckpt").exists() and max(acknowledged["sharpness"]) < 18
        if saved and index % 2:
            run = go_on(forked, folder)
            resumed += 1
            for group, name in (("sharpness", "average_case"), ("hessian_spectrum", "lambda_max")):
                np.testing.assert_array_equal(run.dataset(group)[name], expected.dataset(group)[name])
            np.testing.assert_array_equal(run.weights(), expected.weights())
    print(f"{count} kills, {rows} acknowledged rows, {resumed} resumed")
    return resumed


def test_three_kills(forked, tmp_path):
    kill_many(forked, tmp_path, 3, 0.5)


@pytest.mark.slow
def test_a_hundred_kills(forked, tmp_path):
    assert kill_many(forked, tmp_path, 100, 0.8) > 5


def test_a_reader_costs_no_row(tmp_path):
    class Reads(pl.Callback):
        """Opens the file as a plotting script does, and forgets to close it."""

        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                self.file = h5py.File("run.h5", "r")

        def on_train_end(self, trainer, pl_module):
            self.file.close()

    trainer = make_trainer(tmp_path, [Reads(), *callbacks()[:3]], max_epochs=4)
    trainer.fit(Plain(), loader())
    run = open_run("run.h5")
    assert run.dataset("sharpness")["step"].values.tolist() == list(range(1, 13))
    assert run.dataset("hessian_spectrum")["step"].values.tolist() == [3, 6, 9, 12]
