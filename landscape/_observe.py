"""Weigh a batch by the loss functions that its training step calls."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F  # noqa: N812

from landscape.losses import LossCounter, LossCounts

LossObserver = LossCounter
LossCall = LossCounts

_CLASSES = (F.cross_entropy.__name__, F.nll_loss.__name__, "linear_cross_entropy")


def batch_weight(calls: Sequence[LossCounts], examples: int, summed: bool = False) -> tuple[float, float]:
    """Return (share, scale): the weight of a batch in the mean over all batches, and a factor on its loss.

    A loss with a mean over its own divisor (unmasked targets, class weights) weighs with that divisor. A summed loss is
    divided first: by the unignored targets (or their weights) where it classifies, by the examples elsewhere. Where no
    known loss was seen, or several that disagree, examples count.

    Args:
        calls: The counts of the losses called on this batch.
        examples: Its number of examples.
        summed: Whether the loss is known from elsewhere to be a sum over examples.

    Returns:
        The share (not normalised) and the scale.
    """
    reductions = {call.reduction for call in calls}
    divisors = {call.divisor for call in calls if call.reduction != "none"}
    divisor = divisors.pop() if len(divisors) == 1 else None
    own = float(examples) if divisor is None else divisor
    if reductions == {"sum"} or (summed and not calls):
        own = own if all(call.name in _CLASSES for call in calls) else float(examples)
        return own, 1.0 / own if own else 0.0
    return own, 1.0
