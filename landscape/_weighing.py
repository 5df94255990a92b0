"""What a first look at the batches tells: the share of each in the mean, and whether the loss is a function at all."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

import torch

from landscape._errors import MeasurementError
from landscape._observe import LossObserver, batch_weight


class Watch(enum.Enum):
    """What has to be watched in later evaluations to know the error rate."""

    NOTHING = "nothing"  # no loss here knows classes
    LOSS = "loss"  # all calls come from the loss function that the objective was given
    STEP = "step"


def weigh(
    batch_loss: Callable[[int, LossObserver], torch.Tensor], sizes: Sequence[int], summed: bool
) -> tuple[list[float], list[float], Watch]:
    """Evaluate every batch once to learn its share of the mean and whether its loss is a sum.

    Args:
        batch_loss: The loss of a batch by index, with an observer that is to see the loss function alone.
        sizes: Examples of each batch.
        summed: Whether the loss is known to be a sum over examples.

    Returns:
        The weights of the batches in the mean, which sum to 1, a factor on the loss of each, and what to watch.

    Raises:
        MeasurementError: No target counts.
    """
    shares, scales = [], []
    classifies, elsewhere = False, False
    for index, examples in enumerate(sizes):
        alone = LossObserver()
        with LossObserver() as observer, torch.no_grad():
            batch_loss(index, alone)
        classifies |= observer.classifies
        elsewhere |= len(observer.calls) != len(alone.calls)
        share, scale = batch_weight(observer.calls, examples, summed)
        shares.append(share)
        scales.append(scale)
    total = sum(shares)
    if not total > 0:
        raise MeasurementError(
            "every target of the measurement batches is ignored or has weight 0, so the mean loss is undefined; "
            "measure batches with some counted targets"
        )
    watch = (Watch.STEP if elsewhere else Watch.LOSS) if classifies else Watch.NOTHING
    return [share / total for share in shares], scales, watch


def probe_determinism(batch_loss: Callable[[], torch.Tensor]) -> None:
    """Evaluate a batch twice: the two losses must agree.

    Args:
        batch_loss: The loss of one batch.

    Raises:
        MeasurementError: They differ by more than rounding.
    """
    with torch.no_grad():
        first, second = (batch_loss() for _ in range(2))
    # Reductions on many threads may differ in the last bits; randomness differs by far more.
    if not torch.allclose(first, second, rtol=1e-4, atol=1e-12, equal_nan=True):
        raise MeasurementError(
            f"the loss of one batch came out as {float(first):.8g} and then as {float(second):.8g}: it is not a "
            "function of the parameters. Usual causes: dropout called with its default training=True, noise or "
            "sampling in the step, a counter that changes the loss, non-deterministic kernels. Fix the cause, or "
            "pass noise_seed=0 to measure one fixed draw of the noise"
        )
