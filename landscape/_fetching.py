"""Fetch numbers from the device together: the host waits once for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def fetched(numbers: Sequence[torch.Tensor]) -> np.ndarray:
    """Copy scalars, or tensors of one shape, to the host in one transfer.

    An accelerator computes ahead of the host until a number is fetched. So measures keep their numbers on the device
    while they go on, and fetch them together.

    Args:
        numbers: n tensors of one shape and type on one device.

    Returns:
        Their values, float64, shape (n, ...).
    """
    if not numbers:
        return np.empty(0)
    return torch.stack(list(numbers)).detach().double().cpu().numpy()
