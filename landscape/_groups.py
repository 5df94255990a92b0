"""Cut the measured examples of an objective into groups, each an objective of its own."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

from landscape import _batches
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
