"""Extreme eigenpairs by Lanczos, with residuals and an honest word on convergence."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from landscape._errors import MeasurementError
from landscape._results import Result
from landscape.curvature._convergence import is_small, negligible, select
from landscape.curvature._lanczos import rademacher
from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._ritz_space import RitzSpace
from landscape.curvature._search import Search

# Up to this size all P products are affordable, and exact: multiple eigenvalues come out with their multiplicity.
_DENSE_SIZE = 512
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
    max_basis: int | None = None,
    thorough: bool | None = None,
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
    before = operator.n_matvecs
    budget = max_matvecs or max(100, 10 * k)
    capacity = max_basis or room(operator.shape[0], k, budget)
    space = RitzSpace(operator, rademacher(operator.shape[0], seed), capacity, seed)
    known = Search(space, ((k, which),), tol, budget, thorough).run()[0]
    return dataclasses.replace(extract(space, k, which, known, seed), n_matvecs=operator.n_matvecs - before)


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


def room(size: int, k: int, budget: int) -> int:
    """Vectors in the basis by default: all of the budget for small operators, else enough for k pairs."""
    return min(size, budget if is_small(size) else 2 * k + 24)


def extract(space: RitzSpace, k: int, which: str, known: np.ndarray, seed: int) -> Eigenpairs:
    """Take the wanted Ritz pairs out of a space, `known` telling which of them are converged."""
    values, vectors = space.ritz()
    wanted = select(values, k, which)
    residuals = space.residuals(vectors)
    each = np.pad(known, (0, len(wanted) - len(known)), constant_values=False)
    padded = k - len(wanted)  # a budget below k leaves pairs unknown, and says so
    return Eigenpairs(
        values=np.pad(values[wanted], (0, padded), constant_values=np.nan),
        vectors=torch.nn.functional.pad(space.lift(vectors[:, wanted]), (0, padded), value=float("nan")),
        residuals=np.pad(residuals[wanted], (0, padded), constant_values=np.nan),
        converged_each=np.pad(each, (0, padded), constant_values=False),
        converged=np.bool_(each.all() and not padded),
        n_matvecs=space.steps,
        seed=seed,
    )


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
    each = residuals <= tol * np.maximum(np.abs(host[wanted]), negligible(host, tol))
    spent = operator.n_matvecs - before
    return Eigenpairs(host[wanted], chosen, residuals, each, np.bool_(each.all()), spent, seed)
