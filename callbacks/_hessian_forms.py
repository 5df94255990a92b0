"""Cheaper forms of the Hessian's spectrum, and what each of them takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from landscape.callbacks._effort import Work

_FEWER = {"probes": 2, "trace_tol": 0.1, "trace_max_matvecs": 20}
_LEAST = {"k": 1, "k_bottom": 1, "probes": 1, "steps": 10, "max_matvecs": 10, "trace_max_matvecs": 0}
_CHEAP = {"layers": False, "gap": False}
_SPARE = 24  # products beyond those for the pairs themselves, the second look among them
_BESIDE = 4.0  # passes over vectors beside a product: a Lanczos step, and its share in what comes before and after
_TRACKED = 10  # products beyond k of a followed subspace that turns at a usual pace


def spectrum_forms(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the forms of the spectrum: as asked, with fewer probes, and the smallest.

    Args:
        asked: The settings by name.

    Returns:
        The settings that each form changes. Followed eigenpairs and PyHessian's have one form.
    """
    if asked["track"] or asked["engine"] != "lanczos":
        return [{}]
    fewer = {
        name: max(asked[name], value) if name == "trace_tol" else min(asked[name], value)
        for name, value in _FEWER.items()
    }
    least = {name: min(asked[name], value) for name, value in _LEAST.items()}
    return [{}, _different(asked, fewer), _different(asked, fewer | least | _CHEAP)]


def spectrum_work(settings: Mapping[str, Any], layers: int, gap_probes: int) -> Work:
    """Return the expected work of an event.

    Args:
        settings: The settings by name.
        layers: Number of layers, where they are measured.
        gap_probes: Products with each matrix for their distance, where it is measured.

    Returns:
        The work. Vectors: the Krylov basis.
    """
    k = settings["k"]
    if settings["engine"] != "lanczos":
        return Work(products=100.0 * k, vectors=k + 4)
    if settings["track"]:
        return Work(products=k + _TRACKED, gradients=3.0, vectors=2 * k + 6)
    pairs = min(settings["max_matvecs"], _SPARE + 1.2 * (k + settings["k_bottom"]))
    probes = (settings["probes"] - 1) * settings["steps"]
    trace = max(settings["trace_max_matvecs"] / 3, min(settings["trace_max_matvecs"], 8))
    layered = 2 * layers * settings["trace_max_matvecs"] / 2 if settings["layers"] else 0
    gap = 2 * gap_probes if settings["gap"] else 0
    basis = min(max(2 * (k + settings["k_bottom"]) + 24, pairs), settings["max_matvecs"])
    products = pairs + probes + trace + layered + gap
    return Work(products=products, gradients=2.0, passes=_BESIDE * products, vectors=basis + 4)


def padded(row: Mapping[str, Any], shapes: Mapping[str, int]) -> dict[str, Any]:
    """Fill the eigenvalues that a smaller form leaves out: NaN, and not converged.

    The condition number is that of all eigenvalues at the top, so it is NaN without some of them.

    Args:
        row: The measured row.
        shapes: Eigenvalues that the group was declared with, by end ("top", "bottom").

    Returns:
        The row, with arrays of the declared lengths.
    """
    filled = dict(row)
    for end, count in shapes.items():
        for name in (f"eigenvalues_{end}", f"eigenvalues_{end}_stderr_sample", f"residuals_{end}", f"converged_{end}"):
            values = np.asarray(row.get(name, []))
            if 0 < len(values) < count:
                fill = -1 if values.dtype.kind == "i" else np.nan
                filled[name] = np.pad(values, (0, count - len(values)), constant_values=fill)
                if name == "eigenvalues_top":
                    filled["condition_number"] = np.nan
    return filled


def _different(asked: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if asked[name] != value}
