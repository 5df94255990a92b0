"""Tell the state of a run: running with its last sign of life, finished, interrupted, or failed with the reason."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from landscape.record._life import RUNNING, STATES

# Seconds after which a training that calls itself running may have been killed. Most measure more often.
_LONG = 3600
_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def run_state(attributes: Mapping[str, Any], now: datetime.datetime | None = None) -> dict[str, str] | None:
    """Return the state of a run and the sentence that tells it.

    Args:
        attributes: The root attributes of the run file.
        now: The present time, with a time zone; the clock's by default.

    Returns:
        Texts: `state`, `reason`, `last_sign_of_life` (ISO 8601, UTC) and `sentence`. None where the file, written by an
        older version, holds no state.
    """
    if "state" not in attributes:
        return None
    state, reason, sign = (str(attributes.get(name, "")) for name in ("state", "state_reason", "last_sign_of_life"))
    about = ": ".join(text for text in (state if state in STATES else f"unknown state {state!r}", reason) if text)
    return {
        "state": state,
        "reason": reason,
        "last_sign_of_life": sign,
        "sentence": f"{about}; {_sign(state, sign, now or datetime.datetime.now(datetime.UTC))}",
    }


def _sign(state: str, sign: str, now: datetime.datetime) -> str:
    try:
        seconds = (now - datetime.datetime.fromisoformat(sign)).total_seconds()
    except (ValueError, TypeError, OverflowError):  # no time, or one without a time zone
        return f"last sign of life {sign!r}, which is no time" if sign else "it never gave a sign of life"
    told = f"last sign of life {_ago(seconds)} ({sign})"
    if state == RUNNING and seconds > _LONG:
        return f"{told}, so it may have been killed"
    return told


def _ago(seconds: float) -> str:
    if seconds < 0:
        return "at a time that this clock has not reached"
    name, size = next(((name, size) for name, size in _UNITS if seconds >= size), _UNITS[-1])
    count = int(seconds // size)
    return f"{count} {name}{'' if count == 1 else 's'} ago"
