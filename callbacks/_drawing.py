"""Read measurement batches of one data loader, by a loader of our own over its dataset."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, Subset

from landscape import _batches
from landscape._batches import DrawnBatches
from landscape._errors import MeasurementError, words_of
from landscape._private import has_plain_iterator, pytree
from landscape.callbacks._copies import NotCopied, independent_copy
from landscape.callbacks._sampling import (
    Unreadable,
    choose_batches,
    choose_items,
    fill,
    length_of,
    makes_own_batches,
)

_SAMPLED = 3  # batches whose items are kept


def draw_one(loader: Any, examples: int | None, batch_size: int | None, seed: int, steps: float) -> DrawnBatches:
    """Draw from one loader; arguments as in `draw`.

    Returns:
        The batches, without `collate`.

    Raises:
        MeasurementError: There are no examples, or no end of them where all are wanted.
        Unreadable: The loader cannot be read without disturbing the training.
    """  # noqa: DOC502 - raised by the helpers
    _require_plain(loader)
    dataset = loader.dataset
    if isinstance(dataset, IterableDataset):
        return _draw_stream(loader, examples, batch_size, steps)
    batch_sampler = loader.batch_sampler
    if batch_sampler is None:  # the dataset's items are whole batches
        return _draw_whole(loader, examples, seed)
    options: dict[str, Any]
    source = "dataset"
    if makes_own_batches(loader):
        require_no_batch_size(batch_size, f"the batch sampler {type(batch_sampler).__name__}")
        source = "batch sampler"
        options = {"dataset": dataset, "batch_sampler": choose_batches(batch_sampler, dataset, examples, seed)}
    else:
        most = int(steps) * batch_sampler.batch_size if steps < (length_of(loader) or 0) else None
        chosen = choose_items(batch_sampler.sampler, dataset, examples, seed, most)
        options = {"dataset": Subset(dataset, chosen), "batch_size": batch_size or batch_sampler.batch_size}
    collate = _Collation(loader.collate_fn)
    try:
        batches = list(DataLoader(**options, collate_fn=collate, generator=torch.Generator()))
    except Exception as error:
        if not loader.num_workers:
            raise  # the training will fail too
        name = type(dataset).__name__
        raise Unreadable(
            f"the dataset {name} cannot be read outside of the loader's workers ({type(error).__name__}: "
            f"{words_of(error)})"
        ) from error
    return collate.drawn(batches, source)


def _draw_whole(loader: Any, examples: int | None, seed: int) -> DrawnBatches:
    """Draw from a dataset whose items are whole batches."""
    dataset, sampler = loader.dataset, loader.sampler
    chosen = choose_items(sampler, dataset, examples, seed)
    items = None
    if isinstance(chosen[0], list):  # a batch sampler in a sampler's place
        items = [len(index) for index in chosen]
        kept = fill(items, examples, seed)
        chosen, items = [chosen[position] for position in kept], [items[position] for position in kept]
    elif examples is not None:
        chosen = chosen[: max(1, -(-examples // _examples_of(dataset[chosen[0]])))]
    own = DataLoader(
        dataset, batch_size=None, sampler=chosen, collate_fn=loader.collate_fn, generator=torch.Generator()
    )
    return DrawnBatches(own, items, "dataset" if items is None else "batch sampler")


def _draw_stream(loader: Any, examples: int | None, batch_size: int | None, steps: float) -> DrawnBatches:
    """Draw the first examples of a copy of an iterable dataset, no more than an epoch reads."""
    dataset = loader.dataset
    name = type(dataset).__name__
    count = length_of(dataset) if examples is None else examples
    if steps < math.inf and loader.batch_size is not None:
        read = int(steps) * loader.batch_size
        count = read if count is None else min(count, read)
    if count is None:
        raise MeasurementError(
            f"examples=None asks for all training examples, but {name} has no length; give a number of examples"
        )
    try:
        copied = independent_copy(dataset)
    except NotCopied as error:
        raise Unreadable(f"the dataset {error}") from None
    try:
        drawn = _read_stream(loader, copied, count, batch_size)
    except Exception as error:
        raise Unreadable(f"a copy of the dataset {name} raised {type(error).__name__}: {words_of(error)}") from error
    if not drawn:
        raise MeasurementError(f"the dataset {name} is empty; there is nothing to measure")
    return drawn


def _read_stream(loader: Any, copied: Any, count: int, batch_size: int | None) -> DrawnBatches:
    source, own = "iterator copy", torch.Generator()
    if loader.batch_size is not None:
        collate, size = _Collation(loader.collate_fn), batch_size or loader.batch_size
        batches = list(DataLoader(_Head(copied, count), batch_size=size, collate_fn=collate, generator=own))
        return collate.drawn(batches, source)
    batches, total = [], 0
    for batch in DataLoader(copied, batch_size=None, collate_fn=loader.collate_fn, generator=own):
        batches.append(batch)
        total += _examples_of(batch)
        if total >= count:
            break
    return DrawnBatches(batches, None, source)


def _require_plain(loader: Any) -> None:
    """Refuse loaders whose batches are not made by dataset and collation alone.

    Raises:
        Unreadable: It is one of those.
    """
    kind = type(loader)
    if getattr(loader, "dataset", None) is None or not isinstance(loader, DataLoader):
        raise Unreadable(f"the data come from a {kind.__name__} without a dataset")
    # Loaders of other libraries finish their batches while they are iterated, such as samplers of graph neighbours.
    known = kind.__module__.partition(".")[0] == "torchdata"
    plain = has_plain_iterator(kind)
    if not (plain or known):
        raise Unreadable(f"the data come from a {kind.__name__}, which has an iterator of its own")


def require_no_batch_size(batch_size: int | None, owner: str) -> None:
    """Refuse a batch size where batches cannot be cut anew.

    Args:
        batch_size: Examples a batch that were asked for; None is fine.
        owner: Who decides which examples share a batch, for the sentence.

    Raises:
        MeasurementError: A batch size was given.
    """
    if batch_size is not None:
        raise MeasurementError(
            f"batch_size={batch_size} cannot be kept, as {owner} decides which examples share a batch; leave "
            "batch_size out, or give measurement batches to the callback as batches=[...]"
        )


def _examples_of(batch: Any) -> int:
    """Return the length of the longest leaf of a batch, at least 1."""
    return max((len(leaf) for leaf in pytree.tree_leaves(batch) if _is_long(leaf)), default=1) or 1


def _is_long(leaf: Any) -> bool:
    return hasattr(leaf, "__len__") and getattr(leaf, "ndim", 1) > 0


class _Collation:
    """A loader's collation that counts the items of each batch and keeps copies of the first ones."""

    def __init__(self, function: Callable[[Any], Any]):
        self._function = function
        self._items: list[int] = []
        self._samples: list[list[Any]] = []
        self._listed = True  # else the dataset fetches whole batches in a form of its own

    def __call__(self, items: Any) -> Any:
        self._listed &= isinstance(items, list)
        if self._listed:
            self._items.append(len(items))
            if len(self._samples) < _SAMPLED:
                self._samples.append(_batches.fresh(items))
        return self._function(items)

    def drawn(self, batches: list[Any], source: str) -> DrawnBatches:
        return DrawnBatches(batches, *((self._items, source, self._samples) if self._listed else (None, source)))


class _Head(IterableDataset[Any]):
    """The first items of a stream."""

    def __init__(self, dataset: Any, count: int):
        self._dataset = dataset
        self._count = count

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(iter(self._dataset), self._count)
