"""The part of a callback that says what its measure costs and how it can be made cheaper."""

from __future__ import annotations

import dataclasses
from typing import Any

from landscape.callbacks._effort import LEAST_EXAMPLES, Effort, Work
from landscape.callbacks._fit_length import Fit
from landscape.callbacks._measured_data import Measured, fewer_batches
from landscape.callbacks._overhead import share_of


class Scheduled:
    """What a callback tells the scheduler.

    Args:
        overhead: Share of the training's time that the measurements may take, as the user gave it.

    Attributes:
        share: The same as a number; None for no limit.
    """

    group: str
    weights: str
    every_n_epochs: int | None
    every_n_steps: int | None
    measured: Measured
    batches: list[Any] | None

    def __init__(self, overhead: str | float | None) -> None:
        super().__init__()
        self.overhead, self.share = overhead, share_of(overhead)
        self._effort = Effort()
        self._words = ""  # what a form lowers, where the names of its attributes do not say so
        self._some: dict[int, list[Any]] = {}  # the first of the given batches, by number of examples

    def forms(self) -> list[dict[str, Any]]:
        """Return the forms of the measure, from as asked to the smallest: the attributes that each one changes.

        The first is empty, the second has fewer probes and draws, the last is the smallest.
        """
        return [{}]

    def lean(self) -> dict[str, Any] | None:
        """Return changes that keep, at next to no cost, what cannot be measured later; None without such."""
        return None

    def work(self) -> Work:
        """Return the expected work of one event as the callback is set now, beside the losses of every row."""
        return Work()

    def expected_events(self, fit: Fit) -> float:
        """Return how many events a fit has at the cadence that was asked for."""
        return fit.events(self.every_n_epochs, self.every_n_steps, getattr(self, "start", 0))

    @property
    def cadence(self) -> Any:
        """What callbacks have in common that are measured at the same events; None for once, when the fit ends."""
        if not self.every_n_epochs and not self.every_n_steps:
            return None
        return self.every_n_epochs, self.every_n_steps, self.group if self.lean() is not None else self.weights

    def measured_data(self) -> tuple[Measured, list[Any] | None]:
        """Return which examples are measured now, and the batches that the user gave, if any."""
        count = self._effort.examples
        if count is None:
            return self.measured, self.batches
        if self.batches is not None and count not in self._some:
            self._some[count] = fewer_batches(self.batches, count)
        size = self.measured.batch_size or (count if self._effort.packed else None)
        return dataclasses.replace(self.measured, examples=count, batch_size=size), self._some.get(count)

    def least_examples(self) -> int | None:
        """Return the examples of the smallest form; None where no more were asked for."""
        asked = self.measured.examples
        return None if asked is not None and asked <= LEAST_EXAMPLES else LEAST_EXAMPLES
