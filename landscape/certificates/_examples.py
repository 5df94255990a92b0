"""The fingerprint of examples, whatever their order and however they are cut into batches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from landscape._batches import leaves, n_examples
from landscape._errors import MeasurementError


def examples_fingerprint(batches: Sequence[Any]) -> dict[str, Any]:
    """Hash every example by itself, and the sorted hashes together.

    Args:
        batches: Batches whose tensors have the examples along their first dimension; whatever is no such tensor counts
            to each example of its batch.

    Returns:
        "fingerprint" (SHA-256, hexadecimal) and "repeated", the number of examples equal to an earlier one.
    """
    digests = [digest for batch in batches for digest in _digests(batch)]
    joined = hashlib.sha256(b"".join(sorted(digests))).hexdigest()
    return {"fingerprint": joined, "repeated": len(digests) - len(set(digests))}


def require_draws(data: dict[str, Any], n: int) -> None:
    """Refuse examples of which some are copies of others.

    Args:
        data: As `examples_fingerprint` returned it.
        n: Number of examples.

    Raises:
        MeasurementError: Some are.
    """
    if data["repeated"]:
        raise MeasurementError(
            f"{data['repeated']} of {n} examples are equal to an earlier one. Copies are no independent draws, and the "
            "bound would be too small: give each example once (no oversampling, no sampler with replacement). If they "
            "were drawn so, as happens where inputs have few values, say repeats_are_draws=True (--repeats-are-draws)"
        )


def require_whole(batches: Any) -> None:
    """Refuse a data loader that leaves out the last examples.

    Args:
        batches: The examples as they were given; only a loader with `drop_last` is looked at.

    Raises:
        MeasurementError: Its last batch is dropped.
    """
    size: int | None = getattr(batches, "batch_size", None)
    sampler: Any = getattr(batches, "sampler", None)
    if not getattr(batches, "drop_last", False) or not size or not hasattr(sampler, "__len__"):
        return
    if left := len(sampler) % size:
        raise MeasurementError(
            f"the data loader has drop_last=True and leaves out {left} of {len(sampler)} examples, other ones at every "
            "shuffle, so the certificate could not be verified; give a loader with drop_last=False"
        )


def _digests(batch: Any) -> list[bytes]:
    count = n_examples(batch)
    if not count:
        return []
    shared, columns = hashlib.sha256(), []
    for leaf in leaves(batch):
        if isinstance(leaf, torch.Tensor) and leaf.ndim > 0 and leaf.shape[0] == count:
            shared.update(f"{leaf.dtype}{tuple(leaf.shape[1:])}".encode())
            columns.append(_bytes(leaf).reshape(count, -1))
        elif isinstance(leaf, torch.Tensor):
            shared.update(f"{leaf.dtype}{tuple(leaf.shape)}".encode() + _bytes(leaf).tobytes())
        else:
            # repr of a large array leaves out what is in the middle.
            whole = isinstance(leaf, np.ndarray)
            shared.update(f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes() if whole else repr(leaf).encode())
    rows = np.concatenate(columns, axis=1) if columns else np.zeros((count, 0), dtype=np.uint8)
    prefix = shared.digest()
    return [hashlib.sha256(prefix + row.tobytes()).digest() for row in rows]


def _bytes(tensor: torch.Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy() if flat.numel() else np.zeros(0, dtype=np.uint8)
