"""SIGKILL at random moments of a process that appends rows: every acknowledged row is there afterwards."""

import random

import h5py
import numpy as np
import pytest
import xarray as xr
from landscape_test_killed_writer import SCALARS, WEIGHTS, scalars_at, weights_at

from landscape.record import Recorder, open_run


def check(path, acknowledged, in_xarray=False):
    run = open_run(path)
    with h5py.File(path, "r") as file:
        file.visititems(lambda _, item: item[()] if isinstance(item, h5py.Dataset) else None)
    if in_xarray:  # which takes longer than all the rest
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            tree.load()
    for group, row_at in (("scalars", scalars_at), ("weights", weights_at)):
        if group not in run.groups:
            assert acknowledged[group] == []
            continue
        data = run.dataset(group)
        steps = data["step"].values.tolist()
        # A row may be complete without its acknowledgement having been said.
        assert steps[: len(acknowledged[group])] == acknowledged[group]
        assert len(steps) <= len(acknowledged[group]) + 1
        rows = [row_at(step) for step in steps]
        for name in rows[0] if rows else ():
            np.testing.assert_array_equal(data[name], np.stack([row[name] for row in rows]))
        assert set(data["status"].values) <= {"ok"}


def go_on(path):
    """Resume the killed run and append to it."""
    run = open_run(path)
    recorder = Recorder.resume(path, "killed", 10**6)
    for schema, row_at in ((SCALARS, scalars_at), (WEIGHTS, weights_at)):
        steps = run.dataset(schema.name)["step"].values.tolist() if schema.name in run.groups else []
        following = max(steps, default=-1) + 1
        recorder.declare(schema)
        for step in (following, following + 1):
            assert recorder.append(schema.name, row_at(step))
        check(
            path,
            {"scalars": [], "weights": [], schema.name: [*steps, following, following + 1]} | _others(path, schema),
        )
    recorder.close()
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    assert open_run(path).attributes["state"] == "finished"


def _others(path, schema):
    run = open_run(path)
    return {name: run.dataset(name)["step"].values.tolist() for name in run.groups if name != schema.name}


def kill_many(killed_writer, tmp_path, count, longest):
    generator = random.Random(0)
    for index in range(count):
        folder = tmp_path / str(index)
        folder.mkdir()
        path = folder / "landscape.h5"
        acknowledged = killed_writer(path, delay=generator.uniform(0.0, longest))
        check(path, acknowledged, in_xarray=index % 5 == 4)
        go_on(path)


def test_five_kills(killed_writer, tmp_path):
    kill_many(killed_writer, tmp_path, 5, 0.3)


@pytest.mark.slow
def test_a_hundred_kills(killed_writer, tmp_path):
    kill_many(killed_writer, tmp_path, 100, 0.8)
