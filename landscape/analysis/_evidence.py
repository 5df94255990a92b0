"""The Occam curve: how well priors of different widths explain the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from landscape.analysis._style import MARKERS, PALETTE, caption, new_axes, style

_REACH = 4.0  # the axis goes so many times as far below the largest value as the median lies


def plot_evidence(evidences: Any, *, per_example: bool = False, ax: Any = None) -> Any:
    """Plot Laplace's log evidence over the precision of the prior, a curve a label, its largest value marked.

    Too small a precision wastes the prior on weights that the data rule out, too large a one forbids those that they
    ask for. NaN (no Gaussian posterior) leaves a gap.

    Args:
        evidences: Results of `landscape.volume.laplace_evidence`, or their `to_dict()`, by label; or a single one.
        per_example: Divide by the number of examples, to compare data sets of different size.
        ax: Axes to draw on; those of a new figure by default.

    Returns:
        The matplotlib axes.

    Raises:
        ValueError: There is nothing to plot, or a curve lacks precisions or values.
    """
    single = hasattr(evidences, "log_evidence") or (isinstance(evidences, Mapping) and "log_evidence" in evidences)
    labelled: Mapping[str, Any] = {"": evidences} if single else evidences
    curves = {str(label): _fields(str(label), each) for label, each in labelled.items()}
    if not curves:
        raise ValueError("there is no evidence to plot; give at least one result of laplace_evidence")
    with style():
        ax = new_axes(size=(6.8, 4.6)) if ax is None else ax
        for index, (label, found) in enumerate(curves.items()):
            order = np.argsort(found["precision"])
            precision = found["precision"][order]
            values = found["log_evidence"][order] / (found["n"] if per_example else 1)
            color = PALETTE[index % len(PALETTE)]
            line = {"color": color, "marker": MARKERS[index % len(MARKERS)], "markersize": 4, "label": label or None}
            ax.plot(precision, values, "-", **line)
            if np.isfinite(values).any():
                best = int(np.nanargmax(values))
                ax.plot(precision[best], values[best], "*", color=color, markersize=14, markeredgecolor="black")
        ax.set_xscale("log")
        ax.set_xlabel("precision τ of the prior N(0, 1/τ)")
        ax.set_ylabel("log evidence" + (" per example (nats)" if per_example else " (nats)"))
        if not single:
            ax.legend(loc="best")
        caption(ax, [*_sentences(curves), *_cut(ax)])
    return ax


def _fields(label: str, each: Any) -> dict[str, Any]:
    plain = each if isinstance(each, Mapping) else each.to_dict()
    if missing := [name for name in ("precision", "log_evidence", "n") if name not in plain]:
        raise ValueError(f"the evidence {label!r} has no {missing[0]!r}; expected a result of laplace_evidence")
    found = {**plain, **{name: np.atleast_1d(np.asarray(plain[name], float)) for name in ("precision", "log_evidence")}}
    if found["precision"].shape != found["log_evidence"].shape:
        raise ValueError(
            f"the evidence {label!r} has {len(found['precision'])} precisions and {len(found['log_evidence'])} values"
        )
    return found


def _sentences(curves: Mapping[str, dict[str, Any]]) -> list[str]:
    kinds = sorted({f"{found.get('structure', '?')} {found.get('curvature', '?')}" for found in curves.values()})
    texts = [f"Laplace ({', '.join(kinds)}). Star: the largest value measured."]
    if any(np.isnan(found["log_evidence"]).any() for found in curves.values()):
        texts.append("Gaps: a direction without curvature, so no Gaussian posterior.")
    if any(np.nanargmax(found["log_evidence"]) in {np.argmin(found["precision"]), np.argmax(found["precision"])}
           for found in curves.values() if np.isfinite(found["log_evidence"]).any()):  # fmt: skip
        texts.append("A star at the end of its curve is no maximum.")
    return texts


def _cut(ax: Any) -> list[str]:
    """End the axis where far too narrow priors would press the curves together, and say so."""
    values = np.concatenate([line.get_ydata() for line in ax.lines if line.get_linestyle() == "-"])
    values = values[np.isfinite(values)]
    if not len(values):
        return []
    lowest = values.max() - _REACH * (values.max() - np.median(values))
    below = int((values < lowest).sum())
    if not below or lowest == values.max():
        return []
    ax.set_ylim(lowest, values.max() + 0.08 * (values.max() - lowest))
    return [f"{below} value{'s' * (below > 1)} below the axis."]
