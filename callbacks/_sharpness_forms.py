"""Cheaper forms of the sharpness measures, and what each measure takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from landscape.callbacks._effort import Work
from landscape.callbacks._sharpness_measures import Recorded

_FEWER: dict[str, dict[str, int]] = {
    "average_case": {"draws": 10},
    "pac_bayes": {"draws": 10},
    "random_radius": {"draws": 10},
    "trace_chc": {"max_matvecs": 40},
}
_LEAST: dict[str, dict[str, int]] = {
    "average_case": {"draws": 4},
    "worst_case": {"steps": 5},
    "keskar": {"iterations": 3},
    "pac_bayes": {"draws": 4},
    "random_radius": {"draws": 4},
    "lambda_max_chc": {"max_matvecs": 20},
    "trace_chc": {"max_matvecs": 20},
    "relative_flatness": {"max_matvecs": 20},
}
_BISECTION = 10  # losses until a radius is known to its tolerance
_CURVATURE = 40  # products of an eigenvalue or a trace that may take as many as it needs


def sharpness_forms(recorded: Sequence[Recorded]) -> list[dict[str, Any]]:
    """Return the forms: as asked, with fewer draws, and the smallest.

    Args:
        recorded: The measures.

    Returns:
        For each form the attributes of the callback that it changes.
    """
    return [{}, _limited(recorded, _FEWER), _limited(recorded, _LEAST)]


def sharpness_work(recorded: Sequence[Recorded]) -> Work:
    """Return the expected work of all measures."""
    return sum((_work(each) for each in recorded), Work())


def _limited(recorded: Sequence[Recorded], most: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    found, words = [], []
    for each in recorded:
        limits = most.get(each.measure, {})
        lower = {name: limit for name, limit in limits.items() if (_setting(each, name) or math.inf) > limit}
        words += [f"{each.name}.{name}={limit}" for name, limit in lower.items()]
        found.append(dataclasses.replace(each, settings={**each.settings, **lower}))
    return {"_recorded": found, "_words": ", ".join(words)} if words else {}


def _setting(recorded: Recorded, name: str) -> Any:
    default = recorded.parameters[name].default if name in recorded.parameters else None
    return recorded.settings.get(name, default)


def _work(recorded: Recorded) -> Work:
    """Return the expected work of one measure; each rung of a ladder is a measure of its own."""
    rungs = len(recorded.settings[recorded.rung]) if recorded.rung else 1
    draws = _setting(recorded, "draws") or 1
    match recorded.measure:
        case "gradient_norm" | "fisher_rao":
            return Work(gradients=1.5, passes=1, vectors=1)
        case "sam" | "asam" | "m_sharpness":
            return Work(gradients=1, evaluations=1 + rungs, passes=1 + rungs, vectors=2)
        case "average_case":
            return Work(evaluations=1 + draws * rungs, passes=1.3 * draws * rungs, vectors=2)
        case "worst_case":
            steps = _setting(recorded, "steps") * rungs
            return Work(gradients=rungs + steps, evaluations=1, passes=5 * steps, vectors=6)
        case "keskar":
            return Work(gradients=2 * _setting(recorded, "iterations") * rungs, vectors=8)
        case "pac_bayes" | "random_radius":
            return Work(evaluations=draws * _BISECTION * rungs, vectors=2)
        case _:
            return Work(products=_setting(recorded, "max_matvecs") or _CURVATURE, gradients=2, vectors=_CURVATURE)
