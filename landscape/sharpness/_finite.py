"""What every measure asks of the point that it measures around."""

from __future__ import annotations

import torch

from landscape._errors import MeasurementError


def require_finite(value: torch.Tensor, what: str) -> None:
    """Refuse to measure around a point where the loss or gradient is not a number.

    Raises:
        MeasurementError: It is not finite.
    """
    if not torch.isfinite(value):
        raise MeasurementError(
            f"the {what} on the measured examples is {float(value)}, so nothing can be measured around these weights; "
            "check them, the learning rate and the data"
        )
