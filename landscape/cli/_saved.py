"""Weights that a user names on the command line: checkpoints, state dicts, and every snapshot of a run file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from landscape.callbacks._offline import Saved
from landscape.callbacks._weights_file import read_position
from landscape.cli._loading import load_into
from landscape.cli._targets import RUN_SUFFIXES, build_model
from landscape.record import open_run

Place = tuple[int, int, int | None, Path]


def positions(paths: Sequence[Path]) -> list[Place]:
    """Put files in the order of their training.

    Args:
        paths: Checkpoints, state dicts or run files.

    Returns:
        Step, epoch, row in a run file (else None) and path of each, by step; where a step is not known or comes twice,
        they are numbered in the order given.
    """
    found: list[Place] = []
    for path in paths:
        if path.suffix in RUN_SUFFIXES:
            trajectory = open_run(path).trajectory()
            found += [
                (int(step), int(epoch), row, path)
                for row, (step, epoch) in enumerate(zip(trajectory.steps, trajectory.scalars["epoch"], strict=True))
            ]
        else:
            at = read_position(path)
            found.append((-1, -1, None, path) if at is None else (*at, None, path))
    steps = [step for step, *_ in found]
    if min(steps) < 0 or len(set(steps)) < len(steps):
        return [(number, epoch, row, path) for number, (_, epoch, row, path) in enumerate(found)]
    return sorted(found, key=lambda one: one[0])


def load(model: Any, places: Sequence[Place]) -> Iterator[Saved]:
    """Build a model once for each file, and load the saved weights into it one after another.

    Args:
        model: What makes a model; see `build_model`.
        places: As `positions` returns them.

    Yields:
        The model with each of the weights: to be measured before the next is asked for.
    """
    built: dict[Path, Any] = {}
    trajectories: dict[Path, Any] = {}
    for step, epoch, row, path in places:
        if path not in built:
            built[path] = build_model(model, path)
        if row is not None:
            if path not in trajectories:
                trajectories[path] = open_run(path).trajectory()
            one = trajectories[path].select([row])
            load_into(built[path], one.state_dict(next(iter(one))), path)
        yield Saved(step, epoch, built[path], str(path))
