"""The diagonal of a symmetric operator from its products, with a standard error for every entry."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from scipy.special import ndtri

from landscape._given import of_operator
from landscape._results import Result, student_quantile
from landscape.curvature._lanczos import rademacher
from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._products import checked_later, require_finite_products
from landscape.curvature._trace import EXACT_SIZE, FLOOR
from landscape.curvature._xtrace import Sketch, Small, exchangeable_factor

_METHODS = ("xdiag", "bekas")
# The correction for the shared subspace is one number for all entries; this many tell it.
_ROWS = 500


@dataclasses.dataclass(frozen=True)
class DiagonalEstimate(Result):
    """A diagonal with standard errors and cost.

    Attributes:
        value: The estimate of diag H, shape (P,).
        stderr: Standard errors, shape (P,), widened by Student's t: value ± 1.96·stderr covers 95 % of the entries.
        n: Number of test vectors.
        seed: Their seed.
        dof: Degrees of freedom behind each standard error.
        n_matvecs: Number of products spent.
        converged: Whether the norm of the standard errors reached the tolerance.
        method: How it was estimated; "exact" where all products were taken.
    """

    value: np.ndarray
    stderr: np.ndarray
    n: int
    seed: int | None
    dof: float
    n_matvecs: int
    converged: bool
    method: str

    @property
    def relative_error(self) -> float:
        """The norm of the standard errors over that of the diagonal; NaN for a diagonal of zeros."""
        norm = float(np.linalg.norm(self.value))
        return float(np.linalg.norm(self.stderr)) / norm if norm > 0 else float("nan")

    def interval(self, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends, each (P,), of the intervals that cover an entry with the given confidence.

        Args:
            confidence: Between 0 and 1.

        Returns:
            Lower and upper ends.

        Raises:
            ValueError: The confidence is not between 0 and 1.
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence is {confidence}; it must lie between 0 and 1, for example 0.95")
        half = self.stderr * student_quantile((1 + confidence) / 2, self.dof) / _widening(self.dof)
        return self.value - half, self.value + half


@of_operator
def diagonal(
    operator: SymmetricOperator,
    method: str = "xdiag",
    tol: float = 0.1,
    seed: int = 0,
    max_matvecs: int = 200,
    floor: float = FLOOR,
) -> DiagonalEstimate:
    """Estimate diag H until ‖standard errors‖ falls below tol · max(‖diag H‖, floor · ‖H‖_F).

    "bekas" averages v ⊙ Hv over vectors of independent signs. "xdiag" takes the part of the diagonal that the images of
    the other test vectors span exactly, and only the rest from each vector, exchangeably, which needs far fewer
    products where the spectrum decays. Up to P = 24 the operator is taken whole.

    The standard errors come from the spread of the single estimates, which for xdiag is corrected, by one factor for
    all entries, for the subspace that they share (`exchangeable_factor`). Where an entry is dominated by few others of
    its row its samples are skewed, and its interval covers somewhat less.

    Memory: xdiag keeps six blocks of (P, n_matvecs/2) numbers, bekas two vectors.

    Args:
        operator: The symmetric operator, shape (P, P).
        method: "xdiag" or "bekas".
        tol: Relative standard error of the whole to reach.
        seed: Seed of the test vectors.
        max_matvecs: Most products to spend.
        floor: Share of the Frobenius norm below which ‖diag H‖ is no longer the scale.

    Returns:
        The estimate; `converged` is False where the budget ended first.

    Raises:
        ValueError: The method is unknown or the budget too small.
        MeasurementError: A product is not finite.

    Source: Bekas, Kokiopoulou & Saad 2007, doi:10.1016/j.apnum.2007.01.003; Epperly, Tropp & Webber 2024,
    arXiv:2301.07825, §2.4, which gives no standard error.

    Example:
        >>> import torch
        >>> from landscape.curvature._dense import DenseOperator
        >>> diagonal(DenseOperator(torch.diag(torch.arange(3.0)))).value
        array([0., 1., 2.])
    """
    if method not in _METHODS:
        raise ValueError(f"method is {method!r}; it must be one of {', '.join(_METHODS)}")
    if max_matvecs < 8:
        raise ValueError(f"max_matvecs is {max_matvecs}; a diagonal with standard errors needs at least 8 products")
    before = operator.n_matvecs
    size = operator.shape[0]
    if size <= min(EXACT_SIZE, max_matvecs):
        value = operator.dense().diagonal().double().cpu().numpy().copy()
        return DiagonalEstimate(
            value, np.zeros(size), 1, None, float("inf"), operator.n_matvecs - before, True, "exact"
        )
    rounds = _xdiag(operator, seed, max_matvecs) if method == "xdiag" else _bekas(operator, seed, max_matvecs)
    for value, variance, square, count in rounds:
        stderr = np.sqrt(variance) * _widening(count - 1)
        goal = tol * max(float(np.linalg.norm(value)), floor * float(np.sqrt(square)))
        converged = float(np.linalg.norm(stderr)) <= goal
        if converged:
            break
    return DiagonalEstimate(
        value, stderr, count, seed, float(count - 1), operator.n_matvecs - before, bool(converged), method
    )


def _widening(dof: float) -> float:
    return student_quantile(0.975, dof) / float(ndtri(0.975))


# A round: the diagonal, the variance of each entry, an estimate of ‖H‖²_F, and the number of test vectors.
_Round = tuple[np.ndarray, np.ndarray, float, int]


def _bekas(operator: SymmetricOperator, seed: int, budget: int) -> Iterator[_Round]:
    size = operator.shape[0]
    total = torch.zeros(size, dtype=torch.float64, device=operator.device)
    squares = torch.zeros_like(total)
    count, wanted = 0, min(8, budget)
    while True:
        with checked_later():
            for index in range(count, wanted):
                probe = rademacher(size, seed, index).to(operator.device, operator.dtype)
                image = (operator @ probe).double()
                total += probe.double() * image
                squares += image**2
        count = wanted
        value, square = (total / count).cpu().numpy(), squares.cpu().numpy()
        require_finite_products(float(value.sum()))
        variance = np.maximum(square / count - value**2, 0.0) / (count - 1)
        yield value, variance, float(square.sum()) / count, count
        if count >= budget:
            return
        wanted = min(budget, count + max(4, count // 2))


def _xdiag(operator: SymmetricOperator, seed: int, budget: int) -> Iterator[_Round]:
    size = operator.shape[0]
    most = max(2, min(budget // 2, size - 2))
    sketch = Sketch.empty(operator)
    while True:
        fresh = range(sketch.count, min(most, sketch.count + max(6, sketch.count // 2)))
        sketch.grow(torch.stack([rademacher(size, seed, index) for index in fresh], dim=1))
        small = sketch.small()
        tests, basis, basis_images = (
            part.double().cpu().numpy() for part in (sketch.tests, sketch.basis, sketch.basis_images)
        )
        each = _single_estimates(small, tests, basis, basis_images)
        count = each.shape[1]
        spread = each.var(axis=1, ddof=1) / count
        some = np.random.default_rng((seed, 2)).permutation(size)[:_ROWS]
        left_out = np.empty((len(some), count))
        for j in range(count):
            rotation, rest = small.without(j)
            others = np.arange(count) != j
            left_out[:, j] = _single_estimates(
                rest, tests[some][:, others], basis[some] @ rotation, basis_images[some] @ rotation
            ).mean(axis=1)
        jackknife = (count - 1) / count * ((left_out - left_out.mean(axis=1, keepdims=True)) ** 2).sum()
        # An entry's error comes mostly from the signs of the vector's own, so that less is shared than in a trace.
        variance = spread * exchangeable_factor(float(jackknife), float(spread[some].sum()), most=1.4)
        # Exact to rounding when the subspace holds the whole range: rounding is then the error.
        rounding = 4 * small.eps * (np.abs(basis) * np.abs(basis_images)).sum(axis=1)
        yield each.mean(axis=1), variance + rounding**2, small.square, count
        if count >= most:
            return


def _single_estimates(small: Small, tests: np.ndarray, basis: np.ndarray, basis_images: np.ndarray) -> np.ndarray:
    """Estimate the diagonal once from each test vector, held out of the subspace of the others; shape (rows, n)."""
    dual, lengths = small.dual()
    only = basis @ dual  # what only this vector adds to the subspace
    whole = (basis * basis_images).sum(axis=1, keepdims=True)  # diag of QQᵀH
    return whole - only * (basis_images @ dual) + tests * only * lengths
