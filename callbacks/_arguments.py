"""Checks of the callbacks' arguments: a mistake is told when the callback is made, not in the middle of a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def at_least(least: float, **values: float | None) -> None:
    """Check numbers against a lower limit; None passes.

    Raises:
        ValueError: One is below it.
    """
    for name, value in values.items():
        if value is not None and not value >= least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")


def positive(**values: float | None) -> None:
    """Check that numbers are above zero; None passes.

    Raises:
        ValueError: One is not.
    """
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name} is {value}; it must be a positive number" + " or None" * (name in _OPTIONAL))


def one_of(allowed: Sequence[str | None], **values: Any) -> None:
    """Check that values are among the allowed ones.

    Raises:
        ValueError: One is not.
    """
    for name, value in values.items():
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; it must be {' or '.join(map(repr, allowed))}")


_OPTIONAL = ("every_n_epochs", "every_n_steps", "examples", "batch_size", "budget")
