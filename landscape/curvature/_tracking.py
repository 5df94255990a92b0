"""Eigenpairs followed through training: the last eigenvectors are the start of the next measurement."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from landscape._given import of_operator
from landscape._results import Result
from landscape.curvature._accuracy import Accuracy
from landscape.curvature._eigenpairs import check_count, extract, room
from landscape.curvature._lanczos import rademacher
from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._pairs import Eigenpairs, over_examples
from landscape.curvature._ritz_space import RitzSpace
from landscape.curvature._search import Search
from landscape.curvature._warm_space import WarmSpace

# Vectors carried beside the wanted ones: they hold the next eigenvalue, which may change places with the last.
_SPARE = 1
# Products that a warm start may add to those of its start.
_MOST_STEPS = 20


@dataclasses.dataclass(frozen=True)
class Tracked(Result):
    """Largest eigenpairs at one moment of a training, and how the subspace turned since the last.

    Attributes:
        pairs: The pairs, largest first. After a warm start the values are corrected by what the residuals tell, and
            `converged_each` says that residual²/gap was within the tolerance before that.
        basis: Start of the next measurement, shape (P, k + 1).
        angles: Principal angles in radians between the subspaces of the k eigenvectors before and now, ascending,
            shape (k,); NaN at the first event.
        gradient_share: ‖Vᵀg‖²/‖g‖², the share of the gradient in the subspace; NaN without a gradient.
        correction: The largest relative correction of a value, from Rayleigh–Ritz to what is put down; NaN after a
            cold start.
        cold: Whether this was a cold start.
        n_matvecs: Number of products spent, those of a warm start given up included.
    """

    pairs: Eigenpairs
    basis: torch.Tensor
    angles: np.ndarray
    gradient_share: float
    correction: float
    cold: bool
    n_matvecs: int


@of_operator
def track(
    operator: SymmetricOperator,
    previous: Tracked | None = None,
    k: int = 10,
    tol: float = 1e-2,
    fallback: float = 0.5,
    gradient: torch.Tensor | None = None,
    seed: int = 0,
    max_matvecs: int | None = None,
    known: tuple[torch.Tensor, torch.Tensor] | None = None,
    known_forms: np.ndarray | None = None,
) -> Tracked:
    """Follow the k largest eigenpairs from the last event to this one, in k + 2 products where they turn slowly.

    The last k + 1 vectors are multiplied, then one direction after the other out of the residuals, the one first in
    which the wanted vectors lean most. What the couplings to the residuals tell of them corrects the values
    (`WarmSpace`). Steps go on until residual²/gap bounds the relative error of each value before the correction by
    `tol`; the correction removes most of what is left. So quiet events cost k + 2 products and turbulent ones more,
    from the space that is there already. Where the last vectors are lost, which shows after k + 2 products as a
    correction above `fallback`, a cold start follows.

    The limit: with k + 2 products, values are good to 1 % while the subspace turns by no more than some tenths of a
    radian between two events. The gap is that between Ritz values. So an eigenvector that comes up in a direction to
    which none of the last ones couples is missed for some events without a sign, and where the wanted end of the
    spectrum is nearly continuous, values a few per cent too small can be called converged.

    Memory: (5 m, P) numbers of the operator's type for m products of a warm start, beside the last event.

    Args:
        operator: The operator now, shape (P, P).
        previous: The last event, of the same parameters; None for a cold start.
        k: Number of pairs.
        tol: Relative accuracy; a value counts as converged where residual²/gap is within it.
        fallback: Relative correction beyond which a cold start follows.
        gradient: The gradient now, shape (P,), for its share in the subspace.
        seed: Seed of a cold start.
        max_matvecs: Most products of a warm start, k + 21 by default, k + 2 at least; values that have not
            converged by then say so.

        known: A vector and its product with the operator now, each of shape (P,). A warm start takes it in without
            multiplying. The optimizer's last update is a good one: it leans into eigenvectors that come up.
        known_forms: vᵀH_g v of the known vector v for the groups of batches g, shape (groups,), as
            `directional_sharpness` gives them. Without them the errors over examples are unknown where v is taken in.

    Returns:
        The pairs, the subspace's rotation, and the start of the next event.

    Raises:
        ValueError: `previous` holds fewer than k vectors, or those of another operator, or `max_matvecs` is too small.
        MeasurementError: k exceeds P, or a product is not finite.

    Source: Davidson 1975 (residual directions); Parlett 1998, §11.7 (residual²/gap);
        Gur-Ari, Roberts & Dyer 2018, arXiv:1812.04754 (the gradient's share).
    """
    check_count(operator, k)
    least = k + _SPARE + 1
    most = k + _SPARE + _MOST_STEPS if max_matvecs is None else max_matvecs
    if most < least:
        raise ValueError(
            f"max_matvecs is {most}, but following {k} pairs takes {least} products at least; allow {least}"
        )
    before = operator.n_matvecs
    found = None
    if previous is not None and (previous.basis.shape[0] != operator.shape[0] or previous.basis.shape[1] < k):
        raise ValueError(
            f"the last event holds vectors of shape {tuple(previous.basis.shape)}, but k={k} of an operator with "
            f"P={operator.shape[0]} were asked for; begin with previous=None"
        )
    if previous is not None and operator.shape[0] > 2 * most:
        space = WarmSpace(operator, previous.basis[:, : k + _SPARE], k, known, known_forms)
        found = _warm(space, k, tol, fallback, most, seed)
    if found is None:
        found = _cold(operator, k, seed)
    pairs, basis, correction = found
    spent = operator.n_matvecs - before
    angles = np.full(k, np.nan)
    if previous is not None:
        angles = principal_angles(previous.pairs.vectors[:, :k], pairs.vectors)
    share = float("nan") if gradient is None else gradient_share(pairs.vectors, gradient)
    pairs = dataclasses.replace(pairs, n_matvecs=spent)
    return Tracked(pairs, basis, angles, share, correction, bool(np.isnan(correction)), spent)


def _warm(
    space: WarmSpace, k: int, tol: float, fallback: float, most: int, seed: int
) -> tuple[Eigenpairs, torch.Tensor, float] | None:
    """Go on from the last vectors: the pairs, the next start, the largest relative correction; None where lost."""
    space.grow()
    if not space.correction.max() <= fallback:
        return None
    while space.products < most and space.bounds.max() > tol:
        space.grow()
    vectors, residuals = space.ritz()
    parts = space.parts()
    each = space.bounds <= tol
    pairs = Eigenpairs(
        values=space.values,
        vectors=vectors,
        residuals=residuals,
        converged_each=each,
        converged=np.bool_(each.all()),
        n_matvecs=space.products,
        seed=seed,
        stderr_sample=over_examples(space.forms.clusters, parts, k),
        parts=parts,
    )
    return pairs, space.leading(k + _SPARE), float(space.correction.max())


def _cold(operator: SymmetricOperator, k: int, seed: int) -> tuple[Eigenpairs, torch.Tensor, float]:
    """Find the pairs afresh; the spare vectors of the start are what the same space has, converged or not."""
    size = operator.shape[0]
    budget = max(100, 10 * k)
    space = RitzSpace(operator, rademacher(size, seed), room(size, k, budget), seed)
    known = Search(space, ((k, "LA"),), Accuracy(1e-3, None), budget).run()[0]
    pairs = extract(space, min(k + _SPARE, size), "LA", known, seed)
    each = pairs.converged_each[:k]
    leading = dataclasses.replace(
        pairs,
        values=pairs.values[:k],
        vectors=pairs.vectors[:, :k],
        residuals=pairs.residuals[:k],
        converged_each=each,
        converged=np.bool_(each.all()),
        stderr_sample=pairs.stderr_sample[:k],
        parts=None if pairs.parts is None else pairs.parts[:, :k],
    )
    return leading, pairs.vectors, float("nan")


def principal_angles(first: torch.Tensor, second: torch.Tensor) -> np.ndarray:
    """Return the principal angles in radians, ascending, between two subspaces given by orthonormal columns (P, k)."""
    cosines = torch.linalg.svdvals((first.to(second).T @ second).double()).clamp(0.0, 1.0)
    return torch.arccos(cosines).cpu().numpy()


def gradient_share(vectors: torch.Tensor, gradient: torch.Tensor) -> float:
    """Return ‖Vᵀg‖²/‖g‖², between 0 and 1, for orthonormal columns V, shape (P, k); NaN for a zero gradient."""
    gradient = gradient.to(vectors)
    norm = float(torch.linalg.vector_norm(gradient))
    return (float(torch.linalg.vector_norm(vectors.T @ gradient)) / norm) ** 2 if norm else float("nan")
