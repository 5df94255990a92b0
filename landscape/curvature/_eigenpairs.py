"""Extreme eigenpairs by Lanczos, with residuals and an honest word on convergence."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from landscape._errors import MeasurementError
from landscape._results import Result
from landscape.curvature._lanczos import Krylov, rademacher
from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._verification import outermost, ranked

# Up to this size all P products are affordable, and exact: multiple eigenvalues come out with their multiplicity.
_DENSE_SIZE = 512
# Fewer steps than this do not show a missed eigenvalue.
_LEAST_LOOK = 8
# Share of the steps after which a pair must have had its value already.
_PERSISTENCE = 0.85
_ENDS = ("LA", "SA", "LM", "BE")


@dataclasses.dataclass(frozen=True)
class Eigenpairs(Result):
    """Eigenpairs of a symmetric operator with the evidence for them.

    Attributes:
        values: Eigenvalues, shape (k,), float64: descending for "LA" and "BE", ascending for "SA", by descending
            magnitude for "LM".
        vectors: Unit eigenvectors in columns, shape (P, k), in the operator's type and on its device.
        residuals: ‖Hv − λv‖ of each pair, shape (k,).
        converged_each: Whether each pair met the tolerance, shape (k,).
        converged: Whether all did.
        n_matvecs: Number of products spent.
        seed: Seed of the start vector.
    """

    values: np.ndarray
    vectors: torch.Tensor
    residuals: np.ndarray
    converged_each: np.ndarray
    converged: np.bool_
    n_matvecs: int
    seed: int


def top_eigenpairs(
    operator: SymmetricOperator,
    k: int = 10,
    which: str = "LA",
    tol: float = 1e-3,
    seed: int = 0,
    max_matvecs: int | None = None,
    method: str = "auto",
) -> Eigenpairs:
    """Compute k extreme eigenpairs, Hv = λv.

    Lanczos with full reorthogonalisation runs until the residual of every wanted pair is below tol·|λ|, and the error
    of its value, at most residual²/gap, below tol·|λ|/100 (Parlett 1998, §11.7), and until both held already after
    85 % of the steps, with the same value in the same rank. A Krylov space holds one vector of a multiple eigenvalue,
    so a second look from another start follows, with the found pairs taken out: where it meets an eigenvalue that
    should have been among them, those inside of it are not called converged. At an end where many eigenvalues lie
    within 1e-6 of the largest magnitude around zero, ranks are not told apart. Up to P = 512 the matrix is built
    instead, which finds eigenvalues of any multiplicity.

    Memory: (n_matvecs, P) numbers of the operator's type.

    Args:
        operator: The symmetric operator, shape (P, P).
        k: Number of pairs.
        which: "LA" largest, "SA" smallest (most negative), "LM" largest in magnitude, "BE" from both ends (one more
            from the top where k is odd).
        tol: Relative residual to reach.
        seed: Seed of the start vector.
        max_matvecs: Most products to spend, by default max(100, 10 k); pairs that did not converge by then say so.
        method: "auto", "lanczos" or "dense".

    Returns:
        The pairs with residuals and `converged`.

    Raises:
        MeasurementError: k exceeds the number of parameters, or a product is not finite.
        ValueError: `which` or `method` is unknown, or k < 1.
    """
    if which not in _ENDS:
        raise ValueError(f"which is {which!r}; it must be one of {', '.join(_ENDS)}")
    if method not in ("auto", "lanczos", "dense"):
        raise ValueError(f"method is {method!r}; it must be 'auto', 'lanczos' or 'dense'")
    check_count(operator, k)
    if method == "dense" or (method == "auto" and operator.shape[0] <= _DENSE_SIZE):
        return _dense(operator, k, which, tol, seed)
    krylov = Krylov(operator, rademacher(operator.shape[0], seed), seed)
    before = operator.n_matvecs
    budget = max_matvecs or max(100, 10 * k)
    search(krylov, ((k, which),), tol, budget)
    pairs = extract(krylov, k, which, tol, seed)
    del krylov  # its basis is the largest thing in memory
    pairs = verify(operator, pairs, which, tol, budget)
    return dataclasses.replace(pairs, n_matvecs=operator.n_matvecs - before)


def check_count(operator: SymmetricOperator, k: int) -> None:
    """Refuse more eigenpairs than there are parameters.

    Raises:
        ValueError: k < 1.
        MeasurementError: k > P.
    """
    if k < 1:
        raise ValueError(f"k is {k}; ask for at least one eigenpair")
    if k > operator.shape[0]:
        raise MeasurementError(
            f"k={k} eigenpairs were asked of an operator with P={operator.shape[0]} parameters; ask for k ≤ P"
        )


def search(krylov: Krylov, wanted: tuple[tuple[int, str], ...], tol: float, budget: int) -> None:
    """Grow a Krylov space until the wanted pairs, (k, which) each, have converged or the budget is spent.

    Enough of the budget is left for `verify`; where it cannot be met so but spans the whole space, that is spanned.
    """
    size = krylov.basis.shape[1]
    most = min(size, budget - second_look(budget))
    krylov.grow(min(most, 2 * max(k for k, _ in wanted)) - krylov.steps)
    while krylov.steps < size:
        if all(_established(krylov, k, which, tol).all() for k, which in wanted):
            return
        if krylov.steps >= most:
            krylov.grow(size - krylov.steps if budget >= size else 0)
            return
        krylov.grow(min(most - krylov.steps, max(2, krylov.steps // 10)))


def select(values: np.ndarray, k: int, which: str) -> np.ndarray:
    """Return the indices of the wanted among ascending values, in the order of the result."""
    order = np.arange(len(values))
    if which == "LA":
        return order[::-1][:k]
    if which == "SA":
        return order[:k]
    if which == "LM":
        return np.argsort(-np.abs(values), kind="stable")[:k]
    bottom = min(k // 2, len(values))
    top = order[bottom:][::-1][: k - bottom]
    return np.concatenate([top, order[:bottom][::-1]])


def extract(krylov: Krylov, k: int, which: str, tol: float, seed: int) -> Eigenpairs:
    """Take the wanted Ritz pairs out of a Krylov space."""
    values, vectors = krylov.ritz()
    wanted = select(values, k, which)
    residuals = krylov.residuals(vectors)
    whole = krylov.steps == krylov.basis.shape[1]  # then nothing is missing
    each = np.full(len(wanted), True) if whole else _established(krylov, k, which, tol)
    padded = k - len(wanted)  # a budget below k leaves pairs unknown, and says so
    return Eigenpairs(
        values=np.pad(values[wanted], (0, padded), constant_values=np.nan),
        vectors=torch.nn.functional.pad(krylov.lift(vectors[:, wanted]), (0, padded), value=float("nan")),
        residuals=np.pad(residuals[wanted], (0, padded), constant_values=np.nan),
        converged_each=np.pad(each, (0, padded), constant_values=False),
        converged=np.bool_(each.all() and not padded),
        n_matvecs=krylov.steps,
        seed=seed,
    )


def second_look(budget: int) -> int:
    """Products of a budget that are kept for `verify`; none where it leaves too little for that."""
    return 0 if budget < 2 * _LEAST_LOOK else min(20, max(_LEAST_LOOK, budget // 6))


def verify(operator: SymmetricOperator, pairs: Eigenpairs, which: str, tol: float, budget: int) -> Eigenpairs:
    """Withdraw `converged` from pairs inside of an eigenvalue that a second look finds and they leave out.

    Returns:
        The same pairs; without a budget for a second look none counts as converged.
    """
    size = operator.shape[0]
    if not pairs.converged_each.any() or pairs.n_matvecs >= size:
        return pairs
    if not second_look(budget):
        nowhere = np.zeros_like(pairs.converged_each)
        return dataclasses.replace(pairs, converged_each=nowhere, converged=np.bool_(False))
    known = pairs.vectors[:, torch.as_tensor(np.isfinite(pairs.values), device=pairs.vectors.device)]
    low, high = outermost(operator, known, second_look(budget), pairs.seed)
    values = np.nan_to_num(pairs.values)
    slack = tol * np.maximum(np.abs(values), _negligible(values, tol))
    above, below = high <= values + slack, low >= values - slack
    if which == "LM":
        whole = np.maximum(np.abs(low), np.abs(high)) <= np.abs(values) + slack
    elif which == "BE":
        split = np.arange(len(values)) < len(values) - len(values) // 2
        whole = np.where(split, above, below)
    else:
        whole = above if which == "LA" else below
    each = pairs.converged_each & whole
    return dataclasses.replace(pairs, converged_each=each, converged=np.bool_(each.all()))


def _established(krylov: Krylov, k: int, which: str, tol: float) -> np.ndarray:
    """Whether each wanted pair has converged and already had some steps ago, in the same rank.

    An eigenvalue that has not surfaced yet lets the next one pass for it, until it appears between the two.

    Returns:
        One flag a wanted pair.
    """
    found, known = [], []
    for steps in (max(1, int(_PERSISTENCE * krylov.steps)), krylov.steps):
        values, vectors = krylov.ritz(steps)
        residuals = krylov.beta[steps - 1] * np.abs(vectors[-1])
        wanted = select(values, k, which)
        each = ranked(values, wanted, _met(values, residuals, tol), _errors(values, residuals), which)
        found.append(np.pad(values[wanted], (0, k - len(wanted)), constant_values=np.nan))
        known.append(np.pad(each, (0, k - len(wanted)), constant_values=False))
    same = np.abs(found[1] - found[0]) <= tol * np.maximum(np.abs(found[1]), _negligible(values, tol))
    return (known[0] & known[1] & same)[: len(wanted)]


def _negligible(values: np.ndarray, tol: float) -> float:
    """Magnitude below which an eigenvalue counts as zero: its own size is no measure of accuracy there."""
    return tol * float(np.abs(values).max(initial=0.0))


def _met(values: np.ndarray, residuals: np.ndarray, tol: float) -> np.ndarray:
    """Whether each Ritz pair has a small residual, and its value a smaller error."""
    size = np.maximum(np.abs(values), _negligible(values, tol))
    return (residuals <= tol * size) & (_errors(values, residuals) <= 0.01 * tol * size)


def _errors(values: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """Bounds on the errors of Ritz values, residual²/gap with the gaps between them."""
    spacing = np.diff(values)
    gap = np.minimum(np.append(spacing, np.inf), np.insert(spacing, 0, np.inf))
    return np.minimum(residuals, residuals**2 / np.maximum(gap, 1e-300))


def _dense(operator: SymmetricOperator, k: int, which: str, tol: float, seed: int) -> Eigenpairs:
    before = operator.n_matvecs
    matrix = operator.dense().double()
    values, vectors = torch.linalg.eigh(matrix)
    host = values.cpu().numpy()
    wanted = select(host, k, which)
    chosen = vectors[:, torch.as_tensor(wanted.copy(), device=vectors.device)].to(operator.dtype)
    kept = chosen.double()
    residuals = torch.linalg.vector_norm(matrix @ kept - kept * values[wanted.copy()], dim=0).cpu().numpy()
    residuals = np.hypot(residuals, torch.finfo(operator.dtype).eps * np.abs(host).max())
    each = residuals <= tol * np.maximum(np.abs(host[wanted]), _negligible(host, tol))
    spent = operator.n_matvecs - before
    return Eigenpairs(host[wanted], chosen, residuals, each, np.bool_(each.all()), spent, seed)
