"""Measuring at the running mean of the weights instead of at the present ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from landscape._errors import MeasurementError

if TYPE_CHECKING:
    from landscape._layout import ParameterLayout
    from landscape.callbacks._base import LandscapeCallback


def averager_before(callback: LandscapeCallback, trainer: Any) -> LandscapeCallback | None:
    """Return the first callback before this one that keeps a running mean: it has taken this event in already."""
    before = trainer.callbacks[: trainer.callbacks.index(callback)]
    return next((other for other in before if getattr(other, "averages", False)), None)


def average_for(callback: LandscapeCallback, trainer: Any, layout: ParameterLayout) -> tuple[Any, dict[str, Any]]:
    """Return the running mean that a callback with `weights="swa"` measures, and its batch-normalisation statistics.

    Args:
        callback: The callback.
        trainer: Its Trainer.
        layout: The parameters that train now.

    Returns:
        The flat vector, and buffers by name.

    Raises:
        MeasurementError: There is none, or it is of other parameters.
    """
    averager = averager_before(callback, trainer)
    average = None if averager is None else averager.average
    if average is None:
        raise MeasurementError(
            "weights='swa' measures the running mean of a SWATrajectory, but there is none among the callbacks before "
            "this one; put a SWATrajectory first in the list"
        )
    of = getattr(averager, "average_layout", None)
    if of is not None and of != layout:
        raise MeasurementError(
            "the running mean is of other parameters than those that train now, since layers were frozen, unfrozen or "
            "pruned after it was taken; it begins anew at the next event of the SWATrajectory, so give both the same "
            "cadence"
        )
    return average
