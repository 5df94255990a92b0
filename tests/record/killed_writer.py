"""Appends rows as fast as it can and says so after each; the fixture `killed_writer` forks it and kills it."""

import os

import numpy as np

from landscape.record import Coordinate, GroupSchema, Recorder, Variable

N = 20_000
SCALARS = GroupSchema(
    "scalars",
    "scalars and a vector",
    [Variable("a"), Variable("b", dtype="i8"), Variable("vector", ("i",))],
    [Coordinate("i", range(100))],
)
WEIGHTS = GroupSchema(
    "weights", "a large row", [Variable("weights", ("parameter",), "f4")], [Coordinate("parameter", N)]
)


def scalars_at(step):
    return {"step": step, "epoch": step, "a": step / 3, "b": -step, "vector": np.sin(np.arange(100) + step)}


def weights_at(step):
    return {"step": step, "weights": (np.arange(N) % 97 + step).astype(np.float32)}


def main(path, pipe):
    def say(*words):
        os.write(pipe, (" ".join(map(str, words)) + "\n").encode())

    recorder = Recorder.create(path, {}, run_id="killed")
    say("created")
    recorder.declare(SCALARS)
    for step in range(10**6):
        if recorder.append("scalars", scalars_at(step)):
            say("scalars", step)
        if step == 3:
            recorder.declare(WEIGHTS)
        if step >= 3 and recorder.append("weights", weights_at(step)):
            say("weights", step)
