"""Weights as the codes take them: finite float32 or float64 numpy arrays by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from landscape._errors import MeasurementError

Array = npt.NDArray[np.floating[Any]]


def float_arrays(weights: Mapping[str, Any]) -> dict[str, Array]:
    """Turn numpy arrays or torch tensors into float32 or float64 arrays; half precisions become float32.

    Args:
        weights: The tensors by name.

    Returns:
        The arrays by name, in the same order.

    Raises:
        TypeError: A tensor is not of a floating-point type.
        MeasurementError: A tensor holds a NaN or an infinity.
    """
    arrays = {name: _float_array(name, value) for name, value in weights.items()}
    for name, array in arrays.items():
        bad = array.size - int(np.count_nonzero(np.isfinite(array)))
        if bad:
            raise MeasurementError(
                f"tensor '{name}' has {bad} of {array.size} elements that are NaN or infinite; a code needs finite "
                "weights: check whether the training has diverged"
            )
    return arrays


def _float_array(name: str, value: Any) -> Array:
    if hasattr(value, "detach"):  # a torch tensor, without importing torch
        value = value.detach().cpu()
        # numpy has no bfloat16, and float32 holds every half-precision value.
        value = (value.float() if value.is_floating_point() and value.element_size() < 4 else value).numpy()
    array = np.asarray(value)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise TypeError(
            f"tensor '{name}' has type {array.dtype}, expected a floating-point type of at most 64 bits; leave "
            "integer buffers and complex tensors out of the weights"
        )
    return array.astype(np.float64 if array.dtype.itemsize == 8 else np.float32, copy=False)
