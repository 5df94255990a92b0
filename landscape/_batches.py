"""Batches of any structure: how many examples they hold, moving, casting, cutting and fingerprinting them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from landscape._errors import MeasurementError
from landscape._private import pytree


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


def leaves(batch: Any) -> list[Any]:
    """Return the leaves of nested tuples, lists and dicts."""
    return pytree.tree_leaves(batch)


def n_examples(batch: Any) -> int:
    """Count the examples of a batch: the length of the first dimension of its first tensor.

    Returns:
        The count, 0 for an empty batch.

    Raises:
        MeasurementError: The batch holds no tensor with a batch dimension.
    """
    for name in ("num_graphs", "batch_size"):  # graph and tensordict batches say it themselves
        declared = getattr(batch, name, None)
        if isinstance(declared, int):
            return declared
    for leaf in leaves(batch):
        if isinstance(leaf, torch.Tensor) and leaf.ndim > 0:
            return int(leaf.shape[0])
    raise MeasurementError(
        f"a measurement batch of type {type(batch).__name__} holds no tensor with a batch dimension, so its examples "
        "cannot be counted; give batches whose first tensor has the examples along its first dimension"
    )


def cast(batch: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Copy a batch, its tensors moved to `device` and floating-point ones to `dtype`."""

    def move(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            leaf = leaf.detach()
            return leaf.to(device, dtype if leaf.is_floating_point() else None, copy=True)
        return leaf.to(device) if hasattr(leaf, "to") and not isinstance(leaf, type) else leaf

    return pytree.tree_map(move, batch)


def fresh(batch: Any) -> Any:
    """Copy containers and tensors, for a step that pops keys from its batch or changes it in place."""

    def copy(leaf: Any) -> Any:
        return leaf.clone() if callable(getattr(leaf, "clone", None)) and not isinstance(leaf, type) else leaf

    if type(batch) in (tuple, list) and all(type(leaf) is torch.Tensor for leaf in batch):
        return type(batch)(leaf.clone() for leaf in batch)  # what nearly all batches are, without a walk through a tree
    return pytree.tree_map(copy, batch)


def split(batch: Any, size: int) -> Iterator[Any]:
    """Cut a batch into pieces of at most `size` examples along the first dimension of every tensor.

    Yields:
        Batches of the same structure.

    Raises:
        MeasurementError: The tensors of the batch disagree in their first dimension, so it cannot be cut.
    """
    count = n_examples(batch)
    for leaf in leaves(batch):
        if isinstance(leaf, torch.Tensor) and leaf.ndim > 0 and leaf.shape[0] != count:
            raise MeasurementError(
                f"a batch of {count} examples holds a tensor of shape {tuple(leaf.shape)}, so it cannot be cut into "
                f"groups of {size}; measure with group=None, or give batches of at most {size} examples"
            )
    for start in range(0, count, size):
        stop = min(start + size, count)

        def part(leaf: Any, start: int = start, stop: int = stop) -> Any:
            cut = isinstance(leaf, torch.Tensor) and leaf.ndim > 0
            return leaf[start:stop] if cut else leaf

        yield pytree.tree_map(part, batch)


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
                digest.update(repr(leaf).encode())
    return digest.hexdigest()
