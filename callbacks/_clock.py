"""Tell the time that a training takes from the time that its measurements take."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator


class TrainingClock:
    """Seconds of a fit, without and with its measurements.

    Args:
        now: Returns seconds.

    Attributes:
        spent: Seconds of measurement so far.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter):
        self._now = now
        self._began = now()
        self._depth = 0
        self._since = 0.0
        self.spent = 0.0
        self._ticks: list[float] = []  # training seconds at the end of the first and of the last batch
        self.batches = 0

    @property
    def measured(self) -> float:
        """Seconds of measurement so far, with those of a measurement that is under way."""
        return self.spent + (self._now() - self._since if self._depth else 0.0)

    @property
    def trained(self) -> float:
        """Seconds of training so far."""
        return max(self._now() - self._began - self.measured, 0.0)

    @contextlib.contextmanager
    def measuring(self, done: Callable[[float], None] | None = None) -> Iterator[None]:
        """Count the time within as measurement; may be nested.

        Args:
            done: Called at the end with the seconds.

        Yields:
            Nothing.
        """
        if not self._depth:
            self._since = self._now()
        started = self._now()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self.spent += self._now() - self._since
            if done is not None:
                done(self._now() - started)

    def tick(self) -> None:
        """Note the end of a training batch."""
        self.batches += 1
        self._ticks = [*self._ticks[:1], self.trained]

    def expected(self, done: float) -> float:
        """Return the seconds that the training is expected to take as a whole.

        The first batch is left out of the pace: it often compiles, allocates or fills caches.

        Args:
            done: Share of the fit that is over, since this clock began; NaN where it is not known.

        Returns:
            Seconds of training, without measurements. Where the share is not known, those so far.
        """
        trained = self.trained
        if math.isnan(done) or done <= 0:
            return trained
        warmth = 0.0
        if self.batches > 2:
            pace = (self._ticks[-1] - self._ticks[0]) / (self.batches - 1)
            warmth = max(self._ticks[0] - pace, 0.0)
        return trained + (trained - warmth) * (1 - min(done, 1.0)) / done
