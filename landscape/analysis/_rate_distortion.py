"""How many bits a network takes, against how much its loss may rise."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from landscape._errors import FileError
from landscape.analysis._groups import measured_rows
from landscape.analysis._members import Group, Member, members, require_setting
from landscape.analysis._points import LARGEST_RATIO, is_unmatched
from landscape.analysis._scatter import COLOR_MAP
from landscape.analysis._style import (
    BLACK,
    GREY,
    MARKERS,
    PALETTE,
    caption,
    literal,
    log_where_positive,
    new_axes,
    plain_log_ticks,
    style,
)

_AXES = {
    "tolerance": "allowed rise of the training loss (nats)",
    "loss_rise": "rise of the training loss with the decoded weights (nats)",
}
_MOST_CURVES_NAMED = 12


@dataclasses.dataclass(frozen=True, eq=False)
class _Curve:
    """A row of a run: one value a tolerance, ordered by tolerance; NaN where there is none."""

    origin: str  # what run and step it is of
    family: str  # empty where one family was recorded
    member: Member
    tolerance: np.ndarray
    bits: np.ndarray
    ideal: np.ndarray
    rise: np.ndarray
    rise_stderr: np.ndarray
    foretold: np.ndarray
    foretold_stderr: np.ndarray
    train_loss: float

    @property
    def label(self) -> str:
        return ", ".join(filter(None, (self.origin, self.family)))

    def x(self, name: str) -> np.ndarray:
        return self.tolerance if name == "tolerance" else self.rise


def plot_rate_distortion(
    runs: Any,
    x: str = "tolerance",
    *,
    steps: Sequence[int] | str | None = None,
    label: Group | None = None,
    law: bool = False,
    group: str = "compressibility",
    ax: Any = None,
) -> Any:
    """Plot code length against the rise of the loss: points are streams that were decoded, lines their ideal length.

    Bars on the rises are ± one standard error over examples. Tolerances that no code kept have no point, and the
    caption counts them; so it does rises that are not positive, which a logarithmic axis cannot show (decoded weights
    may have the lower loss). Where all runs have the same number
    of parameters, an axis on the right has bits per parameter; between architectures it would mislead. Where several
    families of codes were recorded, each has a curve.

    Args:
        runs: Paths of run files, or open runs.
        x: "tolerance" for the allowed rise of the loss, "loss_rise" for the one that the decoded weights really have.
        steps: Optimizer steps of the rows to draw, or "all"; the last row of each run by default.
        label: Attribute or hyper-parameter by name (or a callable of the run) that names the curves, of which those of
            one name look alike; by default the file, and the step where several are drawn. Where runs and families
            make too many names for a legend, colours tell the runs apart and markers the families.
        law: Draw beside each code the rise that the quantisation law foretells at its step, κ step²/24 with the
            recorded curvature κ, ± one standard error.
        group: Group of the file that holds the code lengths.
        ax: Axes to draw on; those of a new figure by default.

    Returns:
        The matplotlib axes.

    Raises:
        FileError: A file cannot be read, or a run has no code lengths, no row at a step, or no law.
        ValueError: Another x, or runs that are rows of a table.
    """  # noqa: DOC503 - what reads the runs raises some of it
    if x not in _AXES:
        raise ValueError(f"x is {x!r}; expected {' or '.join(map(repr, _AXES))}")
    everyone = members(runs)
    if any(not member.attributes for member in everyone):
        raise ValueError("a curve needs the tolerances of a run file; give paths or open runs, not their table")
    if isinstance(label, str):
        require_setting(everyone, label)
    curves = [
        _curve(member, code, label, law, several=steps is not None)
        for member in everyone
        for row in _rows(measured_rows(member.source, group), member, steps)
        for code in ([row.sel(family=name) for name in row["family"]] if "family" in row.dims else [row])
    ]
    with style():
        ax = new_axes(size=(7.2, 5.0)) if ax is None else ax
        hidden = sum(_draw(ax, curve, x, look) for curve, look in zip(curves, _looks(curves, steps), strict=True))
        drawn = [
            np.where(np.isfinite(curve.bits), each, np.nan) for curve in curves for each in (curve.x(x), curve.foretold)
        ]
        positive = np.concatenate([values[values > 0] for values in drawn])
        if len(positive):
            ax.set_xscale("log")
            plain_log_ticks(ax.xaxis, positive)
        log_where_positive(ax, np.concatenate([curve.bits for curve in curves]))
        ax.set_xlabel(_AXES[x])
        ax.set_ylabel("code length (bits)")
        _per_parameter(ax, everyone)
        _legend(ax, curves, _looks(curves, steps), law, label.replace("_", " ") if isinstance(label, str) else None)
        caption(ax, _sentences(curves, x, hidden, law))
    return ax


def _rows(data: xr.Dataset, member: Member, steps: Sequence[int] | str | None) -> list[xr.Dataset]:
    recorded = data["step"].values
    if steps is None:
        wanted = recorded[-1:]
    elif isinstance(steps, str):
        if steps != "all":
            raise ValueError(f"steps is {steps!r}; expected 'all', or steps as numbers")
        wanted = recorded
    else:
        wanted = np.asarray(steps)
        if missing := [step for step in wanted if step not in recorded]:
            raise FileError(f"{member.name} has no code lengths at step {missing[0]}; it has {_listed(recorded)}.")
    return [data.sel(step=step) for step in wanted]


def _curve(member: Member, row: xr.Dataset, label: Group | None, law: bool, several: bool) -> _Curve:
    if law and not {"law_curvature", "relative_step"} <= set(row):
        raise FileError(
            f"{member.name} has no quantisation law (law_curvature and relative_step); record it with one family of "
            "grids."
        )
    order = np.argsort(row["tolerance"].values)

    def column(name: str) -> np.ndarray:
        return row[name].values[order].astype(np.float64) if name in row else np.full(len(order), np.nan)

    def law_of(name: str) -> np.ndarray:
        return (
            float(row[name]) * column("relative_step") ** 2 / 24 if law and name in row else np.full(len(order), np.nan)
        )

    parts = [_name(member) if label is None else str(member.value(label))]
    family = str(row["family"].values) if "family" in row.coords else ""
    parts += [f"step {int(row['step'])}"] if several else []
    reached = column("reached")
    return _Curve(
        ", ".join(parts),
        family,
        member,
        row["tolerance"].values[order].astype(np.float64),
        np.where(reached == 0, np.nan, column("bits")),
        np.where(reached == 0, np.nan, column("ideal_bits")),
        column("loss_rise"),
        column("loss_rise_stderr_sample"),
        law_of("law_curvature"),
        law_of("law_curvature_stderr"),
        float(row["train_loss"]),
    )


def _name(member: Member) -> str:
    path = Path(member.name)
    return path.parent.name if path.stem == "landscape" and path.parent.name else path.stem


def _looks(curves: Sequence[_Curve], steps: Any) -> list[tuple[Any, str]]:
    """Return colour and marker of each curve: by step where one run is followed, else by what the curve is called."""
    one_run = len({curve.member.name for curve in curves}) == 1
    if steps is not None and one_run and len(curves) > 1:
        shades = COLOR_MAP(np.linspace(0, 0.85, len(curves)))
        return [(shade, MARKERS[index % len(MARKERS)]) for index, shade in enumerate(shades)]
    colors = [curve.origin if _has_two_keys(curves) else curve.label for curve in curves]
    markers = [curve.family if _has_two_keys(curves) else curve.label for curve in curves]
    return [
        (PALETTE[color % len(PALETTE)], MARKERS[marker % len(MARKERS)])
        for color, marker in zip(_places(colors), _places(markers), strict=True)
    ]


def _has_two_keys(curves: Sequence[_Curve]) -> bool:
    """Return whether runs and families have a legend entry each, rather than every pair of them."""
    several = len({curve.origin for curve in curves}) > 1 and len({curve.family for curve in curves}) > 1
    return several and len({curve.label for curve in curves}) > _MOST_CURVES_NAMED


def _places(names: Sequence[str]) -> list[int]:
    first = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return [first[name] for name in names]


def _draw(ax: Any, curve: _Curve, x: str, look: tuple[Any, str]) -> int:
    """Draw a curve and return how many of its points have no place on the axis."""
    color, marker = look
    values = curve.x(x)
    seen = np.isfinite(curve.bits) & (values > 0)
    ax.plot(values[seen], curve.ideal[seen], "-", color=color, linewidth=1.2, zorder=2)
    edge = {"markeredgecolor": "black", "markeredgewidth": 0.5}
    label = literal(curve.label)
    ax.plot(values[seen], curve.bits[seen], marker, color=color, markersize=6, zorder=3, label=label, **edge)
    bars = {"fmt": "none", "ecolor": color, "elinewidth": 1, "capsize": 2, "zorder": 2}
    if x == "loss_rise" and np.isfinite(curve.rise_stderr[seen]).any():
        # On a logarithmic axis a bar that reaches zero would vanish: it ends at a tenth of the rise.
        left = np.minimum(curve.rise_stderr, 0.9 * values)
        ax.errorbar(values[seen], curve.bits[seen], xerr=(left[seen], curve.rise_stderr[seen]), **bars)
    known = np.isfinite(curve.bits) & (curve.foretold > 0)
    if known.any():
        ax.plot(curve.foretold[known], curve.ideal[known], ":", color=color, linewidth=1.6, zorder=2)
        if np.isfinite(curve.foretold_stderr[known]).any():
            ax.errorbar(curve.foretold[known], curve.ideal[known], xerr=curve.foretold_stderr[known], **bars)
    return int((np.isfinite(curve.bits) & ~(values > 0)).sum())


def _per_parameter(ax: Any, everyone: Sequence[Member]) -> None:
    counts = {member.attributes.get("n_parameters") for member in everyone}
    count = counts.pop()
    if counts or not count:
        return
    right = ax.secondary_yaxis("right", functions=(lambda bits: bits / count, lambda bits: bits * count))
    right.set_ylabel(f"bits per parameter ({count:,} parameters)")
    if ax.get_yscale() == "log":
        low, high = ax.get_ylim()
        plain_log_ticks(right.yaxis, np.array([low, high]) / count)


def _legend(ax: Any, curves: Sequence[_Curve], looks: Sequence[tuple[Any, str]], law: bool, title: str | None) -> None:
    named = {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    if _has_two_keys(curves):
        pairs = list(zip(curves, looks, strict=True))
        runs = {curve.origin: {"color": color} for curve, (color, _) in pairs}
        families = {curve.family: {"marker": marker, "color": GREY, "linestyle": ""} for curve, (_, marker) in pairs}
        named = {literal(name): ax.plot([], [], **look)[0] for name, look in (runs | families).items()}
    handles, labels = list(named.values()), list(named)
    if len(handles) > _MOST_CURVES_NAMED:  # the ends of a training tell enough
        keep = np.unique(np.linspace(0, len(handles) - 1, _MOST_CURVES_NAMED).astype(int))
        handles, labels = [handles[index] for index in keep], [labels[index] for index in keep]
    ax_lines = [ax.plot([], [], "-", color=BLACK, linewidth=1.2)[0]]
    names = ["ideal length"]
    if law:
        ax_lines.append(ax.plot([], [], ":", color=BLACK, linewidth=1.6)[0])
        names.append("law, κ step²/24")
    title = None if title is None else literal(title)
    ax.legend([*handles, *ax_lines], [*labels, *names], loc="best", title=title)


def _sentences(curves: Sequence[_Curve], x: str, hidden: int, law: bool) -> list[str]:
    points = sum(len(curve.bits) for curve in curves)
    missing = sum(int(np.isnan(curve.bits).sum()) for curve in curves)
    sentences = ["Points: streams that were written and decoded. Lines: their ideal length."]
    if missing:
        sentences.append(f"{missing} of {points} tolerances not reached by any code, and left out.")
    if hidden:
        sentences.append(
            f"{hidden} of {points} points left out: the decoded weights raise the loss by nothing or less."
        )
    losses = np.array([curve.train_loss for curve in curves])
    losses = losses[np.isfinite(losses)]
    if len(losses) and is_unmatched(losses.min(), losses.max()):
        sentences.append(
            f"NOT at matched loss: training losses {losses.min():.3g} to {losses.max():.3g}, more than a factor of "
            f"{LARGEST_RATIO:g}."
        )
    if law:
        sentences.append(
            "Dotted: at the rise that the quantisation law foretells for the same code, good to a factor of about two."
        )
    return sentences


def _listed(steps: np.ndarray) -> str:
    return ", ".join(map(str, steps)) if len(steps) <= 12 else f"{len(steps)} from {steps[0]} to {steps[-1]}"
