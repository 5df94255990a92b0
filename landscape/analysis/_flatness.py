"""The plot the toolkit is for: flatness against compressibility, a point or a trajectory a run."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from landscape._errors import FileError
from landscape.analysis._correlation import kendall
from landscape.analysis._isolines import draw_isolines, isolines
from landscape.analysis._isolines import sentences as isoline_sentences
from landscape.analysis._labels import label_of
from landscape.analysis._members import Group, Member, members, require_column, require_number, require_setting
from landscape.analysis._points import Track, is_unmatched, loss_range, track, warn_unmatched
from landscape.analysis._scatter import draw_runs
from landscape.analysis._style import broken, caption, log_where_positive, new_axes, style


def plot_flatness_compressibility(
    runs: Any,
    x: str = "average_case",
    y: str = "bits[tolerance=0.03]",
    color: str | None = "held_out_error",
    *,
    points: str = "final",
    matched_loss: float | None = None,
    group: Group | None = None,
    bound: Mapping[str, Any] | bool = False,
    ax: Any = None,
    seed: int = 0,
) -> Any:
    """Plot a flatness measure against a compressibility measure, a point or a trajectory a run.

    A run stands at its last row with both measures, or at the one whose training loss is nearest (by ratio) to
    `matched_loss`. The caption tells Kendall's tau over these points with a bootstrap interval, how the points were
    chosen, and whether their training losses differ by more than a factor of 3: curvature then mostly measures how
    small the loss is. Bars are ± one standard error where the run has one.

    Args:
        runs: Paths of run files, open runs, or a DataFrame of their tables with a column `run`.
        x: Column of the flatness measure; the default does not change when layers are rescaled.
        y: Column of the compressibility measure.
        color: Column, attribute or hyper-parameter that colours the points, grey where it is NaN; None for none.
        points: "final" for a point a run, "trajectory" for the way there as well.
        matched_loss: Training loss at which the runs are compared.
        group: Attribute, hyper-parameter or column by name (or a callable of the run, or of its rows where `runs` is a
            table) that gives marker and legend entry.
        bound: Draw lines of equal generalisation bound on an axis of bits: True, or a mapping with any of `error` (a
            number, or the column whose median over the runs it is; the training error by default), `n` (examples; by
            default those measured), `delta` (.05), `levels` (.3, .5, .7 and 1), `method` and `choices` (as in
            `landscape.bounds.countable_bound`), and `classes` for a line where guessing stands. A bound belongs to the
            decoded network and to its own error, so the lines say where the runs would stand at the stated error.
        ax: Axes to draw on; those of a new figure by default.
        seed: Seed of the bootstrap.

    Returns:
        The matplotlib axes.

    Raises:
        FileError: A file cannot be read, or no run has what is asked for.
        ValueError: An argument is out of range.
    """
    if points not in {"final", "trajectory"}:
        raise ValueError(f"points is {points!r}; expected 'final' or 'trajectory'")
    if matched_loss is not None and not math.isfinite(matched_loss):
        raise ValueError(f"matched_loss is {matched_loss}; expected a training loss")
    everyone = members(runs)
    for name in (x, y):
        require_column(everyone, name)
    if color is not None:
        require_number(everyone, color)
    if isinstance(group, str):
        require_setting(everyone, group)
    tracks = [found for run in everyone if (found := track(run, x, y, color, matched_loss))]
    sentences = _missing(everyone, tracks, x, y)
    lines = isolines(bound, tracks, y) if bound is not False else None
    with style():
        ax = new_axes() if ax is None else ax
        draw_runs(ax, tracks, color, group, trajectories=points == "trajectory")
        for axis, name, values in (("x", x, [run.x for run in tracks]), ("y", y, [run.y for run in tracks])):
            shown = values if points == "trajectory" else [v[t.chosen] for v, t in zip(values, tracks, strict=True)]
            log_where_positive(ax, np.hstack(shown), axis)
            (ax.set_xlabel if axis == "x" else ax.set_ylabel)(broken(label_of(name), axis))
        if lines is not None:
            draw_isolines(ax, lines, np.hstack([run.y for run in tracks]))
            sentences += isoline_sentences(lines)
        caption(ax, [_correlation(tracks, seed), *_choice(tracks, points, matched_loss), *sentences])
    return ax


def _missing(everyone: Sequence[Member], tracks: Sequence[Track], x: str, y: str) -> list[str]:
    left_out = [run.name for run in everyone if run not in [found.member for found in tracks]]
    if not tracks:
        raise FileError(
            f"No run has a row with both {x!r} and {y!r}; record the two at the same steps, or choose other columns."
        )
    if not left_out:
        return []
    warnings.warn(f"left out, without a row that has both {x} and {y}: {', '.join(left_out)}", stacklevel=3)
    return [f"{len(left_out)} of {len(everyone)} runs left out (a measure missing)."]


def _correlation(tracks: Sequence[Track], seed: int) -> str:
    result = kendall([run.x[run.chosen] for run in tracks], [run.y[run.chosen] for run in tracks], seed=seed)
    if np.isnan(result.tau):
        return f"Kendall's τ not defined (n = {result.n} run{'s' * (result.n != 1)})."
    return f"Kendall's {result}."


def _choice(tracks: Sequence[Track], points: str, matched_loss: float | None) -> list[str]:
    low, high = loss_range(tracks)
    losses = f"training loss {low:.3g}" if low == high else f"training losses {low:.3g} to {high:.3g}"
    chosen = "at its last row with both"
    if matched_loss is not None:
        chosen = f"where its training loss is nearest to {matched_loss:g}"
    if np.isnan(low):
        sentences = [f"Each run {chosen}; training loss not recorded."]
    elif is_unmatched(low, high):
        sentences = [f"Each run {chosen}; NOT at matched loss: {losses}."]
        warn_unmatched(losses)
    else:
        sentences = [f"Each run {chosen}; {losses}."]
    if points == "trajectory":
        sentences.append("Lines: training, from early (faint, open circle) to late (strong).")
    if any(np.isfinite(bar[run.chosen]) for run in tracks for bar in (run.x_stderr, run.y_stderr)):
        sentences.append("Bars: ± 1 standard error.")
    return sentences
