"""How much of a fit is over, and how many events of a cadence it has."""

from __future__ import annotations

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Fit:
    """Where a fit stands.

    Attributes:
        done: Share of the fit that is over, from 0 to 1; NaN where its end is not known.
        epochs: Epochs of the whole fit; infinite where they are not known.
        steps: Optimizer steps of the whole fit; likewise.
        epoch: Epochs that are over.
        step: Optimizer steps that were taken.
        stopping: Whether somebody has asked the Trainer to stop.
    """

    done: float
    epochs: float
    steps: float
    epoch: int
    step: int
    stopping: bool = False

    def events(self, every_n_epochs: int | None, every_n_steps: int | None, start: float = 0) -> float:
        """Return how many events of a cadence the whole fit has.

        Args:
            every_n_epochs: Epochs from one event to the next.
            every_n_steps: Optimizer steps from one to the next.
            start: Where events begin: an epoch, or a share of the fit where it is below 1.

        Returns:
            The number, at least 1; infinite where the end of the fit is not known.
        """
        if not every_n_epochs and not every_n_steps:
            return 1.0
        share = 1.0 - start if start < 1 else max(1.0 - start / self.epochs, 0.0)
        lengths = (self.epochs, every_n_epochs), (self.steps, every_n_steps)
        wholes = [share * length / every for length, every in lengths if every]
        return max(sum(math.floor(whole + 1e-9) if math.isfinite(whole) else whole for whole in wholes), 1.0)

    def final(self, every_n_epochs: int | None, every_n_steps: int | None) -> bool:
        """Return whether no further event of a cadence comes after one at this moment."""
        if self.stopping:
            return True
        more_epochs = bool(every_n_epochs) and self.epoch + (every_n_epochs or 0) <= self.epochs
        more_steps = bool(every_n_steps) and self.step + (every_n_steps or 0) <= self.steps
        return not more_epochs and not more_steps


def fit_of(trainer: Any, epoch_over: bool = False, epoch_begun: bool = True) -> Fit:
    """Return where a Trainer's fit stands.

    Args:
        trainer: The Trainer.
        epoch_over: Whether the present epoch is over: Lightning counts it later.
        epoch_begun: Whether batches of the present epoch have been trained on, not those of the epoch before.

    Returns:
        The place. Of several limits (epochs, steps, time) the one that ends the fit first counts.
    """
    batches = float(trainer.num_training_batches)  # of an epoch; infinite for streams
    known = math.isfinite(batches) and batches > 0
    epochs = float(trainer.max_epochs) if trainer.max_epochs is not None and trainer.max_epochs >= 0 else math.inf
    steps = float(trainer.max_steps) if trainer.max_steps >= 0 else math.inf
    epoch = trainer.current_epoch + epoch_over
    within = 0.0
    if known and epoch_begun and not epoch_over:
        within = min((trainer.fit_loop.batch_idx + 1) / batches, 1.0)
    shares = []
    if epochs > 0 and math.isfinite(epochs):
        shares.append(min((epoch + within) / epochs, 1.0))
    if steps > 0 and math.isfinite(steps):
        shares.append(min(trainer.global_step / steps, 1.0))
    shares += [share for share in map(_timed, trainer.callbacks) if share is not None]
    an_epoch = math.ceil(batches / max(trainer.accumulate_grad_batches, 1)) if known else math.inf
    if trainer.global_step and epoch:
        an_epoch = trainer.global_step / (epoch + within)
    return Fit(
        done=max(shares, default=math.nan),
        epochs=min(epochs, steps / an_epoch if math.isfinite(steps) and math.isfinite(an_epoch) else math.inf),
        steps=min(steps, epochs * an_epoch),
        epoch=epoch,
        step=trainer.global_step,
        stopping=bool(trainer.should_stop),
    )


def _timed(callback: Any) -> float | None:
    """Return the share of the time that Lightning's Timer allows, None for other callbacks."""
    elapsed, remaining = getattr(callback, "time_elapsed", None), getattr(callback, "time_remaining", None)
    if not callable(elapsed) or not callable(remaining) or (left := remaining()) is None:
        return None
    return float(min(elapsed() / max(elapsed() + left, 1e-9), 1.0))
