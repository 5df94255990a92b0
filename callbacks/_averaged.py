"""Measuring at the running mean of the weights instead of at the present ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from landscape._errors import MeasurementError

if TYPE_CHECKING:
    from landscape.callbacks._base import LandscapeCallback


def averager_before(callback: LandscapeCallback, trainer: Any) -> LandscapeCallback | None:
    """Return the first callback before this one that keeps a running mean: it has taken this event in already."""
    before = trainer.callbacks[: trainer.callbacks.index(callback)]
    return next((other for other in before if getattr(other, "averages", False)), None)


def average_for(callback: LandscapeCallback, trainer: Any) -> tuple[Any, dict[str, Any]]:
    """Return the running mean that a callback with `weights="swa"` measures, and its batch-normalisation statistics.

    Returns:
        The flat vector, and buffers by name.

    Raises:
        MeasurementError: There is none.
    """
    averager = averager_before(callback, trainer)
    average = None if averager is None else averager.average
    if average is None:
        raise MeasurementError(
            "weights='swa' measures the running mean of a SWATrajectory, but there is none among the callbacks before "
            "this one; put a SWATrajectory first in the list"
        )
    return average
