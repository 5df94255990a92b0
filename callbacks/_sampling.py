"""Choose the dataset items to measure among those that a loader's samplers would train on."""

from __future__ import annotations

import contextlib
import itertools
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import BatchSampler, DistributedSampler, RandomSampler, SequentialSampler

from landscape._errors import MeasurementError, words_of
from landscape.callbacks._copies import NotCopied, independent_copy

_WHOLE = (SequentialSampler, RandomSampler, DistributedSampler)


class Unreadable(MeasurementError):
    """Raised for data that cannot be read beside the training without moving what the training reads."""

    def __init__(self, reason: str):
        super().__init__(
            f"{reason}, so no measurement batches can be drawn without disturbing the training; give them to the "
            "callback as batches=[...]"
        )
        self.reason = reason


def makes_own_batches(loader: Any) -> bool:
    """Return whether a batch sampler other than torch's own decides which items share a batch."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    return batch_sampler is not None and type(batch_sampler) is not BatchSampler


def choose_items(sampler: Any, dataset: Any, examples: int | None, seed: int, most: int | None = None) -> list[Any]:
    """Choose items uniformly, without replacement, among those that one epoch of a sampler yields.

    torch's sequential, random and distributed samplers train on all items. Of any other sampler a copy is iterated for
    one epoch under the process-wide seed. So items outside a subset are never measured, and an item that a weighted
    sampler yields twice has two chances: the mean over the choice estimates the loss that the training descends.

    Args:
        sampler: The loader's sampler.
        dataset: Its dataset.
        examples: Number of items to choose; None for all.
        seed: Seed of the choice.
        most: Number of items that an epoch reads where a limit of the Trainer ends it early.

    Returns:
        Indices of the dataset, sorted where they are numbers.

    Raises:
        MeasurementError: There is nothing to choose from, or no end to it.
        Unreadable: The sampler cannot be iterated without moving it.
    """
    population: Sequence[Any]
    if type(sampler) in _WHOLE:
        # A random sampler over fewer numbers than the dataset has items restricts it.
        count = len(getattr(sampler, "data_source", dataset))
        population = range(min(count, most) if most and type(sampler) is SequentialSampler else count)
    else:
        length = length_of(sampler)
        end = length_of(dataset) if length is None else length
        population = list(itertools.islice(_epoch(sampler, dataset), _end(end, examples, sampler)))
        with contextlib.suppress(TypeError):  # keys of a dictionary, or pairs of an index and its augmentation
            population = sorted(population, key=operator.index)
    if not population:
        raise MeasurementError(f"the dataset {type(dataset).__name__} is empty; there is nothing to measure")
    return [population[position] for position in _positions(len(population), examples, seed)]


def choose_batches(batch_sampler: Any, dataset: Any, examples: int | None, seed: int) -> list[list[Any]]:
    """Choose whole batches at random among those that one epoch of a batch sampler yields.

    Args:
        batch_sampler: Yields lists of indices; a copy of it is iterated.
        dataset: The loader's dataset.
        examples: Batches are chosen until they hold that many items, so the last may exceed it; None for all batches.
        seed: Seed of the choice.

    Returns:
        The batches' indices, in the order of the epoch.

    Raises:
        MeasurementError: There is nothing to choose from, or no end to it.
        Unreadable: The batch sampler cannot be iterated without moving it.
    """
    batches: list[list[Any]] = []
    length, total = length_of(batch_sampler), 0
    end = _end(length_of(dataset) if length is None else length, examples, batch_sampler)
    for batch in _epoch(batch_sampler, dataset):
        if (total if length is None else len(batches)) >= end:
            break
        batches.append(list(batch))
        total += len(batches[-1])
    if not total:
        raise MeasurementError(f"{type(batch_sampler).__name__} yields no batches; there is nothing to measure")
    return [batches[position] for position in fill(list(map(len, batches)), examples, seed)]


def fill(sizes: Sequence[int], examples: int | None, seed: int) -> list[int]:
    """Choose batches at random until they hold enough examples.

    Args:
        sizes: Examples of each batch.
        examples: Number of examples to reach; None for all batches.
        seed: Seed of the choice.

    Returns:
        Positions of the batches, ascending.
    """
    if examples is None:
        return list(range(len(sizes)))
    order = np.random.default_rng(seed).permutation(len(sizes))
    before = np.cumsum(np.asarray(sizes)[order]) - np.asarray(sizes)[order]
    return [int(position) for position in np.sort(order[before < examples])]


def _positions(count: int, examples: int | None, seed: int) -> list[int]:
    chosen = np.arange(count)
    if examples is not None and examples < count:
        chosen = np.sort(np.random.default_rng(seed).permutation(count)[:examples])
    return [int(position) for position in chosen]


def _epoch(sampler: Any, dataset: Any) -> Iterator[Any]:
    name = type(sampler).__name__
    try:
        copied = independent_copy(sampler, _behind(dataset))
    except NotCopied as error:
        raise Unreadable(f"the loader's sampler {error}") from None
    try:
        yield from copied
    except Exception as error:
        raise Unreadable(f"a copy of the loader's {name} raised {type(error).__name__}: {words_of(error)}") from error


def _behind(dataset: Any) -> list[Any]:
    """Return a dataset and those that it wraps."""
    found: list[Any] = []
    stack = [dataset]
    while stack:
        part = stack.pop()
        if part is not None and all(part is not other for other in found):
            found.append(part)
            stack.append(getattr(part, "dataset", None))
            inner = getattr(part, "datasets", None)
            stack.extend(inner if isinstance(inner, (list, tuple)) else ())
    return found


def _end(length: int | None, examples: int | None, sampler: Any) -> int:
    end = examples if length is None else length
    if end is None:
        raise MeasurementError(
            f"examples=None asks for all training examples, but neither {type(sampler).__name__} nor the dataset has "
            "a length; give a number of examples"
        )
    return end


def length_of(sized: Any) -> int | None:
    """Return the length of an object, None where it has none."""
    try:
        return len(sized)
    except (TypeError, NotImplementedError, AttributeError):
        return None
