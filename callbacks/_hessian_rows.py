"""Measure the rows of the Hessian's spectrum, by each engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from landscape._errors import MeasurementError
from landscape._results import Estimate
from landscape.callbacks._parts import Parts
from landscape.curvature import (
    Eigenpairs,
    SpectralDensity,
    Spectrum,
    SymmetricOperator,
    Tracked,
    condition_of_pairs,
    effective_dimension,
    negative_share,
    pyhessian_spectrum,
    spectral_density,
    spectral_entropy,
    spectrum,
    trace,
    track,
)
from landscape.objective import Objective


def take_spectrum(
    parts: Parts,
    objective: Objective,
    operator: SymmetricOperator,
    *,
    trace_tol: float,
    trace_max_matvecs: int,
    z: Sequence[float],
    shape: tuple[int, int],
    seed: int,
    probes: int,
    steps: int,
    memory_budget: int | None = None,
    **settings: Any,
) -> None:
    """Measure both ends, the density and what follows from it, and the trace, each as a part that may fail alone.

    One run gives the ends and the density's first probe. Where it fails, the density is taken by itself.

    Args:
        parts: The row.
        objective: The loss at the weights to measure.
        operator: Its Hessian.
        trace_tol: Relative standard error of the trace.
        trace_max_matvecs: Most products for it; 0 to read it off the density's probes.
        z: Scales of the effective dimensionality.
        shape: Probes and nodes that the row has room for.
        seed: Seed of everything drawn.
        probes: Probes of the density.
        steps: Lanczos steps of each probe.
        memory_budget: Bytes of vectors; None for no limit.
        **settings: Further ones of `landscape.curvature.spectrum`.
    """
    found: list[Spectrum] = []

    def ends() -> dict[str, Any]:
        given: dict[str, Any] = {"seed": seed, "probes": probes, "steps": steps, "memory_budget": memory_budget}
        found.append(spectrum(operator, **given, **settings))
        top, bottom = found[0].top, found[0].bottom
        own = {
            "eigenvalue_tolerance": min(top.tolerance, bottom.tolerance),
            "lambda_min": bottom.values[0],
            "lambda_min_stderr_sample": bottom.stderr_sample[0],
        }
        return _ends(operator, top=top, bottom=bottom) | own

    def density() -> dict[str, Any]:
        measured = (
            found[0].density if found else spectral_density(operator, seed, probes, steps, memory_budget=memory_budget)
        )
        return _density_row(measured, objective.n_examples, z, shape)

    def whole_trace() -> dict[str, Any]:
        if not trace_max_matvecs and found:
            mean = found[0].density.expectation(lambda nodes: nodes)
            return _with_errors("trace", mean.scaled(operator.shape[0]))
        # The eigenpairs just found stand in for the sketch: few products are left for the rest of the trace.
        known = (found[0].top, found[0].bottom) if found else ()
        settled: dict[str, Any] = {"tol": trace_tol, "max_matvecs": trace_max_matvecs, "seed": seed}
        held = sum(pairs.vectors.numel() * pairs.vectors.element_size() for pairs in known)
        left = None if memory_budget is None else max(memory_budget - held, 1)
        estimate = trace(operator, method="hutch++", known=known, memory_budget=left, **settled)
        return _with_errors("trace", estimate)

    parts.take("eigenpairs", ends)
    parts.take("density", density)
    parts.take("trace", whole_trace)


def _density_row(
    density: SpectralDensity, n_examples: int, z: Sequence[float], shape: tuple[int, int]
) -> dict[str, Any]:
    probes, nodes = density.nodes.shape
    padding = ((0, shape[0] - probes), (0, shape[1] - nodes))
    n_eff = effective_dimension(density, z, n_examples)
    negative, entropy = negative_share(density), spectral_entropy(density)
    return {
        "density_nodes": np.pad(density.nodes, padding, mode="edge"),
        "density_weights": np.pad(density.weights, padding),
        "n_eff": n_eff.value,
        "n_eff_complement": n_eff.complement,
        "n_eff_stderr": n_eff.stderr,
        "n_eff_stderr_sample": n_eff.stderr_sample,
        **_with_errors("negative_share", negative),
        **_with_errors("spectral_entropy", entropy),
    }


def tracked_row(
    objective: Objective, operator: SymmetricOperator, previous: Tracked | None, k: int, seed: int
) -> tuple[dict[str, Any], Tracked]:
    """Follow the top eigenpairs from the last event, and return the row with what the next event begins from."""
    found = track(operator, previous, k=k, gradient=objective.gradient(), seed=seed)
    row = {
        **_ends(operator, top=found.pairs),
        "subspace_angles": found.angles,
        "gradient_share": found.gradient_share,
        "correction": found.correction,
        "cold_start": np.int8(found.cold),
    }
    return row, found


def pyhessian_row(objective: Objective, k: int, tol: float, seed: int) -> dict[str, Any]:
    """Take PyHessian's eigenvalues and trace.

    Returns:
        The row.

    Raises:
        MeasurementError: The objective is in train mode, or PyHessian cannot measure it.
    """
    if objective.mode != "eval":
        raise MeasurementError("PyHessian measures in eval mode only; use mode='eval' or engine='lanczos'")
    pairs, estimate = pyhessian_spectrum(objective, k, tol, seed)
    return {
        **_ends(None, top=pairs),
        **_with_errors("trace", estimate),
        "n_matvecs": pairs.n_matvecs,
    }


def _with_errors(name: str, found: Estimate) -> dict[str, float]:
    return {name: found.value, f"{name}_stderr": found.stderr, f"{name}_stderr_sample": found.stderr_sample}


def _ends(operator: SymmetricOperator | None, top: Eigenpairs, bottom: Eigenpairs | None = None) -> dict[str, Any]:
    condition = condition_of_pairs(top, operator)
    row: dict[str, Any] = {
        "lambda_max": top.values[0],
        "lambda_max_stderr_sample": top.stderr_sample[0],
        "condition_number": condition.value,
        "condition_number_stderr_sample": condition.stderr_sample,
    }
    for end, pairs in {"top": top, "bottom": bottom}.items():
        if pairs is None:
            continue
        row[f"eigenvalues_{end}"] = pairs.values
        row[f"eigenvalues_{end}_stderr_sample"] = pairs.stderr_sample
        row[f"residuals_{end}"] = pairs.residuals
        row[f"converged_{end}"] = pairs.converged_each.astype(np.int8)
    return row
