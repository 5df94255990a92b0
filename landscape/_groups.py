"""Cut the measured examples of an objective: into groups, each an objective of its own, or into smaller batches."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

from landscape import _batches
from landscape._errors import MeasurementError
from landscape._step import SkippedBatch
from landscape._weighing import NoTargets

if TYPE_CHECKING:
    from landscape.objective import Objective


def groups(objective: Objective, size: int) -> list[Objective]:
    """Make one objective for each group of at most `size` examples; `Objective.split` says more.

    Args:
        objective: The objective over all examples.
        size: Examples a group.

    Returns:
        The objectives. Groups without a counted target are left out.

    Raises:
        NoTargets: No target counts in any group.
        ValueError: `size` is not positive.
    """
    if size < 1:
        raise ValueError(f"size is {size}; a group needs at least one example")
    known = objective._weighting
    if known.divisor == "measured":  # the share of a single group is 1, whatever it divides by
        known = dataclasses.replace(known, divisor="batches")
    made = []
    # Every process cuts all batches alike; who evaluates a group is decided later.
    for index in (i for i, weight in enumerate(objective.batch_weights) if weight > 0):
        examples = objective.batch_sizes[index]
        pieces = _batches.split(objective.batches[index], size, objective._reading, index)
        for start, piece in zip(range(0, examples, size), pieces, strict=True):
            held = _batches.DrawnBatches([piece], [min(size, examples - start)], objective.source)
            with contextlib.suppress(NoTargets, SkippedBatch):
                made.append(objective._over(held, objective.dtype, known))
    if not made:
        raise NoTargets(
            f"in no group of {size} examples does a target count, or the loss is not a number, so there is nothing "
            "to measure group by group"
        )
    return made


def cut(objective: Objective, size: int) -> Objective:
    """Return the same loss over the same examples in batches of at most `size`, whose graphs are smaller.

    Args:
        objective: The objective, of this process alone. Where it is in a session, the new one is in it too, and is to
            be used within it.
        size: Examples a batch.

    Returns:
        An objective whose loss differs by rounding alone. The objective itself where its batches must stay as they are:
        where the loss is no mean over anything, in train mode, with fixed noise, and where a batch cannot be cut.
    """
    fixed = objective.weighting == "batches" or objective.mode != "eval" or objective.noise_seed is not None
    if fixed or objective.processes.size > 1 or max(objective.batch_sizes) <= size:
        return objective
    pieces: list[Any] = []
    sizes: list[int] = []
    try:
        for index in (i for i, weight in enumerate(objective.batch_weights) if weight > 0):
            examples = objective.batch_sizes[index]
            pieces += _batches.split(objective.batches[index], size, objective._reading, index)
            sizes += [min(size, examples - start) for start in range(0, examples, size)]
        made = objective._over(_batches.DrawnBatches(pieces, sizes, objective.source), objective.dtype)
    except MeasurementError:
        return objective
    made._depth = objective._depth
    return made
