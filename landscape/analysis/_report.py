"""One page of all that run files hold: provenance, final values, every picture, failed measurements."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from landscape import __version__
from landscape._errors import LandscapeError, brief
from landscape._text import visible
from landscape.analysis._connectivity import plot_connectivity
from landscape.analysis._flatness import plot_flatness_compressibility
from landscape.analysis._learning_coefficient import plot_learning_coefficient
from landscape.analysis._monitor import plot_monitor
from landscape.analysis._rate_distortion import plot_rate_distortion
from landscape.analysis._reading import RunLike, as_run
from landscape.analysis._report_page import PAGE
from landscape.analysis._sharpness import plot_sharpness
from landscape.analysis._spectrum import plot_spectrum
from landscape.analysis._style import closing_figures
from landscape.analysis._summary import summarize, value_text
from landscape.analysis._surface import plot_surface
from landscape.analysis._swa import plot_swa
from landscape.record import Run
from landscape.record._life import NAMES

# Title, picture and the group that it needs, in the order of the page.
_OF_ONE_RUN: tuple[tuple[str, Callable[..., Any], str], ...] = (
    ("Sharpness", plot_sharpness, "sharpness"),
    ("Sharpness along the steps", plot_monitor, "sharpness_monitor"),
    ("Hessian spectrum", plot_spectrum, "hessian_spectrum"),
    ("Weight averaging", plot_swa, "swa_trajectory"),
    ("Mode connectivity", plot_connectivity, "mode_connectivity"),
    ("Loss surface", plot_surface, "loss_surface"),
    ("Code length at an allowed rise of the loss", plot_rate_distortion, "compressibility"),
    ("Learning coefficient", plot_learning_coefficient, "learning_coefficient"),
)
_DPI = 110


def write_report(runs: RunLike | Sequence[RunLike], out: str | Path) -> Path:
    """Write one self-contained HTML page about one or several runs, which needs no network to be read.

    Several runs are compared by their final values and by flatness against compressibility; then each run has its
    provenance, its first and last values with standard errors, the pictures that its groups allow, and its failed
    measurements with their reasons. A picture that cannot be drawn says why in its place.

    Args:
        runs: Paths of run files, or open runs.
        out: The page to write, .html.

    Returns:
        Its path.

    Raises:
        FileError: A run file cannot be read.
        ValueError: No run is given.
    """
    listed = [runs] if isinstance(runs, str | Path | Run) else list(runs)
    if not listed:
        raise ValueError("no run is given; give at least one run file")
    opened = [as_run(run) for run in listed]
    summaries = [summarize(run) for run in opened]
    context = {
        "version": __version__,
        "life": NAMES,
        "comparison": _comparison(opened, summaries) if len(opened) > 1 else None,
        "runs": [
            {"summary": summary, "figures": _figures(run)} for run, summary in zip(opened, summaries, strict=True)
        ],
    }
    page = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_visible
    )
    page.filters |= {"number": _number, "plain": _plain}
    out = Path(out)
    out.write_text(page.from_string(PAGE).render(context), encoding="utf-8")
    return out


def _comparison(runs: Sequence[Run], summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the final values of all runs, a row a measure that some have, and the picture of the two axes."""
    labels: dict[str, str] = {}
    for summary in summaries:
        labels |= {value["name"]: value["label"] for value in summary["values"] if value["main"]}
    last = [{value["name"]: value["last"] for value in summary["values"]} for summary in summaries]
    rows = [{"label": label, "values": [values.get(name) for values in last]} for name, label in labels.items()]
    figure = _picture("Flatness against compressibility", partial(plot_flatness_compressibility, list(runs)))
    return {"names": [Path(summary["path"]).name for summary in summaries], "rows": rows, "figures": [figure]}


def _figures(run: Run) -> list[dict[str, str]]:
    return [_picture(title, partial(plot, run)) for title, plot, group in _OF_ONE_RUN if group in run.groups]


def _picture(title: str, draw: Callable[[], Any]) -> dict[str, str]:
    """Draw a picture and close it; what it warns of stands below it, and why it failed in its place."""
    said: list[str] = []
    image = ""
    with warnings.catch_warnings(record=True) as caught, closing_figures():
        warnings.simplefilter("always", UserWarning)
        try:
            axes = draw()
            figure = getattr(axes, "flat", [axes])[0].figure
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight")
            image = base64.b64encode(buffer.getvalue()).decode("ascii")
        except LandscapeError as error:
            said.append(f"Not drawn: {error}")
        except Exception as error:  # numbers or settings that no measure writes: the rest of the page is worth having
            said.append(f"Not drawn: the file holds what this picture cannot show ({brief(error)}).")
    said += [_sentence(str(warning.message)) for warning in caught if issubclass(warning.category, UserWarning)]
    return {"title": title, "image": image, "said": " ".join(said)}


def _visible(value: Any) -> Any:
    """Replace control characters of a text by escapes; markup of the template itself is of another class."""
    return visible(value, keep="\n") if type(value) is str else value


def _number(value: dict[str, Any] | None) -> str:
    return "–" if value is None else value_text(value)


def _plain(value: Any) -> str:
    """Write an attribute; of nested ones `name value` each."""
    return ", ".join(f"{name} {item}" for name, item in value.items()) if isinstance(value, dict) else str(value)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."
