"""What bounds accept: each check returns the value ready for arithmetic, or says what is wrong with it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

EPS = float(np.finfo(np.float64).eps)
# A few correctly rounded operations on numbers of one sign err by less than this factor: a bound is rounded up by it.
UP = 1 + 16 * EPS


def require_examples(n: int, name: str = "n") -> int:
    """Return the number of examples; at least one is needed."""
    count = _whole(n, name)
    if count < 1:
        raise ValueError(f"{name} is {count}; a bound needs at least one example")
    return count


def require_delta(delta: float, name: str = "delta") -> float:
    """Return a probability of failure, strictly between 0 and 1."""
    if not 0 < delta < 1:
        raise ValueError(f"{name} is {delta}; it must lie strictly between 0 and 1, for example 0.05")
    return float(delta)


def require_errors(error: Any, name: str = "error") -> FloatArray:
    """Return error rates, or means of a loss within [0, 1]."""
    errors = np.asarray(error, dtype=np.float64)
    if not ((errors >= 0) & (errors <= 1)).all():  # NaN fails as well
        raise ValueError(
            f"{name} is {_outside(errors, 0, 1)}; it must lie between 0 and 1. A loss with other ends goes "
            "to bounded_loss_bound"
        )
    return errors


def require_not_negative(value: Any, name: str) -> FloatArray:
    """Return code lengths or divergences: zero or more; infinity is allowed and makes the bound vacuous."""
    values = np.asarray(value, dtype=np.float64)
    if not (values >= 0).all():
        raise ValueError(f"{name} is {_outside(values, 0, np.inf)}; it must be a number, 0 at least")
    return values


def require_method(method: str, methods: Sequence[str]) -> None:
    """Raise unless the method is one of those."""
    if method not in methods:
        raise ValueError(f"the method is {method!r}; expected one of {', '.join(methods)}")


def require_counts(counts: int | Sequence[int], name: str) -> list[int]:
    """Return one or several numbers of choices as a list of positive integers."""
    several = list(counts) if isinstance(counts, (Sequence, np.ndarray)) else [counts]
    whole = [_whole(count, name) for count in several]
    if any(count < 1 for count in whole):
        raise ValueError(f"{name} has {min(whole)}; a number of choices is 1 (nothing was chosen) or more")
    return whole


def scalar_or_array(values: FloatArray) -> Any:
    """Return a float for a result of no dimension, else the array."""
    return float(values) if np.ndim(values) == 0 else values


def _whole(value: Any, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        if isinstance(value, (float, np.floating)) and float(value).is_integer():
            return int(value)
    raise ValueError(f"{name} is {value!r}; it must be a whole number")


def _outside(values: FloatArray, low: float, high: float) -> float:
    return float(values[~((values >= low) & (values <= high))].flat[0])
