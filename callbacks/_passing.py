"""Keep the first batches of a training aside, where its data can be read only once."""

from __future__ import annotations

from typing import Any

import torch

from landscape import _batches
from landscape._errors import MeasurementError


class PassingBatches:
    """Copies on the CPU of the first batches that a training receives, as its step receives them.

    The set is complete when it holds as many examples as the largest wish, or at the end of the first epoch. Batches
    are not cut, so the last one may exceed the wish by less than a batch.

    Memory: one copy of the wished examples, held for the run.
    """

    def __init__(self) -> None:
        self._wish = 0
        self._batches: list[Any] = []
        self._totals: list[int] = []  # examples up to and with each batch
        self._number: Any = None
        self._ended = False

    def want(self, examples: int) -> None:
        """Ask for a number of examples."""
        self._wish = max(self._wish, examples)

    @property
    def waiting(self) -> bool:
        """Whether further batches are wanted."""
        return not self._ended and self.examples < self._wish

    @property
    def examples(self) -> int:
        """Number of examples kept so far."""
        return self._totals[-1] if self._totals else 0

    def offer(self, batch: Any, number: Any) -> None:
        """Keep a copy of a batch while more are wanted.

        Args:
            batch: What the training step is about to receive.
            number: Tells it from other batches: several callbacks may offer the same one.
        """
        if not self.waiting or batch is None or number == self._number:
            return
        self._number = number
        # Objects that hold tensors often move in place, so they are copied first.
        copied = _batches.cast(_batches.fresh(batch), torch.device("cpu"), None)
        try:
            size = _batches.n_examples(copied)
        except MeasurementError:
            size = self._wish  # ends the set: the objective will say why it cannot be measured
        self._batches.append(copied)
        self._totals.append(self.examples + size)

    def end(self) -> None:
        """Complete the set with what has passed: the first epoch is over."""
        self._ended = self._ended or bool(self._batches)

    def first(self, examples: int) -> list[Any] | None:
        """Return the first batches that hold a number of examples, None while they have not all passed."""
        enough = next((index for index, total in enumerate(self._totals) if total >= examples), None)
        if enough is None:
            return list(self._batches) if self._ended else None
        return self._batches[: enough + 1]
