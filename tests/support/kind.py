"""A module kind: how to build it, which data it trains on, and what its loss divides by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

N, BATCH = 32, 12  # examples and batch size: batches of 12, 12 and 8


def registered(module: nn.Module) -> list[nn.Parameter]:
    """Return the registered parameters that train now."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def in_order(loader: DataLoader) -> list[Any]:
    """Return the batches of all items in the dataset's order, as the loader collates them."""
    return list(DataLoader(loader.dataset, batch_size=loader.batch_size, collate_fn=loader.collate_fn))


def first_dimension(batch: Any) -> int:
    """Count examples along the first dimension of a batch's first tensor."""
    return len(batch[0])


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of module with its data.

    Attributes:
        name: Its name on the page.
        about: One line for the page.
        module: Builds the LightningModule; called after `torch.manual_seed`.
        loader: Builds the training loader.
        count: Number of examples in a batch.
        share: What the loss of a batch divides by, s_b; the number of examples by default.
        batches: The batches that should be measured, in order.
        parameters: The parameters that train now.
        common: Arguments of every callback of the toolkit.
        callbacks: Builds further callbacks of Lightning, which stand before the toolkit's.
        trainer: Further options of the Trainer.
        copied: Copies a module for the reference; `copy.deepcopy` by default.
        leaves_out: Regimes that Lightning or torch itself does not allow for this kind.
        only: The only regimes to run, where not all are of interest.
        warms: Whether the first training in a process differs from the next ones, without any callback too.
    """

    name: str
    about: str
    module: Callable[[], pl.LightningModule]
    loader: Callable[[], DataLoader]
    count: Callable[[Any], int] = first_dimension
    share: Callable[[Any], float] | None = None
    batches: Callable[[DataLoader], list[Any]] = in_order
    parameters: Callable[[nn.Module], list[nn.Parameter]] = registered
    common: dict[str, Any] = dataclasses.field(default_factory=dict)
    callbacks: Callable[[], list[Any]] = list
    trainer: dict[str, Any] = dataclasses.field(default_factory=dict)
    copied: Callable[[nn.Module], nn.Module] | None = None
    leaves_out: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    warms: bool = False

    def shares(self, batches: list[Any]) -> list[float]:
        """Return s_b of every batch."""
        return [float((self.share or self.count)(batch)) for batch in batches]


class Learns(pl.LightningModule):
    """A LightningModule that trains by SGD with momentum."""

    lr = 0.1

    def configure_optimizers(self) -> Any:
        """Return the optimiser."""
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


def loader(dataset: Any, **options: Any) -> DataLoader:
    """Return a shuffling loader with a generator of its own."""
    settings = {"batch_size": BATCH, "shuffle": True, "generator": torch.Generator().manual_seed(7)}
    return DataLoader(dataset, **(settings | options))


def points(features: int = 4, classes: int = 3, n: int = N) -> tuple[torch.Tensor, torch.Tensor]:
    """Return Gaussian inputs, shape (n, features), and labels that depend on them, shape (n,)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, features, generator=generator)
    scores = x @ torch.randn(features, classes, generator=generator)
    return x, (scores + torch.randn(n, classes, generator=generator)).argmax(dim=1)


def tokens(length: int = 5, vocabulary: int = 7, n: int = N) -> torch.Tensor:
    """Return random tokens, shape (n, length)."""
    return torch.randint(1, vocabulary, (n, length), generator=torch.Generator().manual_seed(1))


def network(outputs: int = 3, inputs: int = 4, width: int = 5) -> nn.Sequential:
    """Return a tanh network."""
    return nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, outputs))
