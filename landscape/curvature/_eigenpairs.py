"""Extreme eigenpairs by Lanczos, with residuals and an honest word on convergence."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from landscape._errors import MeasurementError
from landscape._given import of_operator
from landscape._memory import fits
from landscape.curvature._accuracy import Accuracy
from landscape.curvature._convergence import is_small, negligible, select
from landscape.curvature._lanczos import rademacher
from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._pairs import Eigenpairs, in_form, no_vectors, over_examples
from landscape.curvature._plain_lanczos import PlainLanczos
from landscape.curvature._ritz_space import RitzSpace
from landscape.curvature._search import Search
from landscape.curvature._without_basis import VECTORS, extreme_pairs, extreme_values

# Up to this size all P products are affordable, and exact: multiple eigenvalues come out with their multiplicity.
_DENSE_SIZE = 512
# A basis needs that many vectors beside the k wanted ones, for steps between restarts and the second look.
_LEAST_SPARE = 6
_LOW_SPARE = 10
# Vectors in the basis before it is restarted; more are kept where 2 k + 24 are more.
_ROOM = 64
# Vectors beside the basis: the next direction and the product.
IN_FLIGHT = 2
_ENDS = ("LA", "SA", "LM", "BE")


@of_operator
def top_eigenpairs(
    operator: SymmetricOperator,
    k: int = 10,
    which: str = "LA",
    tol: float | str = 1e-3,
    seed: int = 0,
    max_matvecs: int | None = None,
    method: str = "auto",
    max_basis: int | None = None,
    memory: str = "default",
    verify: bool = True,
    memory_budget: int | str | None = None,
    vectors: bool = True,
) -> Eigenpairs:
    """Compute k extreme eigenpairs, Hv = λv.

    Thick-restart Lanczos with full reorthogonalisation runs until the error of every wanted value, by the bound
    residual²/gap (Parlett 1998, §11.7), is well below tol·|λ|. A Krylov space holds one vector of a multiple
    eigenvalue, so a second look from a random direction follows, orthogonal to all that was found: where it meets an
    eigenvalue that should have been among them, the search goes on; what cannot be confirmed is not called converged.
    At an end where many eigenvalues lie within tol² of the largest magnitude around zero, ranks are not told apart. Up
    to P = 512 the matrix is built instead, which finds eigenvalues of any multiplicity.

    Of 640 searches on spectra of networks with one of the ten largest eigenvalues doubled or tripled, exactly or
    nearly, P = 20000, 580 claimed to have converged and 1 of them was wrong (2 of 6217 pairs).

    Memory: a basis of (max(2 k + 24, 64), P) numbers of the operator's type (max_matvecs rows up to P = 4096), touched
    as it grows, and the result, beside what the operator holds. `memory="low"`: (k + 10, P), of which the result is a
    part, for up to twice the products. With a `memory_budget` the basis has what fits, k + 6 vectors at least. Below
    that no basis is kept (`extreme_pairs`): k + 4 vectors, and every product is taken twice; 4 vectors and single
    products where values alone are asked for. Then multiple eigenvalues count once, and no second look is taken.

    Args:
        operator: The symmetric operator, shape (P, P).
        k: Number of pairs.
        which: "LA" largest, "SA" smallest (most negative), "LM" largest in magnitude, "BE" from both ends (one more
            from the top where k is odd).
        tol: Relative accuracy of the values; the residuals are then about √tol·|λ| or less. "sample": a tenth of each
            value's error over examples, as more says nothing about the training distribution. Where that error is not
            known (one batch, no basis, P ≤ 512), it is 10⁻³, and `tolerance_from` says so.
        seed: Seed of the start vector.
        max_matvecs: Most products to spend, by default max(100, 10 k), twice that with little memory; pairs that did
            not converge by then say so.
        method: "auto", "lanczos" or "dense".
        max_basis: Most vectors in the basis, instead of what `memory` says; k + 6 at least.
        memory: "default" or "low".
        verify: Whether to take the second look, 5 to 10 products for k = 10, or 1 to 3 where one of at least four
            batches is enough for it (`_partial_look`). Without it `converged` means what it means in other packages: a
            further copy of a multiple eigenvalue goes unnoticed.
        memory_budget: What the search may allocate: bytes, a text such as "8GB", or "auto" for what is free on the
            device less a margin. The operator's own memory, and that of its products, come on top.
        vectors: Whether the eigenvectors are wanted.

    Returns:
        The pairs with residuals and `converged`.

    Raises:
        MeasurementError: k exceeds the number of parameters, the budget of memory is too small, or a product is not
            finite.
        ValueError: `which`, `method` or `memory` is unknown, k < 1, `tol` is no tolerance, or the basis is too small.

    Source: Wu & Simon 2000, doi:10.1137/S0895479898334605 (thick restart).
    """
    if which not in _ENDS:
        raise ValueError(f"which is {which!r}; it must be one of {', '.join(_ENDS)}")
    if method not in ("auto", "lanczos", "dense"):
        raise ValueError(f"method is {method!r}; it must be 'auto', 'lanczos' or 'dense'")
    check_count(operator, k)
    accuracy = Accuracy(tol, operator.clusters)
    number = accuracy.number
    if method == "dense" or (method == "auto" and operator.shape[0] <= _DENSE_SIZE):
        pairs = dataclasses.replace(_dense(operator, k, which, number, seed), **accuracy.as_number())
        return pairs if vectors else dataclasses.replace(pairs, vectors=no_vectors(operator))
    if memory not in ("default", "low"):
        raise ValueError(f"memory is {memory!r}; it must be 'default' or 'low'")
    size, low = operator.shape[0], memory == "low"
    least = min(size, k + _LEAST_SPARE)
    if max_basis is not None and max_basis < least:
        raise ValueError(f"a basis of {max_basis} vectors is too small for k={k}; allow {least} at least")
    before = operator.n_matvecs
    budget = max_matvecs or max(100, 10 * k) * (2 if low else 1)
    wanted = max_basis or (min(size, k + _LOW_SPARE) if low else room(size, k, budget))
    held = fits(memory_budget, operator)
    capacity = int(min(wanted, held - IN_FLIGHT))
    if capacity < wanted and not low:
        budget = max_matvecs or 2 * budget
    if capacity < min(wanted, least):
        require_vectors(memory_budget, held, VECTORS + (k if vectors else 0), f"k={k} eigenpairs")
        if vectors:
            found, columns = extreme_pairs(operator, k, which, number, seed, budget)
        else:
            chain = PlainLanczos(operator, rademacher(size, seed))
            found, columns = extreme_values(chain, ((k, which),), number, budget)[0], no_vectors(operator)
        pairs = in_form(found, operator, columns, k, operator.n_matvecs - before, seed)
        return dataclasses.replace(pairs, **accuracy.as_number())
    space = RitzSpace(operator, rademacher(size, seed), capacity, seed)
    search = Search(space, ((k, which),), accuracy, budget, verify)
    known = search.run()[0]
    reached: dict[str, Any] = {"tolerance": search.tolerance(), "tolerance_from": accuracy.origin}
    pairs = extract(space, k, which, known, seed, in_place=True)
    columns = pairs.vectors if vectors else no_vectors(operator)
    return dataclasses.replace(pairs, n_matvecs=operator.n_matvecs - before, vectors=columns, **reached)


def require_vectors(memory_budget: int | str | None, held: float, need: int, what: str) -> None:
    """Refuse a budget of memory that holds too few vectors.

    Args:
        memory_budget: The budget as it was given.
        held: Vectors that it holds.
        need: Vectors that are needed.
        what: What needs them, a plural.

    Raises:
        MeasurementError: It holds fewer.
    """
    if held < need:
        raise MeasurementError(
            f"memory_budget={memory_budget!r} holds {held:.0f} vectors of the parameters' length, and {what} take "
            f"{need}; give more memory, ask for fewer, leave eigenvectors out (vectors=False, {VECTORS} vectors), or "
            "measure a part of the model with Objective(..., parameters=)"
        )


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
    return min(size, budget if is_small(size) else max(2 * k + 24, _ROOM))


def extract(space: RitzSpace, k: int, which: str, known: np.ndarray, seed: int, in_place: bool = False) -> Eigenpairs:
    """Take the wanted Ritz pairs out of a space, `known` telling which of them are converged.

    Args:
        space: The space.
        k: Number of pairs.
        which: The end.
        known: Whether each is known to be what it is taken for.
        seed: Seed to put down.
        in_place: Whether the vectors may take the place of the basis, which needs no further memory.

    Returns:
        The pairs.
    """
    values, vectors = space.ritz()
    wanted = select(values, k, which)
    residuals = space.residuals(vectors)
    each = np.pad(known, (0, len(wanted) - len(known)), constant_values=False)
    lifted = (space.become if in_place else space.lift)(vectors[:, wanted])
    parts = space.forms.along(vectors[:, wanted])
    padded = k - len(wanted)  # a budget below k leaves pairs unknown, and says so
    return Eigenpairs(
        values=np.pad(values[wanted], (0, padded), constant_values=np.nan),
        vectors=torch.nn.functional.pad(lifted, (0, padded), value=float("nan")) if padded else lifted,
        residuals=np.pad(residuals[wanted], (0, padded), constant_values=np.nan),
        converged_each=np.pad(each, (0, padded), constant_values=False),
        converged=np.bool_(each.all() and not padded),
        n_matvecs=space.steps,
        seed=seed,
        stderr_sample=np.pad(
            over_examples(space.forms.clusters, parts, len(wanted)), (0, padded), constant_values=np.nan
        ),
        parts=None if parts is None else np.pad(parts, ((0, 0), (0, padded)), constant_values=np.nan),
    )


def _dense(operator: SymmetricOperator, k: int, which: str, tol: float, seed: int) -> Eigenpairs:
    before = operator.n_matvecs
    size = operator.shape[0]
    whole, images = operator.whole(by_batch=size <= _DENSE_SIZE)
    matrix = whole.double()
    values, vectors = torch.linalg.eigh(matrix)
    host = values.cpu().numpy()
    wanted = select(host, k, which)
    chosen = vectors[:, torch.as_tensor(wanted.copy(), device=vectors.device)].to(operator.dtype)
    kept = chosen.double()
    residuals = torch.linalg.vector_norm(matrix @ kept - kept * values[wanted.copy()], dim=0).cpu().numpy()
    residuals = np.hypot(residuals, torch.finfo(operator.dtype).eps * np.abs(host).max())
    each = residuals <= tol * np.maximum(np.abs(host[wanted]), negligible(host, tol))
    parts = None
    if images is not None:
        parts = torch.einsum("ik,gij,jk->gk", chosen, images, chosen).double().cpu().numpy()
    elif operator.clusters is not None:  # too many numbers to keep them for every group: k products more
        parts = operator.with_forms(chosen)[1]
    return Eigenpairs(
        values=host[wanted],
        vectors=chosen,
        residuals=residuals,
        converged_each=each,
        converged=np.bool_(each.all()),
        n_matvecs=operator.n_matvecs - before,
        seed=seed,
        stderr_sample=over_examples(operator.clusters, parts, len(wanted)),
        parts=parts,
    )
