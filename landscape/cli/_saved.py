"""Weights that a user names on the command line: checkpoints, state dicts, and every snapshot of a run file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from landscape.callbacks._offline import Saved
from landscape.callbacks._weights_file import read_position
from landscape.cli._targets import RUN_SUFFIXES, build_model, load_into
from landscape.record import open_run


def positions(paths: Sequence[Path]) -> list[tuple[int, int, Path]]:
    """Put files in the order of their training.

    Args:
        paths: Checkpoints, state dicts or run files.

    Returns:
        Step, epoch and path of each, by step; where a step is not known or comes twice, files are numbered in the
        order given.
    """
    found = []
    for path in paths:
        if path.suffix in RUN_SUFFIXES:
            trajectory = open_run(path).trajectory()
            found += [
                (int(step), int(epoch), path)
                for step, epoch in zip(trajectory.steps, trajectory.scalars["epoch"], strict=True)
            ]
        else:
            at = read_position(path)
            found.append((-1, -1, path) if at is None else (*at, path))
    steps = [step for step, _, _ in found]
    if min(steps) < 0 or len(set(steps)) < len(steps):
        return [(number, epoch, path) for number, (_, epoch, path) in enumerate(found)]
    return sorted(found, key=lambda one: one[0])


def load(model: Any, places: Sequence[tuple[int, int, Path]]) -> Iterator[Saved]:
    """Build the model once a file, and load each of the saved weights into it.

    Args:
        model: What makes a model; see `build_model`.
        places: As `positions` returns them.

    Yields:
        The weights in a model, one after another.
    """
    runs: dict[Path, Any] = {}
    for step, epoch, path in places:
        built = build_model(model, path)
        if path.suffix in RUN_SUFFIXES:
            if path not in runs:
                trajectory = open_run(path).trajectory()
                runs[path] = (trajectory, enumerate(trajectory))
            trajectory, vectors = runs[path]
            index, vector = next(vectors)
            load_into(built, trajectory.select([index]).state_dict(vector), path)
        yield Saved(step, epoch, built, str(path))
