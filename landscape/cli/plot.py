"""`landscape plot`: a figure from run files."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import matplotlib as mpl

from landscape import analysis
from landscape._text import visible
from landscape.analysis._style import closing_figures
from landscape.cli._foreseen import of_files
from landscape.cli._output import say

_EXAMPLE = (
    "\b\nExample:\n  landscape plot runs/*.h5 --out flatness.png --group batch_size\n"
    "  landscape plot landscape.h5 --kind spectrum --out spectrum.pdf\n"
    "  landscape plot *.lsc --kind bound --out bounds.png"
)
_SUFFIXES = (".png", ".svg", ".pdf")
_PAGE = ".html"
_COMPARISON = "flatness-compressibility"
_OF_SEVERAL = {
    _COMPARISON: analysis.plot_flatness_compressibility,
    "rate-distortion": analysis.plot_rate_distortion,
    "rank-correlations": analysis.plot_rank_correlations,
    "bound": analysis.plot_bound_decomposition,
}
_OF_ONE_RUN = {
    "spectrum": analysis.plot_spectrum,
    "sharpness": analysis.plot_sharpness,
    "monitor": analysis.plot_monitor,
    "connectivity": analysis.plot_connectivity,
    "surface": analysis.plot_surface,
    "swa": analysis.plot_swa,
    "learning-coefficient": analysis.plot_learning_coefficient,
}
# What an option is called by the plot of each kind that it belongs to.
_OPTIONS: dict[str, dict[str, str]] = {
    "x": {_COMPARISON: "x", "rate-distortion": "x"},
    "y": {_COMPARISON: "y", "rank-correlations": "target"},
    "color": {_COMPARISON: "color"},
    "points": {_COMPARISON: "points"},
    "matched_loss": {_COMPARISON: "matched_loss", "rank-correlations": "matched_loss"},
    "group": {_COMPARISON: "group", "rate-distortion": "label"},
    "isolines": {_COMPARISON: "bound"},
}
_RATE_AXES = ("tolerance", "loss_rise")


def _check_suffix(ctx: click.Context, parameter: click.Parameter, out: Path) -> Path:
    if out.suffix.lower() not in (*_SUFFIXES, _PAGE):
        raise click.BadParameter(f"{out} must end in {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}")
    return out


def _check_finite(ctx: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no training loss")
    return value


@click.command("plot", epilog=_EXAMPLE)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "--kind",
    type=click.Choice([*_OF_SEVERAL, *_OF_ONE_RUN]),
    default=_COMPARISON,
    show_default=True,
    help="What to draw; the first four take several RUNs, bound certificates (.lsc).",
)
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path),
    required=True,
    callback=_check_suffix,
    help="File to write: .png, .svg or .pdf; of a surface also .html, to turn it around.",
)
@click.option("--x", help="Column of the flatness measure  [default: average_case]; of rate-distortion loss_rise.")
@click.option("--y", help="Column of the compressibility measure.  [default: bits[tolerance=0.03]]")
@click.option("--color", help="Column or hyper-parameter that colours the points.  [default: held_out_error]")
@click.option("--points", type=click.Choice(["final", "trajectory"]), help="A point a run, or its way there as well.")
@click.option(
    "--matched-loss", type=float, callback=_check_finite, help="Training loss at which the runs are compared."
)
@click.option("--group", help="Attribute or hyper-parameter that gives marker and legend entry.")
@click.option("--isolines", is_flag=True, default=None, help="Lines of equal bound, at the median training error.")
@click.option("--dpi", type=click.IntRange(30, 1200), default=150, show_default=True, help="Dots per inch.")
def command(runs: tuple[Path, ...], kind: str, out: Path, dpi: int, **choices: Any) -> None:
    """Draw a figure from run files and print where it was written.

    --x, --y, --color, --points, --matched-loss, --group and --isolines belong to flatness-compressibility; --x and
    --group to rate-distortion too, --y (what is ranked) and --matched-loss to rank-correlations too.
    """  # noqa: DOC501 - this text is what --help prints
    given = _arguments(kind, {name: value for name, value in choices.items() if value is not None})
    if kind in _OF_ONE_RUN and len(runs) > 1:
        raise click.UsageError(f"--kind {kind} draws one run, and {len(runs)} were given")
    if out.suffix.lower() == _PAGE:
        if kind != "surface":
            raise click.UsageError(
                f"only --kind surface makes an interactive page; give --out as {', '.join(_SUFFIXES)}"
            )
        with of_files(runs):
            say(analysis.write_surface_html(runs[0], out))
        return
    mpl.use("Agg")
    with _warnings_as_sentences(), of_files(runs), closing_figures():
        axes = _OF_ONE_RUN[kind](runs[0]) if kind in _OF_ONE_RUN else _OF_SEVERAL[kind](runs, **given)
        figure = getattr(axes, "flat", [axes])[0].figure
        figure.savefig(out, dpi=dpi)
    say(out)


def _arguments(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the options as the plot of this kind calls them."""
    for name in given:
        if kind not in _OPTIONS[name]:
            option, kinds = name.replace("_", "-"), " and ".join(_OPTIONS[name])
            raise click.UsageError(f"--{option} belongs to --kind {kinds}, not to --kind {kind}")
    if kind == "rate-distortion" and given.get("x", _RATE_AXES[0]) not in _RATE_AXES:
        raise click.UsageError(f"--x of --kind {kind} is {' or '.join(_RATE_AXES)}, not {given['x']}")
    column = given.get("y", "bits[tolerance=0.03]")
    if given.get("isolines") and not column.startswith("bits["):
        raise click.UsageError(f"--isolines needs --y of bits that decode, such as bits[tolerance=0.1], not {column}")
    return {_OPTIONS[name][kind]: value for name, value in given.items()}


@contextlib.contextmanager
def _warnings_as_sentences() -> Iterator[None]:
    """Print warnings meant for the user on stderr without the line of code they came from."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: say(f"Warning: {visible(message).rstrip('.')}.", err=True)
        yield
