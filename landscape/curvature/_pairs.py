"""Eigenpairs as a result, with both of their errors."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from landscape._results import Result, aside
from landscape._sampling_error import Clusters, of_contributions
from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._without_basis import Extremes


@dataclasses.dataclass(frozen=True)
class Eigenpairs(Result):
    """Eigenpairs of a symmetric operator with the evidence for them.

    Attributes:
        values: Eigenvalues, shape (k,), float64: descending for "LA" and "BE", ascending for "SA", by descending
            magnitude for "LM".
        vectors: Unit eigenvectors in columns, shape (P, k), in the operator's type and on its device; (P, 0) where
            values alone were asked for.
        residuals: ‖Hv − λv‖ of each pair, shape (k,).
        converged_each: Whether each pair met the tolerance, shape (k,).
        converged: Whether all did.
        n_matvecs: Number of products spent.
        seed: Seed of the start vector.
        stderr_sample: Standard error over examples of each value, shape (k,), from vᵀH_b v of the batches b: how far
            other examples would move it. NaN with a single batch. It knows nothing of the residuals, and nothing of
            the bias of a maximum: λmax of few examples tends to lie above that of many.
        tolerance: Relative accuracy that the values were searched to; with tol="sample" the strictest of them.
        tolerance_from: "given"; "sample": a tenth of the error over examples; "fallback": "sample" was asked for, but
            that error could not be known on the way, so 10⁻³ was taken.
        parts: What each group of batches contributes to the values, shape (groups, k); None where it is not known.
    """

    values: np.ndarray
    vectors: torch.Tensor
    residuals: np.ndarray
    converged_each: np.ndarray
    converged: np.bool_
    n_matvecs: int
    seed: int
    stderr_sample: np.ndarray
    tolerance: float = float("nan")
    tolerance_from: str = "given"
    parts: np.ndarray | None = aside()


def in_form(
    found: Extremes, operator: SymmetricOperator, vectors: torch.Tensor, k: int, n_matvecs: int, seed: int
) -> Eigenpairs:
    """Put eigenvalues that were found without a basis into the form of eigenpairs.

    Args:
        found: The eigenvalues, k at most; where they are fewer, the rest is NaN.
        operator: What they are of.
        vectors: Their vectors, shape (P, m), or none, (P, 0).
        k: Number of pairs that were asked for.
        n_matvecs: Number of products spent.
        seed: Seed of the start vector.

    Returns:
        The pairs.
    """
    missing = k - len(found.values)
    each = np.pad(found.known, (0, missing))
    if missing and vectors.shape[1]:
        vectors = torch.nn.functional.pad(vectors, (0, missing), value=float("nan"))
    parts = None if found.parts is None else np.pad(found.parts, ((0, 0), (0, missing)), constant_values=np.nan)
    return Eigenpairs(
        values=np.pad(found.values, (0, missing), constant_values=np.nan),
        vectors=vectors,
        residuals=np.pad(found.residuals, (0, missing), constant_values=np.nan),
        converged_each=each,
        converged=np.bool_(each.all()),
        n_matvecs=n_matvecs,
        seed=seed,
        stderr_sample=over_examples(operator.clusters, parts, k),
        parts=parts,
    )


def over_examples(clusters: Clusters | None, parts: np.ndarray | None, k: int) -> np.ndarray:
    """Return standard errors over examples, shape (k,), from what each group contributes to k values (groups, k)."""
    return np.broadcast_to(of_contributions(clusters, parts), (k,)).copy()


def no_vectors(operator: SymmetricOperator) -> torch.Tensor:
    """Return the vectors of a result that has values alone, shape (P, 0)."""
    return torch.empty((operator.shape[0], 0), dtype=operator.dtype, device=operator.device)
