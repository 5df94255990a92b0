"""The Occam curve: how well priors of different widths explain the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from landscape.analysis._style import MARKERS, PALETTE, caption, log_where_positive, new_axes, panels, style

_ARRAYS = ("precision", "log_evidence", "n_eff")
_REACH = 4.0  # the axis goes so many times as far below the largest value as the median lies


def plot_evidence(evidences: Any, *, per_example: bool = False, ax: Any = None) -> Any:
    """Plot Laplace's log evidence and N_eff over the precision of the prior, a curve a label, the best one marked.

    Too small a precision wastes the prior on weights that the data rule out, too large a one forbids those that they
    ask for. N_eff counts the parameters that the data set, and not the prior. NaN (no Gaussian posterior) leaves a gap.

    Args:
        evidences: Results of `landscape.volume.laplace_evidence`, or their `to_dict()`, by label; or a single one.
        per_example: Divide by the number of examples, to compare data sets of different size.
        ax: Two axes to draw on; those of a new figure by default.

    Returns:
        Array of the two axes: evidence, N_eff.

    Raises:
        ValueError: There is nothing to plot, a curve lacks precisions or values, or `ax` does not hold two axes.
    """  # noqa: DOC503 - the panels raise one of them
    single = hasattr(evidences, "log_evidence") or (isinstance(evidences, Mapping) and "log_evidence" in evidences)
    labelled: Mapping[str, Any] = {"": evidences} if single else evidences
    curves = {str(label): _fields(str(label), each) for label, each in labelled.items()}
    if not curves:
        raise ValueError("there is no evidence to plot; give at least one result of laplace_evidence")
    with style():
        axes = panels(new_axes(2, 1, (6.8, 6.0), sharex=True, height_ratios=[2, 1]) if ax is None else ax, 2)
        upper, lower = axes
        for index, (label, found) in enumerate(curves.items()):
            order = np.argsort(found["precision"])
            precision = found["precision"][order]
            values = found["log_evidence"][order] / (found["n"] if per_example else 1)
            color = PALETTE[index % len(PALETTE)]
            line = {"color": color, "marker": MARKERS[index % len(MARKERS)], "markersize": 4, "label": label or None}
            upper.plot(precision, values, "-", **line)
            lower.plot(precision, found["n_eff"][order], "-", **line)
            if np.isfinite(values).any():
                best = int(np.nanargmax(values))
                upper.plot(precision[best], values[best], "*", color=color, markersize=14, markeredgecolor="black")
        for panel in axes:
            panel.set_xscale("log")
        log_where_positive(lower, np.concatenate([found["n_eff"] for found in curves.values()]))
        lower.set_xlabel("precision τ of the prior N(0, 1/τ)")
        lower.set_ylabel("N_eff (parameters)")
        upper.set_ylabel("log evidence" + (" per example (nats)" if per_example else " (nats)"))
        if not single:
            upper.legend(loc="best")
        caption(upper, [*_sentences(curves), *_cut(upper)])
    return axes


def _fields(label: str, each: Any) -> dict[str, Any]:
    plain = each if isinstance(each, Mapping) else each.to_dict()
    if missing := [name for name in (*_ARRAYS, "n") if name not in plain]:
        raise ValueError(f"the evidence {label!r} has no {missing[0]!r}; expected a result of laplace_evidence")
    found = {**plain, **{name: np.atleast_1d(np.asarray(plain[name], dtype=np.float64)) for name in _ARRAYS}}
    lengths = [len(found[name]) for name in _ARRAYS]
    if len(set(lengths)) > 1:
        numbers = ", ".join(f"{count} of {name}" for name, count in zip(_ARRAYS, lengths, strict=True))
        raise ValueError(f"the evidence {label!r} has unlike numbers of values: {numbers}")
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
