"""Batches of any structure: how many examples they hold, moving, casting, cutting and fingerprinting them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from landscape._containers import leaves, mapped
from landscape._errors import MeasurementError
from landscape._examples import Reading, outside, readings
from landscape._pieces import take

__all__ = ["DrawnBatches", "cast", "fingerprint", "fresh", "leaves", "n_examples", "split"]


class DrawnBatches(list[Any]):
    """Measurement batches that were drawn from a loader, with what is known of the items in them.

    Attributes:
        items: Number of dataset items in each batch, in order; None where it is not known.
        source: Where the batches come from, such as "dataset".
        samples: The items of the first batches before collation, for checks that cut and join examples; may be empty.
        collate: Makes a batch of such items as the training loop would (collated, converted, on the device); None where
            `samples` is empty.
    """

    def __init__(
        self,
        batches: Iterable[Any] = (),
        items: Sequence[int] | None = None,
        source: str = "given",
        samples: Sequence[Sequence[Any]] = (),
        collate: Callable[[Sequence[Any]], Any] | None = None,
    ):
        super().__init__(batches)
        self.items = None if items is None else list(items)
        self.source = source
        self.samples = [list(part) for part in samples]
        self.collate = collate


def n_examples(batch: Any) -> int:
    """Count the examples of a batch, as the likeliest of its `readings` does.

    Returns:
        The count, 0 for an empty batch.

    Raises:
        MeasurementError: The batch holds no tensor with a batch dimension.
    """
    return readings([batch])[0].counts[0]


def cast(batch: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    """Copy a batch, its tensors moved to `device` and floating-point ones to `dtype`; None keeps their types."""

    def move(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            leaf = leaf.detach()
            return leaf.to(device, dtype if leaf.is_floating_point() else None, copy=True)
        return leaf.to(device) if hasattr(leaf, "to") and not isinstance(leaf, type) else leaf

    return mapped(move, batch)


def fresh(batch: Any) -> Any:
    """Copy containers and tensors, for a step that pops keys from its batch or changes it in place."""

    def copy(leaf: Any) -> Any:
        return leaf.clone() if callable(getattr(leaf, "clone", None)) and not isinstance(leaf, type) else leaf

    if type(batch) in (tuple, list) and all(type(leaf) is torch.Tensor for leaf in batch):
        return type(batch)(leaf.clone() for leaf in batch)  # what nearly all batches are, without a walk through a tree
    return mapped(copy, batch)


def split(batch: Any, size: int, reading: Reading | None = None, index: int = 0) -> Iterator[Any]:
    """Cut a batch into pieces of at most `size` examples.

    Args:
        batch: The batch.
        size: Examples a piece.
        reading: Where the examples lie; by default the likeliest reading of this batch.
        index: Number of the batch in the reading.

    Yields:
        Batches of the same structure.

    Raises:
        MeasurementError: A tensor of the batch does not have the examples along a dimension, so it cannot be cut.
    """
    reading = next(one for one in readings([batch]) if not one.flattened) if reading is None else reading
    count = reading.counts[index]
    if count <= size:
        yield batch
        return
    if (shape := outside(batch, reading.plan)) is not None:
        raise MeasurementError(
            f"a batch of {count} examples holds a tensor of shape {shape}, so it cannot be cut into groups of {size}; "
            f"measure with group=None, or give batches of at most {size} examples"
        )
    for start in range(0, count, size):
        yield take(batch, reading.plan, range(start, min(start + size, count)))


def fingerprint(batches: list[Any]) -> str:
    """SHA-256 over the values, shapes and types of everything in the batches, in order."""
    digest = hashlib.sha256()
    for batch in batches:
        for leaf in leaves(batch):
            if isinstance(leaf, torch.Tensor):
                flat = leaf.detach().cpu().contiguous().reshape(-1)
                digest.update(f"{leaf.dtype}{tuple(leaf.shape)}".encode())
                digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
            else:
                # An object without a text of its own is known by its kind: its address differs in every process.
                plain = type(leaf).__repr__ is not object.__repr__
                digest.update((repr(leaf) if plain else type(leaf).__qualname__).encode())
    return digest.hexdigest()
