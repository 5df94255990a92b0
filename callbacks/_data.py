"""Draw the measurement batches: once, with a fixed seed, from data loaders of our own over the user's datasets."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from landscape import _batches
from landscape._batches import DrawnBatches
from landscape._private import pytree, reads_sequentially, validation_source
from landscape.callbacks._drawing import draw_one
from landscape.callbacks._sampling import length_of
from landscape.isolation import isolated


def stateful_parts(loaders: Any) -> list[Any]:
    """Return the datasets and collations behind a structure of data loaders: reading may change their state."""
    names = ("dataset", "collate_fn")
    parts = [getattr(loader, name, None) for loader in pytree.tree_leaves(loaders) for name in names]
    return [getattr(part, "__self__", part) for part in parts if part is not None]


def validation_loaders(trainer: Any, module: Any) -> Any:
    """Return the validation loaders of a fit, also before Lightning has asked for them; None where there are none."""
    if trainer.val_dataloaders is not None or not trainer.enable_validation:
        return trainer.val_dataloaders
    # Lightning sets them up before the first epoch that validates, which may be late; the source is asked by itself.
    source = validation_source(trainer)
    if not source.is_defined():
        return None
    with isolated(module, [trainer.datamodule]):
        return source.dataloader()


def first_loader(loaders: Any) -> Any:
    """Return the first loader where a list of validation loaders was given, None where there is none."""
    if isinstance(loaders, (list, tuple)):
        return loaders[0] if loaders else None
    return loaders


def reading_order(trainer: Any) -> dict[str, Any]:
    """Return how the training reads its loaders: the arguments `steps` and `sequential` of `draw`."""
    return {"steps": trainer.num_training_batches, "sequential": reads_sequentially(trainer)}


def draw(
    loaders: Any,
    examples: int | None,
    batch_size: int | None,
    seed: int,
    steps: float = math.inf,
    sequential: bool = False,
) -> DrawnBatches:
    """Draw measurement batches of the structure that a training step receives.

    The user's loaders are not iterated: their generators, samplers and workers stay as they are. Each is replaced by a
    loader in this process with the same collation: over a random choice of the items that its sampler yields, over
    a random choice of its batch sampler's whole batches, or over the beginning of a copy of its stream. Call it within
    `isolated`: the process-wide generators are seeded, so that transformations which draw from them are repeatable.

    Args:
        loaders: A data loader, or a nested structure of them as Lightning allows.
        examples: Number of examples; a batch sampler's batches, and streams of whole batches, may exceed it by less
            than a batch. None for all.
        batch_size: Examples a batch; by default the loader's own.
        seed: Seed of the choice.
        steps: Batches of a training epoch. Where the Trainer ends it early, data that are read in order are drawn from
            those batches.
        sequential: Whether the training reads several loaders one after another, instead of one batch of each a step.

    Returns:
        The batches, as the loaders' collation makes them, with the numbers of items in them. Several loaders give one
        batch each, and the shortest ends the set; `items` and `samples` are known where all give equally many items
        to each batch. Read one after another, they share the examples by the lengths of their datasets.

    Raises:
        MeasurementError: A dataset has no examples, or no end where all are wanted.
        Unreadable: A loader cannot be read without disturbing the training.
    """
    leaves, structure = pytree.tree_flatten(loaders)
    # Random transformations draw the same numbers in a resumed run; isolation puts the generators back.
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    if sequential and len(leaves) > 1:
        return _draw_in_turn(leaves, examples, batch_size, seed)
    limit = steps if len(leaves) == 1 else math.inf
    drawn = [draw_one(leaf, examples, batch_size, seed, limit) for leaf in leaves]
    # Several loaders give one batch each a step; the shortest ends the measurement set.
    batches = [pytree.tree_unflatten(list(parts), structure) for parts in zip(*drawn, strict=False)]
    items, samples = drawn[0].items, drawn[0].samples
    if len(drawn) > 1:
        counts = [part.items and part.items[: len(batches)] for part in drawn]
        items = counts[0] if counts.count(counts[0]) == len(counts) else None
        joined = zip(*(part.samples for part in drawn), strict=False)
        samples = [list(zip(*parts, strict=True)) for parts in joined] if items else []
    sources = dict.fromkeys(part.source for part in drawn)
    return DrawnBatches(batches, items, ", ".join(sources), samples, collation(loaders) if samples else None)


def collation(loaders: Any) -> Callable[[Sequence[Any]], Any]:
    """Return the function that makes a batch of items of the drawn batches' `samples`.

    Args:
        loaders: The loaders that were drawn from.

    Returns:
        Collates copies of the items, which stay as they are. An item is a tuple where there are several loaders.
    """
    leaves, structure = pytree.tree_flatten(loaders)

    def collate(items: Sequence[Any]) -> Any:
        copies = _batches.fresh(list(items))
        parts = [copies] if len(leaves) == 1 else [list(part) for part in zip(*copies, strict=True)]
        collated = [leaf.collate_fn(part) for leaf, part in zip(leaves, parts, strict=True)]
        return pytree.tree_unflatten(collated, structure)

    return collate


def _draw_in_turn(loaders: list[Any], examples: int | None, batch_size: int | None, seed: int) -> DrawnBatches:
    """Draw from loaders that the training reads one after another."""
    lengths = [length_of(getattr(loader, "dataset", None)) or 1 for loader in loaders]
    drawn = []
    for loader, length in zip(loaders, lengths, strict=True):
        share = None if examples is None else max(1, round(examples * length / sum(lengths)))
        drawn.append(draw_one(loader, share, batch_size, seed, math.inf))
    known = [part.items for part in drawn if part.items is not None]
    items = list(itertools.chain(*known)) if len(known) == len(drawn) else None
    sources = ", ".join(dict.fromkeys(part.source for part in drawn))
    return DrawnBatches(itertools.chain(*drawn), items, sources)
