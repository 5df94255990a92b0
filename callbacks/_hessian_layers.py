"""What `HessianSpectrum` records of single layers, and of how far the Hessian is from the Gauss-Newton matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from landscape.callbacks._axes import on_axis, over_examples
from landscape.curvature import SymmetricOperator, ggn, layer_curvature, operator_gap
from landscape.objective import Objective
from landscape.record import Variable

LAYER_VARIABLES = [
    Variable("layer_trace", ("layer",), description="trace of the layer's diagonal block of the Hessian"),
    Variable("layer_trace_stderr", ("layer",), description="its standard error; 0 where the block was taken whole"),
    over_examples("layer_trace", ("layer",)),
    Variable("layer_lambda_max", ("layer",), description="largest eigenvalue of the layer's diagonal block"),
    over_examples("layer_lambda_max", ("layer",)),
    Variable("layer_residual", ("layer",), description="norm of Hv - lambda v for that eigenvalue"),
    Variable("layer_converged", ("layer",), "i1", description="1 where trace and eigenvalue met their tolerances"),
]

GAP_VARIABLES = [
    Variable("gap_frobenius", description="Frobenius norm of Hessian less Gauss-Newton matrix, over the Hessian's"),
    Variable("gap_frobenius_stderr", description="its standard error over probes"),
    Variable("gap_trace", description="trace of the Hessian less that of the Gauss-Newton matrix, over |the first|"),
    Variable("gap_trace_stderr", description="its standard error over probes"),
    over_examples("gap_trace"),
    Variable("gap_cosine", description="cosine between Hessian and Gauss-Newton matrix as vectors"),
]


def layer_row(
    operator: SymmetricOperator, labels: Sequence[str], tol: float | str, trace_tol: float, max_matvecs: int, seed: int
) -> dict[str, Any]:
    """Measure every layer's trace and largest eigenvalue.

    Args:
        operator: The Hessian of the whole network.
        labels: The layers that the group was declared with; those that do not train now get NaN.
        tol: Relative accuracy of the eigenvalues, or "sample".
        trace_tol: Relative standard error of the traces.
        max_matvecs: Most products for each of the two, of one layer.
        seed: Seed of everything drawn.

    Returns:
        The layers' part of the row.
    """
    blocks = operator.layers()
    found = layer_curvature(blocks, "hutch++", tol=trace_tol, eigen_tol=tol, seed=seed, max_matvecs=max_matvecs)
    columns = {
        "layer_trace": np.array([layer.trace.value for layer in found]),
        "layer_trace_stderr": np.array([layer.trace.stderr for layer in found]),
        "layer_trace_stderr_sample": np.array([layer.trace.stderr_sample for layer in found]),
        "layer_lambda_max_stderr_sample": np.array([layer.lambda_max_stderr_sample for layer in found]),
        "layer_lambda_max": np.array([layer.lambda_max for layer in found]),
        "layer_residual": np.array([layer.residual for layer in found]),
        "layer_converged": np.array([layer.converged for layer in found], dtype=np.int8),
    }
    return {name: on_axis(values, list(blocks), labels) for name, values in columns.items()}


def gap_row(operator: SymmetricOperator, objective: Objective, probes: int, seed: int) -> tuple[dict[str, Any], int]:
    """Measure how far the Hessian is from the Gauss-Newton matrix.

    Args:
        operator: The Hessian.
        objective: Whose Hessian it is.
        probes: Number of probes.
        seed: Their seed.

    Returns:
        The gap's part of the row, and the products with the Gauss-Newton matrix that it took.
    """
    gauss_newton = ggn(objective)
    gap = operator_gap(operator, gauss_newton, probes=probes, seed=seed)
    row = {
        "gap_frobenius": gap.frobenius.value,
        "gap_frobenius_stderr": gap.frobenius.stderr,
        "gap_trace": gap.trace.value,
        "gap_trace_stderr": gap.trace.stderr,
        "gap_trace_stderr_sample": gap.trace.stderr_sample,
        "gap_cosine": gap.cosine,
    }
    return row, gauss_newton.n_matvecs
