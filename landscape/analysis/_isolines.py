"""Lines of equal generalisation bound on an axis of bits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from landscape._errors import FileError
from landscape.analysis._labels import base_of
from landscape.analysis._members import Member
from landscape.analysis._points import Track
from landscape.analysis._style import BLACK, plain_log_ticks, spans_decade
from landscape.bounds import countable_bound
from landscape.record import Run

LEVELS = (0.3, 0.5, 0.7, 1.0)
"""Bounds of which a line is drawn."""

# kl, exact and Catoni's bounds come to 1 at no finite length: from here on they round to it.
_NEARLY_ONE = 0.995
_MOST_BITS = 1e15
_SETTINGS = ("n", "delta", "error", "levels", "method", "choices", "classes")


@dataclasses.dataclass(frozen=True)
class Isoline:
    """One line: all networks of so many bits, with the stated error, have this bound.

    Attributes:
        level: The bound.
        bits: Where it is reached; NaN where the error alone is above it, or no length reaches it.
    """

    level: float
    bits: float


@dataclasses.dataclass(frozen=True)
class Isolines:
    """The lines with everything that they assume.

    Attributes:
        lines: By ascending bound.
        error: The error on the examples that is assumed of all networks.
        of: What the error is, in words.
        n: Number of examples.
        delta: δ.
        method: Which bound.
        choices: Alternatives chosen from on these examples.
        guessing: The error rate of guessing, where the number of classes is known.
    """

    lines: tuple[Isoline, ...]
    error: float
    of: str
    n: int
    delta: float
    method: str
    choices: Any
    guessing: float | None


def bits_at(level: float, *, error: float, n: int, delta: float, method: str = "kl", choices: Any = 1) -> float:
    """Find the code length at which the bound of a network with a given error comes to a level, by bisection.

    Args:
        level: The bound, above 0 and at most 1; 1 means "rounds to 1" (0.995) for bounds that never come to it.
        error: Error rate on the examples.
        n: Number of examples.
        delta: δ.
        method: Of `landscape.bounds.countable_bound`.
        choices: As there.

    Returns:
        The largest number of bits whose bound is not above the level, to 1e-9 of it; NaN where there is none.
    """
    wanted = min(level, _NEARLY_ONE) if method != "hoeffding" else level

    def bound(bits: float) -> float:
        return countable_bound(error=error, n=n, bits=bits, delta=delta, method=method, choices=choices)

    # At the level 1 itself every length is "not above": the line is where the bound gets there.
    def below(bits: float) -> bool:
        return bound(bits) < wanted if wanted >= 1 else bound(bits) <= wanted

    if not below(0.0):
        return math.nan
    low, high = 0.0, 1.0
    while below(high):
        low, high = high, 2 * high
        if high > _MOST_BITS:
            return math.nan
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return low


def isolines(given: Mapping[str, Any] | bool, tracks: Sequence[Track], column: str) -> Isolines:
    """Solve for the lines of a plot.

    Args:
        given: Settings: n, delta, error, levels, method, choices, classes; True for the defaults.
        tracks: The runs of the plot.
        column: The axis that is to hold bits.

    Returns:
        The lines.

    Raises:
        FileError: The runs do not say how many examples were measured, or recorded no error.
        ValueError: The axis holds no bits, or a setting is unknown or out of range.
    """
    if base_of(column) != "bits":
        raise ValueError(
            f"a bound needs an axis of bits that decode, such as bits[tolerance=0.03]; this one is {column!r}"
        )
    settings = {} if given is True else dict(given)  # type: ignore[arg-type]  # False never comes here
    if unknown := [name for name in settings if name not in _SETTINGS]:
        raise ValueError(f"bound has no setting {unknown[0]!r}; it has {', '.join(_SETTINGS)}")
    error, of = _error(settings.get("error", "train_error"), tracks)
    n = settings["n"] if "n" in settings else _examples(tracks)
    delta, method, choices = settings.get("delta", 0.05), settings.get("method", "kl"), settings.get("choices", 1)
    levels = {float(level) for level in settings.get("levels", LEVELS)}
    guessing = 1 - 1 / settings["classes"] if "classes" in settings else None
    levels |= set() if guessing is None else {guessing}
    if wrong := [level for level in levels if not 0 < level <= 1]:
        raise ValueError(f"levels holds {wrong[0]:g}; a bound on an error rate lies above 0 and is 1 at most")
    lines = tuple(
        Isoline(level, bits_at(level, error=error, n=n, delta=delta, method=method, choices=choices))
        for level in sorted(levels)
    )
    return Isolines(lines, error, of, n, delta, method, choices, guessing)


def draw_isolines(ax: Any, found: Isolines, values: Any) -> None:
    """Draw the lines across the axes, each with its bound, on an axis that holds them all.

    Args:
        ax: The axes; their y-axis holds bits.
        found: The lines.
        values: The bits of the runs.
    """
    known = [line for line in found.lines if line.bits > 0]
    together = np.concatenate([np.ravel(values), [line.bits for line in known]])
    if spans_decade(together):
        ax.set_yscale("log")
        plain_log_ticks(ax.yaxis, together)
    for line in known:
        vacuous = line.level == 1
        ax.axhline(
            line.bits, color=BLACK, linewidth=1.4 if vacuous else 0.9, linestyle="-" if vacuous else "--", zorder=0.5
        )
        ax.annotate(
            f"bound {line.level:.3g}" + (": vacuous" if vacuous else ": guessing" * (line.level == found.guessing)),
            (1.0, line.bits),
            (-3, 2),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=8.5,
            zorder=5,
        )


def sentences(found: Isolines) -> list[str]:
    """Return what the caption must say of the lines."""
    charged = "" if found.choices == 1 else f", choices {found.choices} charged"
    texts = [
        f"Lines: code lengths at which the bound ({found.method}, n\u00a0=\u00a0{found.n:,}, "
        f"δ\u00a0=\u00a0{found.delta:g}{charged}) has the "
        f"value beside them, IF the decoded network errs on {found.error:.3g} of these examples ({found.of}).",
        "A bound is of the decoded network, not of the one that was trained, and needs its own error; no certificate.",
    ]
    if found.method != "hoeffding" and any(line.level == 1 for line in found.lines):
        texts.append("Vacuous: .995 or more.")
    if never := [f"{line.level:.3g}" for line in found.lines if not line.bits > 0]:
        texts.append(f"Not to be had at that error: {', '.join(never)}.")
    return texts


def _error(given: Any, tracks: Sequence[Track]) -> tuple[float, str]:
    if not isinstance(given, str):
        return float(given), "assumed"
    values = np.array([run.member.column(given)[run.rows[run.chosen]] for run in tracks])
    known = values[np.isfinite(values)]
    if len(known) == 0:
        raise FileError(f"No run has {given!r} at the rows of the plot; give the error of the bound as a number.")
    return float(np.median(known)), f"the median of the runs' {given.replace('_', ' ')}, before coding"


def _examples(tracks: Sequence[Track]) -> int:
    counts = {count for run in tracks if (count := _measured(run.member)) is not None}
    if len(counts) != 1:
        found = "do not say" if not counts else f"differ in ({', '.join(map(str, sorted(counts)))})"
        raise FileError(f"The runs {found} how many examples they were measured on; give n in bound={{'n': ...}}.")
    return counts.pop()


def _measured(member: Member) -> int | None:
    """Return how many examples the code lengths of a run were measured on."""
    if "n_examples" in member.attributes:
        return int(member.attributes["n_examples"])
    for group in member.source.groups if isinstance(member.source, Run) else ():
        if group.startswith("compressibility"):
            described = member.source.dataset(group).attrs.get("measured")
            if isinstance(described, Mapping) and "n_examples" in described:
                return int(described["n_examples"])
    return None
