"""Take examples out of a batch, and join batches, where a reading says that the examples lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from landscape._containers import is_packed, opened
from landscape._examples import LISTED, Path


def take(batch: Any, plan: Mapping[Path, int], chosen: Sequence[int], path: Path = ()) -> Any:
    """Take some examples out of a batch.

    Args:
        batch: The batch.
        plan: Where its examples lie.
        chosen: Their numbers.
        path: Where `batch` stands in the whole.

    Returns:
        A batch of the same structure. What has no place in the plan is kept whole.
    """
    place = plan.get(path)
    if is_packed(batch):
        if place is None:
            return batch
        sequences = unpack_sequence(batch)
        return pack_sequence([sequences[index] for index in chosen], enforce_sorted=False)
    if isinstance(batch, (torch.Tensor, np.ndarray)):
        if place is None:
            return batch
        if place < LISTED:  # runs of -place entries
            chosen, place = [-place * index + k for index in chosen for k in range(-place)], 0
        if isinstance(batch, np.ndarray):
            return batch.take(chosen, axis=place)
        return batch.index_select(place, torch.tensor(chosen, device=batch.device))
    inside = opened(batch)
    if inside is None:
        return batch
    if place == LISTED:
        return inside.rebuild([inside.children[index] for index in chosen])
    return inside.rebuild([take(child, plan, chosen, (*path, i)) for i, child in enumerate(inside.children)])


def join(parts: Sequence[Any], plan: Mapping[Path, int], path: Path = ()) -> Any:
    """Join batches of one structure into one.

    Args:
        parts: The batches.
        plan: Where their examples lie.
        path: Where they stand in the whole.

    Returns:
        A batch with the examples of all.

    Raises:
        ValueError: They cannot be joined: they differ where they have no examples.
    """
    first, place = parts[0], plan.get(path)
    if is_packed(first):
        if place is None:
            raise ValueError("packed sequences without a number of examples")
        return pack_sequence([one for part in parts for one in unpack_sequence(part)], enforce_sorted=False)
    if isinstance(first, (torch.Tensor, np.ndarray)):
        if place is None:
            return _shared(parts)
        axis = max(place, 0)  # runs lie along the first
        if isinstance(first, np.ndarray):
            return np.concatenate(parts, axis=axis)
        return torch.cat(list(parts), dim=axis)
    inside = [opened(part) for part in parts]
    if any(one is None for one in inside):
        return _shared(parts)
    children = [one.children for one in inside if one is not None]
    assert inside[0] is not None
    if place == LISTED:
        return inside[0].rebuild([child for each in children for child in each])
    if len({len(each) for each in children}) != 1:
        raise ValueError("batches of different structure")
    together = zip(*children, strict=True)
    return inside[0].rebuild([join(column, plan, (*path, i)) for i, column in enumerate(together)])


def _shared(parts: Sequence[Any]) -> Any:
    """Return what all parts have in common where they hold no examples."""
    first = parts[0]
    for part in parts[1:]:
        tensors = isinstance(first, torch.Tensor) and isinstance(part, torch.Tensor)
        same = torch.equal(first, part) if tensors else np.array_equal(first, part)
        if not same:
            raise ValueError("batches that differ where they hold no examples")
    return first
