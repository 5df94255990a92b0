"""Read and write shares of the training's time: the argument `overhead=` of callbacks."""

from __future__ import annotations

import numbers
from typing import Any


def share_of(overhead: str | float | None) -> float | None:
    """Read the argument `overhead=`.

    Args:
        overhead: "10%", a share such as 0.1, or None for no limit.

    Returns:
        Allowed seconds of measurement for each second of training; None for no limit.

    Raises:
        ValueError: It is none of these, or not positive.
    """
    if overhead is None:
        return None
    share: Any = overhead
    if isinstance(overhead, str):
        text = overhead.strip()
        try:
            share = float(text.removesuffix("%")) / 100 if text.endswith("%") else float("nan")
        except ValueError:
            share = float("nan")
    number = isinstance(share, numbers.Real) and not isinstance(share, bool)
    if not number or not 0 < float(share) < float("inf"):
        raise ValueError(
            f"overhead is {overhead!r}; give a share of the training's time as '10%' or 0.1, or None for no limit"
        )
    return float(share)


def percent(share: float) -> str:
    """Write a share as people read it: "9.8 %"."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:,.0f} %"
