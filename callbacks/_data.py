"""Draw the measurement batches: once, with a fixed seed, from data loaders of our own over the user's datasets."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from landscape._errors import MeasurementError
from landscape._private import pytree, validation_source
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


def draw(loaders: Any, examples: int | None, batch_size: int | None, seed: int) -> list[Any]:
    """Draw measurement batches of the structure that a training step receives.

    The user's loaders are not iterated: their generators, samplers and workers stay as they are. Each is replaced by a
    loader in this process over a random choice of its dataset's examples, with the same collation. Call it within
    `isolated`: the process-wide generators are seeded, so that transformations which draw from them are repeatable.

    Args:
        loaders: A data loader, or a nested structure of them as Lightning allows.
        examples: Number of examples, chosen without replacement; None for all.
        batch_size: Examples a batch; by default the loader's own.
        seed: Seed of the choice.

    Returns:
        The batches, as the loaders' collation makes them.

    Raises:
        MeasurementError: A loader has no dataset, or its dataset has no length, or no examples.
    """
    leaves, structure = pytree.tree_flatten(loaders)
    # Random transformations draw the same numbers in a resumed run; isolation puts the generators back.
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    drawn = [list(_measurement_loader(leaf, examples, batch_size, seed)) for leaf in leaves]
    if len(drawn) == 1:
        return [pytree.tree_unflatten([batch], structure) for batch in drawn[0]]
    # Several loaders give one batch each a step; the shortest ends the measurement set.
    return [pytree.tree_unflatten(list(parts), structure) for parts in zip(*drawn, strict=False)]


def _measurement_loader(loader: Any, examples: int | None, batch_size: int | None, seed: int) -> DataLoader:
    dataset = getattr(loader, "dataset", None)
    if dataset is None:
        raise MeasurementError(
            f"the training data come from a {type(loader).__name__} without a dataset, so no measurement batches can "
            "be drawn without disturbing the training; give them to the callback as batches=[...]"
        )
    count = _length(dataset)
    if count == 0:
        raise MeasurementError(f"the dataset {type(dataset).__name__} is empty; there is nothing to measure")
    chosen = np.arange(count)
    if examples is not None and examples < count:
        chosen = np.sort(np.random.default_rng(seed).permutation(count)[:examples])
    batched = getattr(loader, "batch_size", None) or getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
    if batched is None and getattr(loader, "batch_sampler", None) is None:
        return _unbatched(loader, dataset, examples, chosen)  # the dataset's items are whole batches
    return DataLoader(
        Subset(dataset, chosen.tolist()),
        batch_size=batch_size or batched or 256,
        collate_fn=loader.collate_fn,
        generator=torch.Generator(),
    )


def _unbatched(loader: Any, dataset: Dataset, examples: int | None, chosen: np.ndarray) -> DataLoader:
    items = chosen.tolist()
    if examples is not None:
        per_item = max(
            (len(leaf) for leaf in pytree.tree_leaves(dataset[items[0]]) if hasattr(leaf, "__len__")), default=1
        )
        items = items[: max(1, -(-examples // max(per_item, 1)))]
    return DataLoader(
        Subset(dataset, items), batch_size=None, collate_fn=loader.collate_fn, generator=torch.Generator()
    )


def _length(dataset: Any) -> int:
    try:
        if isinstance(dataset, IterableDataset):
            raise TypeError
        return len(dataset)
    except (TypeError, NotImplementedError):
        raise MeasurementError(
            f"the dataset {type(dataset).__name__} has no length or no items by index, so a fixed set of examples "
            "cannot be drawn from it without disturbing the training; give measurement batches to the callback as "
            "batches=[...]"
        ) from None
