"""A share of the training's time that measurements may take, and what fits into it."""

from __future__ import annotations

import time
from collections.abc import Callable


class TimeBudget:
    """Keeps the time spent on measurements below a share of the time spent on training.

    What a measurement will cost is predicted from the last one, in seconds a unit of work (a Hessian product); before
    the first, from the training itself: the time of a step for an example, times the examples measured.

    Args:
        share: Allowed seconds of measurement a second of training.
        clock: Where the time comes from.
    """

    # A product costs about as much as one and a half gradients, and building the graphs as much again.
    _PRODUCT_IN_STEPS = 3.0

    def __init__(self, share: float, clock: Callable[[], float] = time.perf_counter):
        self.share = share
        self._clock = clock
        self._began = clock()
        self._examples_seen = 0
        self.spent = 0.0
        self._seconds_per_unit: float | None = None

    @property
    def trained(self) -> float:
        """Seconds of training so far, measurements taken off."""
        return max(self._clock() - self._began - self.spent, 0.0)

    @property
    def overhead(self) -> float:
        """Seconds of measurement a second of training, so far."""
        return self.spent / self.trained if self.trained > 0 else float("inf")

    def saw(self, examples: int) -> None:
        """Count the examples of a training step."""
        self._examples_seen += examples

    def affords(self, units: float, measured_examples: int) -> bool:
        """Tell whether a measurement of so many units of work keeps the share."""
        if self._seconds_per_unit is None:
            if not self._examples_seen:
                return False
            example = self.trained / self._examples_seen
            cost = units * self._PRODUCT_IN_STEPS * example * measured_examples
        else:
            cost = units * self._seconds_per_unit
        return self.spent + cost <= self.share * self.trained

    def charge(self, seconds: float, units: float) -> None:
        """Enter what a measurement took; the dearer of the last prices is expected next time."""
        self.spent += seconds
        price = seconds / max(units, 1.0)
        self._seconds_per_unit = max(price, 0.5 * (self._seconds_per_unit or 0.0))
