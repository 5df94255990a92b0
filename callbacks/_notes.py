"""Tell in one line what a fit will measure, and in another what that has cost."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

from landscape.callbacks._overhead import percent
from landscape.callbacks._pot import Member

Members = Sequence[tuple[float | None, Member]]


def heard(trainer: Any) -> bool:
    """Return whether this process tells what it does: Lightning's own notes can be silenced."""
    return bool(trainer.is_global_zero) and _logger(trainer).isEnabledFor(logging.INFO)


def tell(trainer: Any, line: str) -> None:
    """Write a line where Lightning writes its own notes."""
    if line and heard(trainer):
        _logger(trainer).info(line)


def start_line(members: Members) -> str:
    """Say what will be measured and what it would cost as asked.

    Args:
        members: The callbacks, each with its share of the training's time.

    Returns:
        One line; empty where there are no callbacks.
    """
    if not members:
        return ""
    parts, total = [], 0.0
    for _, member in members:
        cost = member.cost(member.forms[0], member.examples)
        total += cost * member.events if cost else 0.0
        parts.append(f"{member.name} ({_when(member)}{f', {duration(cost)} each' if cost else ''})")
    shares = sorted({share for share, _ in members if share is not None})
    line = f"Landscape measures {', '.join(parts)}"
    if total and math.isfinite(total):
        line += f"; as asked, {duration(total)} in all"
    if shares:
        line += f". Kept to {' and '.join(map(percent, shares))} of the training's time, first and last event aside"
    return line + "."


def end_line(members: Members, spent: float, trained: float) -> str:
    """Say what was measured and what it cost.

    Args:
        members: The callbacks, each with its share of the training's time.
        spent: Seconds of measurement.
        trained: Seconds of training.

    Returns:
        One line; empty where there are no callbacks.
    """
    if not members:
        return ""
    parts = []
    for share, member in members:
        asked = f" of {member.events:.0f}" if share is not None and math.isfinite(member.events) else ""
        parts.append(f"{member.name} {member.measured}{asked} times ({duration(member.spent)})")
    line = f"Landscape measured {', '.join(parts)}: {duration(spent)} in all"
    return line + (f", {percent(spent / trained)} of {duration(trained)} of training." if trained > 0 else ".")


def duration(seconds: float) -> str:
    """Write seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.2g} h"


def _when(member: Member) -> str:
    if member.at_the_end:
        return "when the fit ends"
    return f"{member.events:.0f} events" if math.isfinite(member.events) else "at its cadence"


def _logger(trainer: Any) -> logging.Logger:
    """Return the logger of the Trainer's namespace: Lightning prints it unless the user has silenced it."""
    modules = [base.__module__ for base in type(trainer).__mro__]
    own = any(module.startswith("lightning.pytorch") for module in modules)
    return logging.getLogger("lightning.pytorch" if own else "pytorch_lightning")
