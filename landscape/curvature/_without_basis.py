"""Extreme eigenvalues in four vectors, and their eigenvectors in a second pass: Lanczos without a basis."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import torch

from landscape.curvature._convergence import errors, ranked, select, slack
from landscape.curvature._lanczos import rademacher
from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._plain_lanczos import Distinct, PlainLanczos

VECTORS = 4  # of the operator's length at once, beside the eigenvectors
# As in `_search`: the bound takes the gaps between Ritz values for those between eigenvalues, which may be narrower.
_MARGIN = 0.1
# A value must have been there after this share of the steps: there is no second look.
_PERSISTENCE = 0.85


@dataclasses.dataclass(frozen=True)
class Extremes:
    """Eigenvalues at one end of a spectrum.

    Attributes:
        values: Eigenvalues in the order of `select`, each once; fewer than k where the budget ended first.
        residuals: ‖Hv − λv‖ of each, or a bound on it.
        known: Whether each is known to be the eigenvalue that it is taken for.
        coefficients: Coefficients of the Ritz vectors in the directions of the Lanczos run, in columns.
        parts: What each group of batches contributes to the values, shape (groups, m); None where no vectors were
            made, or the operator does not know its groups.
    """

    values: np.ndarray
    residuals: np.ndarray
    known: np.ndarray
    coefficients: np.ndarray
    parts: np.ndarray | None = None


def extreme_values(chain: PlainLanczos, wanted: tuple[tuple[int, str], ...], tol: float, budget: int) -> list[Extremes]:
    """Grow a Lanczos run without a basis until its outermost eigenvalues are known.

    A value is known when the bound residual²/gap on its error is within 0.1 tol·|λ|, when all further out are known,
    and when it was there after 85 % of the steps. A multiple eigenvalue counts once. No second look is taken.

    Args:
        chain: The run, which may have grown already.
        wanted: (k, which) of each group.
        tol: Relative accuracy of the values.
        budget: Steps of the run at most.

    Returns:
        The eigenvalues of each group.
    """
    least = min(budget, 2 * max(k for k, _ in wanted))
    history: list[tuple[int, list[np.ndarray]]] = []
    while True:
        chain.grow(min(max(1, chain.steps // 20, least - chain.steps), budget - chain.steps))
        found = chain.distinct()
        chosen = [select(found.values, k, which) for k, which in wanted]
        history.append((chain.steps, [found.values[indices] for indices in chosen]))
        earlier = [values for steps, values in history if steps <= _PERSISTENCE * chain.steps]
        groups = []
        for place, (indices, (_, which)) in enumerate(zip(chosen, wanted, strict=True)):
            known = _known(found, indices, which, tol)
            known &= _unchanged(found, indices, earlier[-1][place] if earlier else np.empty(0), tol)
            groups.append(
                Extremes(found.values[indices], found.residuals[indices], known, found.coefficients[:, indices])
            )
        done = all(len(each.known) == k and each.known.all() for each, (k, _) in zip(groups, wanted, strict=True))
        if done or chain.steps >= budget or chain.exhausted:
            return groups


def extreme_pairs(
    operator: SymmetricOperator, k: int, which: str, tol: float, seed: int, budget: int
) -> tuple[Extremes, torch.Tensor]:
    """Compute extreme eigenpairs: values by one Lanczos run without a basis, vectors by the same run once more.

    Residuals are measured, by one product a pair. Where the device does not repeat its products to the last bit, the
    vectors of the second run are less exact than the first run's bounds say, and the residuals show it.

    Memory: k vectors and `VECTORS` more.

    Args:
        operator: The symmetric operator, shape (P, P).
        k: Number of pairs.
        which: "LA", "SA", "LM" or "BE".
        tol: Relative accuracy of the values.
        seed: Seed of the start vector.
        budget: Products of all at most.

    Returns:
        The eigenvalues, and their unit vectors in columns, shape (P, m) with m ≤ k.
    """
    size = operator.shape[0]
    first = PlainLanczos(operator, rademacher(size, seed))
    found = extreme_values(first, ((k, which),), tol, max(1, (budget - k) // 2))[0]
    del first
    mixing = torch.as_tensor(found.coefficients, dtype=operator.dtype, device=operator.device)
    block = torch.zeros((mixing.shape[1], size), dtype=operator.dtype, device=operator.device)
    chain = PlainLanczos(operator, rademacher(size, seed))
    for number, row in enumerate(mixing, 1):
        block.addr_(row, chain.current)
        if number < len(mixing):
            chain.grow(1)
    del chain
    values, residuals, forms = np.empty(len(block)), np.empty(len(block)), []
    for index, vector in enumerate(block):
        vector.div_(torch.linalg.vector_norm(vector))
        product, form = operator.by_batch(vector, functools.partial(torch.dot, vector), ())
        forms.append(form)
        values[index] = float(torch.dot(product, vector))
        residuals[index] = float(torch.linalg.vector_norm(product.add_(vector, alpha=-values[index])))
    within = residuals**2 <= tol * np.maximum(values**2, (tol * np.abs(values).max(initial=0.0)) ** 2)
    read = [form for form in forms if form is not None]
    parts = torch.stack(read, dim=1).double().cpu().numpy() if read else None
    return dataclasses.replace(
        found, values=values, residuals=residuals, known=found.known & within, parts=parts
    ), block.T


def _known(found: Distinct, indices: np.ndarray, which: str, tol: float) -> np.ndarray:
    """Tell which values have converged, from the outermost inwards."""
    bounds = errors(found.values, found.residuals)
    met = bounds <= slack(found.values, found.values, _MARGIN * tol)
    return ranked(found.values, indices, met, bounds, which)


def _unchanged(found: Distinct, indices: np.ndarray, earlier: np.ndarray, tol: float) -> np.ndarray:
    """Tell which values were there earlier, in the same place."""
    values = found.values[indices]
    count = min(len(values), len(earlier))
    same = np.abs(values[:count] - earlier[:count]) <= slack(values[:count], found.values, tol)
    return np.pad(same, (0, len(values) - count))
