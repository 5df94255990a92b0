"""Which row of a run stands for it in a comparison, and whether the runs are compared at matched loss."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np

from landscape.analysis._error_bars import error_bars
from landscape.analysis._members import Member

LARGEST_RATIO = 3.0
"""Training losses that differ by more than this factor are not matched."""


@dataclasses.dataclass(frozen=True, eq=False)
class Track:
    """The rows of a run that have both measures, and the one that stands for the run.

    Attributes:
        member: The run.
        x: First measure at the rows, shape (rows,).
        y: Second measure.
        color: Third measure, NaN where it was not taken.
        x_stderr: Standard error of the first measure (over draws and examples), NaN where there is none.
        y_stderr: Standard error of the second measure.
        train_loss: Training loss at the rows.
        chosen: Index of the row that stands for the run.
        rows: Places of these rows in the run's table.
    """

    member: Member
    x: np.ndarray
    y: np.ndarray
    color: np.ndarray
    x_stderr: np.ndarray
    y_stderr: np.ndarray
    train_loss: np.ndarray
    chosen: int
    rows: np.ndarray


def track(member: Member, x: str, y: str, color: str | None, matched_loss: float | None) -> Track | None:
    """Choose a run's row: the last with both measures, or the one whose training loss is nearest to a value.

    "Nearest" is by ratio, as losses are matched by ratio: for 0.02, a row at 0.045 is nearer than one at 0.001. Where
    losses are not positive, it is by difference.

    Args:
        member: The run.
        x: Column of the first measure.
        y: Column of the second measure.
        color: Column of the third, or a numeric attribute or hyper-parameter of the run.
        matched_loss: The training loss to be near to, or None.

    Returns:
        The rows with the choice, or None where no row has both measures (and a training loss where one is asked for).
    """
    usable = np.isfinite(member.column(x)) & np.isfinite(member.column(y))
    loss = member.column("train_loss")
    if matched_loss is not None:
        usable &= np.isfinite(loss)
    if not usable.any():
        return None
    loss = loss[usable]
    chosen = len(loss) - 1 if matched_loss is None else int(np.argmin(_distance(loss, matched_loss)))
    return Track(
        member,
        member.column(x)[usable],
        member.column(y)[usable],
        _color(member, color)[usable],
        error_bars(member.table, x)[usable],
        error_bars(member.table, y)[usable],
        loss,
        chosen,
        np.flatnonzero(usable),
    )


def loss_range(tracks: Sequence[Track]) -> tuple[float, float]:
    """Return the smallest and largest training loss at the chosen rows; NaN where no run has one."""
    losses = np.array([run.train_loss[run.chosen] for run in tracks])
    losses = losses[np.isfinite(losses)]
    return (float(losses.min()), float(losses.max())) if len(losses) else (np.nan, np.nan)


def is_unmatched(low: float, high: float) -> bool:
    """Return whether training losses differ by more than the largest ratio; a loss of 0 matches only itself."""
    return high > low and high > LARGEST_RATIO * low


def warn_unmatched(losses: str, stacklevel: int = 3) -> None:
    """Warn that runs are not compared at matched loss.

    Args:
        losses: The losses in words.
        stacklevel: As of `warnings.warn`, seen from the caller.
    """
    warnings.warn(
        f"the runs are not at matched loss: their {losses} differ by more than a factor of {LARGEST_RATIO:g}, and "
        "flatness then mostly measures how small the loss is; give matched_loss=, or compare other runs",
        stacklevel=stacklevel + 1,
    )


def _distance(loss: np.ndarray, wanted: float) -> np.ndarray:
    if wanted > 0 and (loss > 0).all():
        return np.abs(np.log(loss / wanted))
    return np.abs(loss - wanted)


def _color(member: Member, name: str | None) -> np.ndarray:
    if name is None or name in member.table:
        return member.column(name or "")
    value = member.value(name)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return np.full(len(member.table), float(value) if is_number else np.nan)
