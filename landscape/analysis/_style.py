"""How the pictures look: colours that colour-blind readers tell apart, fonts that stay legible in a paper's column."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import offset_copy

from landscape._text import visible

# Okabe & Ito's palette, the colours that stand out on white first.
BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE, BLACK = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#56B4E9",
    "#CC79A7",
    "#000000",
)
PALETTE = (BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE, BLACK)
GREY = "#9A9A9A"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")

_SETTINGS: dict[str, Any] = {
    "font.size": 10,
    "axes.labelsize": 10.5,
    "axes.titlesize": 10.5,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 9,
    "legend.framealpha": 0.9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "lines.linewidth": 1.6,
    "axes.axisbelow": True,
    "text.usetex": False,  # names out of files would be run by TeX, which reads other files
}
CAPTION_SIZE = 9
_MANY_DECADES = 1e3  # beyond, a label a decade is enough
# Width of an average character of the default font, in units of its size.
_CHARACTER = 0.49
_NARROWEST = 20  # characters a line at least
_LONGEST = 300  # characters of a text out of a file: a name, a setting
_LABEL = {"x": 64, "y": 46}  # characters of an axis label that a picture of ordinary size has room for


@contextmanager
def style() -> Iterator[None]:
    """Draw a picture in our style; the settings that it changes come back after it.

    Those alone: `matplotlib.rc_context` would bring all back, and with them undo that a notebook becomes interactive at
    its first figure, so that no later one would be shown.

    Yields:
        Nothing.
    """
    settings: Any = mpl.rcParams  # its stub lists every name
    former = {name: settings[name] for name in _SETTINGS}
    settings.update(_SETTINGS)
    try:
        yield
    finally:
        settings.update(former)


def new_axes(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = (6.8, 4.8), sharex: bool = False, **grid: Any
) -> Any:
    """Return the axes of a new figure: one, or an array of them where there are several panels."""
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", sharex=sharex, gridspec_kw=grid)
    return axes


def panels(ax: Any, count: int) -> np.ndarray:
    """Return the axes that the caller gave for the panels of one picture.

    Raises:
        ValueError: There are more or fewer of them than panels.
    """
    given = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if len(given) != count:
        raise ValueError(f"this plot has {count} panels, and ax holds {len(given)} axes; give {count}, or none")
    return given


@contextmanager
def closing_figures() -> Iterator[None]:
    """Close the figures that are made meanwhile, also that of a picture that could not be drawn."""
    before = set(plt.get_fignums())
    try:
        yield
    finally:
        for number in set(plt.get_fignums()) - before:
            plt.close(number)


def literal(text: object, longest: int = _LONGEST) -> str:
    """Return untrusted text as matplotlib shows it letter by letter.

    Control characters become their escapes, dollar signs begin no mathematics, long texts are cut. A leading underscore
    gets a hair space before it: matplotlib's legends leave out labels that begin with one.

    Args:
        text: The text, or something that is shown as its `str`.
        longest: Characters at most.

    Returns:
        The text for any label, title or legend of matplotlib.
    """
    shown = visible(text, keep="\n")
    shown = shown if len(shown) <= longest else f"{shown[:longest]}…"
    return ("\N{HAIR SPACE}" if shown.startswith("_") else "") + shown.replace("$", r"\$")


def caption(ax: Any, sentences: Sequence[str], until: Any = None) -> None:
    """Write sentences above the axes, the first on a line of its own, so that they are in every saved picture.

    Args:
        ax: The axes.
        sentences: What to write.
        until: Axes to the right of these, up to whose right end the lines may run.
    """
    ax.figure.canvas.figure.draw_without_rendering()  # the layout decides how wide the axes are
    right = (until or ax).get_window_extent().x1
    room = right - ax.get_window_extent().x0
    paragraphs = [literal(text, 10 * _LONGEST) for text in (sentences[0], " ".join(sentences[1:]))]
    width = max(_NARROWEST, int(room / ax.figure.dpi * 72 / (CAPTION_SIZE * _CHARACTER)))
    while True:
        lines = [line for text in paragraphs for line in textwrap.wrap(text, width)]
        written = ax.set_title("\n".join(lines), loc="left", fontsize=CAPTION_SIZE, linespacing=1.3)
        excess = written.get_window_extent().width / room
        if excess <= 1 or width == _NARROWEST:
            return
        width = max(_NARROWEST, min(width - 1, int(width / excess)))  # its characters are wider than the average


def broken(label: str, axis: str) -> str:
    """Return an axis label in as many lines as it needs not to run out of the picture."""
    return textwrap.fill(literal(label), _LABEL[axis], break_long_words=False, break_on_hyphens=False)


def legend_above(ax: Any, columns: int, title: str | None = None) -> None:
    """Put the legend above the axes, where it hides no data; nothing where there is nothing to name.

    It has fewer columns where it would be wider than the panel's share of the figure.
    """
    handles, labels = ax.get_legend_handles_labels()
    if not handles:
        return
    labels, title = [literal(label) for label in labels], None if title is None else literal(title)
    spec = ax.get_subplotspec()
    share = ax.figure.bbox.width / (spec.get_gridspec().ncols if spec is not None else 1)
    for count in range(columns, 0, -1):
        legend = ax.legend(handles, labels, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=count, title=title)
        legend.set_in_layout(False)  # how wide it is does not depend on the axes, which it would push together
        ax.figure.canvas.figure.draw_without_rendering()
        fits = legend.get_window_extent().width <= share
        legend.set_in_layout(True)
        if fits:
            return


def legend_below(ax: Any, columns: int = 1, below: float = 40.0, first: Sequence[str] = ()) -> None:
    """Put the legend below the axes and their label, where a caption stands above; nothing where nothing is named.

    Args:
        ax: The axes.
        columns: Its columns.
        below: Room for ticks and label, in points.
        first: Labels that come first, in this order.
    """
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        order = sorted(
            range(len(labels)), key=lambda at: first.index(labels[at]) if labels[at] in first else len(first)
        )
        handles, labels = [handles[at] for at in order], [literal(labels[at]) for at in order]
        place = offset_copy(ax.transAxes, ax.figure, y=-below, units="points")
        ax.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.0), bbox_transform=place, ncols=columns)


def spans_decade(values: Any) -> bool:
    """Return whether values belong on a logarithmic axis: all positive, over more than a factor of ten."""
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    return bool(len(values)) and values.min() > 0 and values.max() > 10 * values.min()


def log_where_positive(ax: Any, values: Any, axis: str = "y") -> None:
    """Make an axis logarithmic where the values on it call for that; others than positive ones are not drawn."""
    if spans_decade(values):
        (ax.set_xscale if axis == "x" else ax.set_yscale)("log", nonpositive="mask")
        plain_log_ticks(ax.xaxis if axis == "x" else ax.yaxis, values)


def plain_log_ticks(axis: Any, values: Any) -> None:
    """Label a logarithmic axis over few decades at 1, 2 and 5 with plain numbers: matplotlib's labels would collide."""
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    if values.max() > _MANY_DECADES * values.min():
        return
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def mark_failed(ax: Any, steps: Any) -> None:
    """Put a grey cross at the bottom of the axes for every step whose measurement failed."""
    steps = np.asarray(steps)
    if len(steps):
        ax.plot(
            steps,
            np.full(len(steps), 0.02),
            "x",
            color=GREY,
            transform=ax.get_xaxis_transform(),
            label="measurement failed",
            clip_on=False,
        )
