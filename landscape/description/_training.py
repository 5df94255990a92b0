"""The training that the sender and the receiver of a prequential code agree on, for plain modules."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from landscape import _batches
from landscape.description._examples import check_fraction, on_device_of, split_tail, take

FEWEST = 3  # examples to train on: two, for batch normalisation, and one that is held out


@dataclasses.dataclass(frozen=True)
class AdamTraining:
    """Train a module by Adam on what has been sent, and stop by the tail of it, which is held out.

    Every `every` steps the loss of the held-out tail is taken in eval mode; the training ends when it has not fallen
    for `patience` looks, and the weights with the lowest are kept, the initial ones included. Only examples that both
    sides know are looked at, so the choice costs no bits. With fewer than three examples nothing is trained.

    Attributes:
        learning_rate: Of Adam.
        batch_size: Examples a step, drawn in random order by torch's global generator.
        steps: The most steps.
        every: Steps from look to look.
        patience: Looks without a lower loss after which it stops.
        held_out: Fraction of the examples sent that is held out, at least one example.
        loss_fn: Mean loss of (output, target).
    """

    learning_rate: float = 1e-3
    batch_size: int = 32
    steps: int = 2000
    every: int = 10
    patience: int = 20
    held_out: float = 0.1
    loss_fn: Callable[..., torch.Tensor] = F.cross_entropy

    def __post_init__(self) -> None:
        check_settings(self.batch_size, self.steps, self.every, self.patience, self.held_out)
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be a positive finite number")

    def __call__(self, model: torch.nn.Module, examples: Any) -> None:
        """Train a module in place.

        Args:
            model: The module.
            examples: A pair of inputs and targets, the order of sending along the first dimension.
        """
        if _batches.n_examples(examples) < FEWEST:
            return
        (x, y), held = (on_device_of(part, model) for part in split_tail(examples, self.held_out))
        best = BestWeights(model, lambda: self._loss(model, held), self.patience)
        optimizer = torch.optim.Adam(model.parameters(), lr=self.learning_rate)
        batches = RandomBatches(_batches.n_examples((x, y)), self.batch_size)
        step, stop = 0, best.look()
        while step < self.steps and not stop:
            for indices in batches:
                model.train()
                optimizer.zero_grad()
                self.loss_fn(model(take(x, indices)), take(y, indices)).backward()
                optimizer.step()
                step += 1
                stop = (step % self.every == 0 or step == self.steps) and best.look()
                if stop or step == self.steps:
                    break
        best.restore()

    def _loss(self, model: torch.nn.Module, batch: Any) -> float:
        model.eval()
        with torch.no_grad():
            return float(self.loss_fn(model(batch[0]), batch[1]))


class RandomBatches:
    """Indices of examples in random batches, in another order each time; a last batch of one joins that before it.

    Batch normalisation has no statistics of one example.

    Args:
        count: Number of examples.
        size: Examples a batch.
    """

    def __init__(self, count: int, size: int) -> None:
        self._count, self._size = count, size
        self._starts = list(range(0, count, size))
        if len(self._starts) > 1 and count % size == 1 and size > 1:
            self._starts.pop()

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(self._count).tolist()
        for start, stop in itertools.pairwise([*self._starts, self._count]):
            yield order[start:stop]


class BestWeights:
    """Remembers the weights at which a loss was lowest, and says when it has not fallen for long enough.

    Args:
        model: The module.
        loss: Gives the loss at its present weights.
        patience: Looks without a lower loss after which `look` says to stop.
    """

    def __init__(self, model: torch.nn.Module, loss: Callable[[], float], patience: int) -> None:
        self._model, self._loss, self._patience = model, loss, patience
        self._lowest, self._idle = math.inf, 0
        self._weights: dict[str, Any] | None = None

    def look(self) -> bool:
        """Take the loss.

        Returns:
            Whether to stop.
        """
        loss = self._loss()
        if loss < self._lowest:  # never true of NaN: a training that has diverged is one that falls no more
            self._lowest, self._idle = loss, 0
            self._weights = copy.deepcopy(self._model.state_dict())
        else:
            self._idle += 1
        return self._idle >= self._patience

    def restore(self) -> None:
        """Put the best weights back; where no loss was a number below infinity, the present ones stay."""
        if self._weights is not None:
            self._model.load_state_dict(self._weights)


def check_settings(batch_size: int, steps: int, every: int, patience: int, held_out: float) -> None:
    """Refuse numbers that no training can have.

    Raises:
        ValueError: One is out of range.
    """
    for name, value in (("batch_size", batch_size), ("steps", steps), ("every", every), ("patience", patience)):
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
    check_fraction("held_out", held_out, inclusive=False)
