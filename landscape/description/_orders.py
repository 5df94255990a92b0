"""Prequential code lengths over several orders of the examples: how far one of them may be from another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from landscape._results import Estimate, Result
from landscape.description._examples import as_batch
from landscape.description._prequential import prequential

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Orders(Result):
    """Prequential code lengths of the same labels in several orders: their mean, and how far they spread.

    Attributes:
        bits: Mean length.
        stderr: Its standard error over the orders; NaN for a single one.
        ratio: Mean ratio to the uniform code.
        ratio_stderr: Its standard error.
        lengths: The length of each order, exact, shape (orders,).
        block_bits: Length of each block, shape (orders, blocks).
        block_ends: Examples sent after each block, shape (blocks,).
        block_labels: Labels in each block, shape (orders, blocks).
        uniform_bits: Length of the uniform code.
        n_labels: How many labels were sent.
        classes: How many values a label can have.
        smoothing: Weight of the uniform distribution in every prediction.
        seeds: The seed of each order.
    """

    bits: float
    stderr: float
    ratio: float
    ratio_stderr: float
    lengths: Floats
    block_bits: Floats
    block_ends: Integers
    block_labels: Integers
    uniform_bits: float
    n_labels: int
    classes: int
    smoothing: float
    seeds: Integers


def prequential_orders(
    make_model: Callable[[], Any],
    examples: Any,
    train: Callable[[Any, Any], Any] | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    **options: Any,
) -> Orders:
    """Measure the prequential code length in several random orders of the examples, one a seed.

    The length in one order has no error: it is what that code takes. Another order, with other initial weights, takes
    another number of bits; the standard error is of the mean over orders.

    Args:
        make_model: As in `prequential`.
        examples: As in `prequential`; an iterable is read once.
        train: As in `prequential`.
        seeds: The seeds, all different.
        **options: Further arguments of `prequential`.

    Returns:
        Mean, standard error, and the length of every order.

    Raises:
        ValueError: There are no seeds, or one stands twice.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"found seeds {list(seeds)}, expected at least one, and each only once")
    everything = [as_batch(examples)]  # one batch, whatever its structure
    results = [prequential(make_model, everything, train, seed=seed, **options) for seed in seeds]
    bits = Estimate.from_samples([result.bits for result in results], None)
    ratio = Estimate.from_samples([result.ratio for result in results], None)
    first = results[0]
    return Orders(
        bits=bits.value,
        stderr=bits.stderr,
        ratio=ratio.value,
        ratio_stderr=ratio.stderr,
        lengths=np.array([result.bits for result in results]),
        block_bits=np.stack([result.block_bits for result in results]),
        block_ends=first.block_ends,
        block_labels=np.stack([result.block_labels for result in results]),
        uniform_bits=first.uniform_bits,
        n_labels=first.n_labels,
        classes=first.classes,
        smoothing=first.smoothing,
        seeds=np.asarray(seeds, dtype=np.int64),
    )
