"""Eigenpairs followed through training: the last eigenvectors are the start of the next measurement."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from landscape._results import Result
from landscape.curvature._eigenpairs import Eigenpairs, check_count, extract, room
from landscape.curvature._lanczos import rademacher
from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._ritz_space import RitzSpace
from landscape.curvature._search import Search

# Vectors carried beside the wanted ones: they hold the next eigenvalue, which may change places with the last.
_SPARE = 1
# Directions of the residuals that are multiplied too.
_DIRECTIONS = 1


@dataclasses.dataclass(frozen=True)
class Tracked(Result):
    """Largest eigenpairs at one moment of a training, and how the subspace turned since the last.

    Attributes:
        pairs: The pairs, largest first. After a warm start the values are corrected to second order, and
            `converged_each` says that the correction was below half of the tolerance.
        basis: Start of the next measurement, shape (P, k + 1).
        angles: Principal angles in radians between the subspaces of the k eigenvectors before and now, ascending,
            shape (k,); NaN at the first event.
        gradient_share: ‖Vᵀg‖²/‖g‖², the share of the gradient in the subspace; NaN without a gradient.
        correction: The largest relative correction of a value; NaN after a cold start.
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


def track(
    operator: SymmetricOperator,
    previous: Tracked | None = None,
    k: int = 10,
    tol: float = 1e-2,
    fallback: float = 0.1,
    gradient: torch.Tensor | None = None,
    seed: int = 0,
) -> Tracked:
    """Follow the k largest eigenpairs from the last event to this one in k + 2 products.

    Rayleigh–Ritz on the last vectors V and on the direction in which most of the residuals R = HV − V(VᵀHV) point. The
    other residual directions take part without products: their couplings to V are known, and their own curvature is put
    at that of the direction that was multiplied. This is a second-order correction of the values and a
    first-order one of the vectors, with which the next event begins. Where it changes a value by more than `fallback`,
    the vectors are lost, and a cold start follows.

    The limit: one step of this removes most of an error that is small. While the subspace turns by more than some tenth
    of a radian between two events, values are good to a few per cent, and `converged_each` says so.

    Memory: (3 (k + 2), P) numbers of the operator's type.

    Args:
        operator: The operator now, shape (P, P).
        previous: The last event, of the same parameters; None for a cold start.
        k: Number of pairs.
        tol: Relative accuracy; a value counts as converged where its correction is below half of that.
        fallback: Relative correction beyond which a cold start follows.
        gradient: The gradient now, shape (P,), for its share in the subspace.
        seed: Seed of a cold start.

    Returns:
        The pairs, the subspace's rotation, and the start of the next event.

    Raises:
        ValueError: `previous` holds fewer than k vectors, or those of another operator.
        MeasurementError: k exceeds P, or a product is not finite.

    Source: Davidson 1975 (residual directions); Gur-Ari, Roberts & Dyer 2018, arXiv:1812.04754 (the gradient's share).
    """
    check_count(operator, k)
    before = operator.n_matvecs
    found = None
    if previous is not None and operator.shape[0] > 2 * (k + _SPARE):
        if previous.basis.shape[0] != operator.shape[0] or previous.basis.shape[1] < k:
            raise ValueError(
                f"the last event holds vectors of shape {tuple(previous.basis.shape)}, but k={k} of an operator with "
                f"P={operator.shape[0]} were asked for; begin with previous=None"
            )
        found = _warm(operator, previous.basis, k, tol, seed)
        found = found if found[2] <= fallback else None
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
    operator: SymmetricOperator, start: torch.Tensor, k: int, tol: float, seed: int
) -> tuple[Eigenpairs, torch.Tensor, float]:
    """Take one step from the last vectors: the pairs, the next start, the largest relative correction."""
    basis = torch.linalg.qr(start.to(operator.device, operator.dtype))[0]
    count = basis.shape[1]
    image = operator @ basis
    inner = basis.T @ image
    beside, coupling = torch.linalg.qr(image - basis @ inner)
    # Residual directions by the weight that they have in the residuals.
    turn = torch.linalg.svd(coupling)[0]
    beside, coupling = beside @ turn, turn.T @ coupling
    taken = beside[:, :_DIRECTIONS]
    image = torch.cat([image, operator @ taken], dim=1)
    across = beside.T @ image[:, count:]
    known = count + _DIRECTIONS
    model = torch.zeros((2 * count, 2 * count), dtype=torch.float64)
    model[:count, :count] = inner.cpu()
    model[count:, :count] = coupling.cpu()
    model[count:, count:] = float(across[:_DIRECTIONS].diagonal().mean()) * torch.eye(count)
    model[count:, count:known] = across.cpu()
    # The lower triangle is what is known; symmetric by definition.
    values, vectors = torch.linalg.eigh(model)
    exact, chosen = torch.linalg.eigh(model[:known, :known])
    values, vectors = values.flip(0), vectors.flip(1)
    exact, chosen = exact.flip(0)[:k], chosen.flip(1)[:, :k].to(basis)
    span = torch.cat([basis, taken], dim=1)
    ritz = span @ chosen
    residuals = torch.linalg.vector_norm(image @ chosen - ritz * exact.to(basis), dim=0)
    corrected = values[:k].numpy()
    change = np.abs(corrected - exact.numpy()) / np.maximum(np.abs(corrected), 1e-3 * np.abs(corrected).max())
    pairs = Eigenpairs(
        values=corrected,
        vectors=ritz,
        residuals=residuals.double().cpu().numpy(),
        converged_each=change <= 0.5 * tol,
        converged=np.bool_((change <= 0.5 * tol).all()),
        n_matvecs=known,
        seed=seed,
    )
    following = torch.cat([basis, beside], dim=1) @ vectors[:, :count].to(basis)
    return pairs, following, float(change.max())


def _cold(operator: SymmetricOperator, k: int, seed: int) -> tuple[Eigenpairs, torch.Tensor, float]:
    """Find the pairs afresh; the spare vectors of the start are what the same space has, converged or not."""
    size = operator.shape[0]
    budget = max(100, 10 * k)
    space = RitzSpace(operator, rademacher(size, seed), room(size, k, budget), seed)
    known = Search(space, ((k, "LA"),), 1e-3, budget).run()[0]
    pairs = extract(space, min(k + _SPARE, size), "LA", known, seed)
    each = pairs.converged_each[:k]
    leading = dataclasses.replace(
        pairs,
        values=pairs.values[:k],
        vectors=pairs.vectors[:, :k],
        residuals=pairs.residuals[:k],
        converged_each=each,
        converged=np.bool_(each.all()),
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
