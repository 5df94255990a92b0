"""Labelled examples as one batch that can be put in order and cut into blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from landscape import _batches
from landscape._errors import MeasurementError
from landscape._private import pytree

Integers = npt.NDArray[np.int64]


def as_batch(examples: Any) -> Any:
    """Join examples into one batch.

    Args:
        examples: One batch, a tuple or dict of tensors (or nested structures of them) with the examples along the
            first dimension; or a list or other iterable of such batches, such as a DataLoader.

    Returns:
        The batch.

    Raises:
        MeasurementError: There are no examples, the batches do not fit together, or a leaf is no tensor of examples.
    """
    batches = [examples] if isinstance(examples, (tuple, dict)) else _listed(examples)
    if not batches:
        raise MeasurementError("there are no examples; expected one batch, or batches, with at least one")
    leaves, specs = zip(*(pytree.tree_flatten(batch) for batch in batches), strict=True)
    counts = [{len(leaf) if isinstance(leaf, torch.Tensor) and leaf.ndim else -1 for leaf in each} for each in leaves]
    if any(len(each) != 1 or -1 in each for each in counts) or any(spec != specs[0] for spec in specs):
        raise MeasurementError(
            "the examples cannot be put in order: expected batches of one structure whose leaves are tensors with the "
            "examples along their first dimension, such as (inputs, labels)"
        )
    try:
        whole = [torch.cat(column) if len(column) > 1 else column[0] for column in zip(*leaves, strict=True)]
    except RuntimeError as error:
        raise MeasurementError(
            f"the batches cannot be joined ({error}); give them with equal sizes beyond the first dimension"
        ) from None
    if not len(whole[0]):
        raise MeasurementError("there are no examples; expected one batch, or batches, with at least one")
    return pytree.tree_unflatten(whole, specs[0])


def take(batch: Any, indices: Integers | Sequence[int] | slice) -> Any:
    """Return some of the examples of a batch, by index, in the order of the indices."""
    index = indices if isinstance(indices, slice) else torch.as_tensor(np.asarray(indices, dtype=np.int64))
    return pytree.tree_map(lambda leaf: leaf[index if isinstance(index, slice) else index.to(leaf.device)], batch)


def on_device_of(batch: Any, model: Any) -> Any:
    """Return a batch where the first parameter of a model is; of what has none, unchanged."""
    parameters = getattr(model, "parameters", None)
    first = next(iter(parameters()), None) if callable(parameters) else None
    if not isinstance(first, torch.Tensor):
        return batch
    return pytree.tree_map(lambda leaf: leaf.to(first.device), batch)


def split_tail(batch: Any, fraction: float) -> tuple[Any, Any]:
    """Hold out the last examples of a batch, at least one.

    Args:
        batch: Two examples or more.
        fraction: Which part of them, rounded; one example stays at least.

    Returns:
        The examples before the tail, and the tail.
    """
    count = _batches.n_examples(batch)
    held = min(max(1, round(fraction * count)), count - 1)
    return take(batch, slice(0, count - held)), take(batch, slice(count - held, count))


def block_ends(blocks: int | Sequence[int], count: int) -> Integers:
    """Return how many examples have been sent after each block.

    Args:
        blocks: A number of blocks, each as long as all before it (the first two alike), or the ends themselves.
        count: Number of examples.

    Returns:
        The ends, increasing, the last being `count`. There are fewer blocks where there are too few examples.

    Raises:
        ValueError: No blocks, or ends that do not increase from 1 or more to `count`.
    """
    if isinstance(blocks, (int, np.integer)):
        if blocks < 1:
            raise ValueError(f"found {blocks} blocks, expected at least 1")
        # Whole numbers throughout: a float would round a count beyond 2^53.
        return np.unique([-(-count // 2 ** min(k, count.bit_length())) for k in range(int(blocks))]).astype(np.int64)
    ends = [int(end) for end in blocks]
    if not ends or ends[0] < 1 or ends[-1] != count or any(b <= a for a, b in zip(ends, ends[1:], strict=False)):
        raise ValueError(
            f"found block ends {list(blocks)}, expected numbers of examples that increase from at least 1 "
            f"to all {count}"
        )
    return np.asarray(ends, dtype=np.int64)


def check_fraction(name: str, value: float, inclusive: bool) -> None:
    """Refuse what is no fraction.

    Raises:
        ValueError: It is not between 0 (itself allowed if `inclusive`) and 1.
    """
    if not (math.isfinite(value) and (0 <= value < 1 if inclusive else 0 < value < 1)):
        raise ValueError(f"{name} is {value}, expected a number from 0 to below 1" + ("" if inclusive else ", not 0"))


def _listed(examples: Any) -> list[Any]:
    if isinstance(examples, torch.Tensor) or not isinstance(examples, Iterable):
        raise MeasurementError(
            f"the examples are a {type(examples).__name__}, expected a tuple (inputs, labels) or batches of that form"
        )
    return list(examples)
