"""The callbacks' measures at saved weights, recorded into a file like that of a training."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from landscape.callbacks._base import LandscapeCallback
from landscape.callbacks._failing import failed_status, sentence
from landscape.callbacks._provenance import plain, versions
from landscape.callbacks._session import derivatives, evaluate, losses
from landscape.callbacks._trained import trainable_columns
from landscape.objective import Objective
from landscape.record import STATUS, GroupSchema, Recorder


@dataclasses.dataclass(frozen=True)
class Saved:
    """A model with saved weights, and where they come from.

    Attributes:
        step: Optimizer step, or the number of the file where steps are not known.
        epoch: Epoch, -1 where it is not known.
        model: The model with these weights.
        source: The file.
    """

    step: int
    epoch: int
    model: nn.Module
    source: str


def record_saved(
    path: Path,
    callbacks: Sequence[LandscapeCallback],
    saved: Iterable[Saved],
    objectives: Callable[[nn.Module], tuple[Objective, Objective | None]],
    attributes: dict[str, Any],
) -> Iterator[tuple[Saved, dict[str, tuple[str, str]]]]:
    """Measure saved weights, one row each and callback, as the callbacks would have recorded them in training.

    Args:
        path: The file to write, which must not exist.
        callbacks: Those whose measure needs weights and examples only: HessianSpectrum, Sharpness, Compressibility,
            LearningCoefficient.
        saved: The weights, in the order of their steps.
        objectives: Makes the objectives over training and held-out examples for a model.
        attributes: Further root attributes of the file.

    Yields:
        After each of the saved weights: what was measured, and by group the status and reason of rows that failed or
        hold a part of their values.
    """
    recorder: Recorder | None = None
    for one in saved:
        objective, held_out = objectives(one.model)
        if recorder is None:
            recorder = _create(path, callbacks, one, objective, held_out, attributes)
        train, held = evaluate(objective, held_out)
        failures: dict[str, tuple[str, str]] = {}
        for callback in callbacks:
            row: dict[str, Any] = {"step": one.step, "epoch": one.epoch} | losses(train, held)
            row |= trainable_columns(one.model)
            started = time.perf_counter()
            try:
                row |= {"status": 0, "reason": ""} | callback.take(objective, held_out, train)
            except Exception as error:
                row |= failed_status(error, sentence(error, type(one.model).__name__))
            if row["status"]:
                failures[callback.group] = STATUS[row["status"]], row["reason"]
            recorder.append(callback.group, row | {"wall_seconds": time.perf_counter() - started})
        yield one, failures
    if recorder is not None:
        recorder.close()


def _create(
    path: Path,
    callbacks: Sequence[LandscapeCallback],
    first: Saved,
    objective: Objective,
    held_out: Objective | None,
    attributes: dict[str, Any],
) -> Recorder:
    described = {
        "model": type(first.model).__name__,
        "n_parameters": objective.n_parameters,
        "hyper_parameters": plain(dict(getattr(first.model, "hparams", {}) or {})),
        "versions": versions(),
    }
    recorder = Recorder.create(path, described | attributes, objective.layout.plain())
    data = {"measured": objective.describe(), "held_out": held_out.describe() if held_out else "none were given"}
    data |= {"derivatives": derivatives(objective)}
    for callback in callbacks:
        declared = callback.schema(None, first.model)
        own = {"callback": type(callback).__name__, "settings": plain(callback.settings())}
        own |= declared.pop("attributes", {}) | data
        recorder.declare(GroupSchema(callback.group, callback.description, attributes=own, **declared))
    return recorder
