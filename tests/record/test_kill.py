"""SIGKILL at random moments of a process that appends rows: every acknowledged row is there afterwards."""

import importlib.util
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

import landscape
from landscape.record import Recorder, open_run

SCRIPT = Path(__file__).with_name("killed_writer.py")
SPEC = importlib.util.spec_from_file_location("killed_writer", SCRIPT)
writer = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(writer)


def kill_one(path, delay):
    """Run the writer, kill it `delay` seconds after its file has appeared, and return what it acknowledged."""
    environment = os.environ | {"PYTHONPATH": str(Path(landscape.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, SCRIPT, path], stdout=subprocess.PIPE, env=environment)
    with process:
        assert process.stdout.readline() == b"created\n"
        time.sleep(delay)
        process.kill()
        lines = process.stdout.read().decode().splitlines()
    acknowledged = {"scalars": [], "weights": []}
    for line in lines:
        group, step = line.split()
        acknowledged[group].append(int(step))
    return acknowledged


def check(path, acknowledged):
    run = open_run(path)
    with h5py.File(path, "r") as file:
        file.visititems(lambda _, item: item[()] if isinstance(item, h5py.Dataset) else None)
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        tree.load()
    for group, row_at in (("scalars", writer.scalars_at), ("weights", writer.weights_at)):
        if group not in run.groups:
            assert acknowledged[group] == []
            continue
        data = run.dataset(group)
        steps = data["step"].values.tolist()
        # A row may be complete without its acknowledgement having been said.
        assert steps[: len(acknowledged[group])] == acknowledged[group]
        assert len(steps) <= len(acknowledged[group]) + 1
        for index, step in enumerate(steps):
            for name, value in row_at(step).items():
                np.testing.assert_array_equal(data[name][index], value)
        assert set(data["status"].values) <= {"ok"}


def go_on(path):
    """Resume the killed run and append to it."""
    run = open_run(path)
    recorder = Recorder.resume(path, "killed", 10**6)
    for schema, row_at in ((writer.SCALARS, writer.scalars_at), (writer.WEIGHTS, writer.weights_at)):
        steps = run.dataset(schema.name)["step"].values.tolist() if schema.name in run.groups else []
        following = max(steps, default=-1) + 1
        recorder.declare(schema)
        for step in (following, following + 1):
            assert recorder.append(schema.name, row_at(step))
        check(
            path,
            {"scalars": [], "weights": [], schema.name: [*steps, following, following + 1]} | _others(path, schema),
        )
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def _others(path, schema):
    run = open_run(path)
    return {name: run.dataset(name)["step"].values.tolist() for name in run.groups if name != schema.name}


def kill_many(tmp_path, count, longest):
    generator = random.Random(0)
    for index in range(count):
        folder = tmp_path / str(index)
        folder.mkdir()
        path = folder / "landscape.h5"
        acknowledged = kill_one(path, generator.uniform(0.0, longest))
        check(path, acknowledged)
        go_on(path)


def test_five_kills(tmp_path):
    kill_many(tmp_path, 5, 0.6)


@pytest.mark.slow
def test_a_hundred_kills(tmp_path):
    kill_many(tmp_path, 100, 1.5)
