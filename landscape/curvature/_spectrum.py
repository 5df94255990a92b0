"""Both ends of the spectrum and its density together: the first Krylov run serves all of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from landscape._given import of_operator
from landscape._memory import fits
from landscape._results import Result
from landscape.curvature._accuracy import Accuracy
from landscape.curvature._convergence import slack
from landscape.curvature._density import SpectralDensity, assemble, grown, vectors_of
from landscape.curvature._eigenpairs import IN_FLIGHT, check_count, extract, require_vectors, room
from landscape.curvature._lanczos import rademacher
from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._pairs import Eigenpairs, in_form, no_vectors
from landscape.curvature._plain_lanczos import PlainLanczos
from landscape.curvature._ritz_space import RitzSpace
from landscape.curvature._search import Search
from landscape.curvature._verification import second_look
from landscape.curvature._without_basis import VECTORS, extreme_values


@dataclasses.dataclass(frozen=True)
class Spectrum(Result):
    """Both ends of a spectrum and the density between them.

    Attributes:
        top: The largest eigenpairs, descending.
        bottom: The smallest eigenpairs, ascending.
        density: The spectral density.
        n_matvecs: Number of products spent on all.
    """

    top: Eigenpairs
    bottom: Eigenpairs
    density: SpectralDensity
    n_matvecs: int


@of_operator
def spectrum(
    operator: SymmetricOperator,
    k: int = 10,
    k_bottom: int = 2,
    tol: float | str = 1e-3,
    seed: int = 0,
    probes: int = 4,
    steps: int = 30,
    max_matvecs: int | None = None,
    memory_budget: int | str | None = None,
) -> Spectrum:
    """Compute the top and bottom eigenpairs and the spectral density from shared Krylov runs.

    The first probe's Lanczos run goes on until both ends have converged, as in `top_eigenpairs`; its quadrature is also
    the density's first probe. `probes` − 1 shorter runs give the density its standard error, and a further look at the
    ends that costs nothing: where one of them sees beyond a value, that value and those inside of it are not called
    converged.

    Memory: a basis of (max(2 (k + k_bottom) + 24, 64), P) numbers of the operator's type, and the pairs. Where that
    exceeds a `memory_budget`, no basis is kept: four vectors, and the result has eigenvalues without vectors. Multiple
    eigenvalues count once then, and no second look is taken, but the further probes still are one.

    Args:
        operator: The symmetric operator, shape (P, P).
        k: Number of pairs at the top.
        k_bottom: Number of pairs at the bottom.
        tol: Relative accuracy of the eigenvalues, or "sample", as in `top_eigenpairs`.
        seed: Seed of the probes.
        probes: Probes of the density.
        steps: Lanczos steps of each further probe.
        max_matvecs: Most products of the first run, by default max(100, 10 k), a sixth of them (20 at most) kept for
            the second look of `top_eigenpairs`.
        memory_budget: What the search may allocate: bytes, a text such as "8GB", or "auto" for what is free on the
            device less a margin. The operator's own memory, and that of its products, come on top.

    Returns:
        Eigenpairs of both ends and the density.

    Raises:
        MeasurementError: k or k_bottom exceeds P, the budget of memory is below four vectors, or a product is not
            finite.
    """
    check_count(operator, max(k, k_bottom))
    before = operator.n_matvecs
    accuracy = Accuracy(tol, operator.clusters)
    budget = max_matvecs or max(100, 10 * k)
    size = operator.shape[0]
    wanted = ((k, "LA"), (k_bottom, "SA"))
    capacity = max(room(size, k + k_bottom, budget), min(steps, budget))
    held = fits(memory_budget, operator)
    if held < capacity + k + k_bottom + IN_FLIGHT:
        require_vectors(memory_budget, held, VECTORS, "both ends of a spectrum")
        chain = PlainLanczos(operator, rademacher(size, seed, 0))
        ends = extreme_values(chain, wanted, accuracy.number, max_matvecs or 2 * budget)
        top, bottom = (
            dataclasses.replace(
                in_form(found, operator, no_vectors(operator), count, chain.steps, seed), **accuracy.as_number()
            )
            for found, (count, _) in zip(ends, wanted, strict=True)
        )
        quadratures = [chain.quadrature()]
        del chain
    else:
        space = RitzSpace(operator, rademacher(size, seed, 0), capacity, seed)
        space.grow(min(steps, budget - second_look(budget)))
        search = Search(space, wanted, accuracy, budget)
        known = search.run()
        reached: dict[str, Any] = {"tolerance": search.tolerance(), "tolerance_from": accuracy.origin}
        top = dataclasses.replace(extract(space, k, "LA", known[0], seed), **reached)
        bottom = dataclasses.replace(extract(space, k_bottom, "SA", known[1], seed), **reached)
        quadratures = [space.quadrature()]
        del space, search  # the basis is the largest thing in memory
    lean = held < vectors_of(steps) + top.vectors.shape[1] + bottom.vectors.shape[1]
    for probe in range(1, probes):
        run = grown(operator, rademacher(size, seed, probe), steps, seed, lean)
        quadratures.append(run.quadrature())
        # Copies of an eigenvalue are no evidence of further ones.
        nodes = run.distinct().values if isinstance(run, PlainLanczos) else quadratures[-1].nodes
        del run
        top, bottom = _unsurpassed(top, nodes[::-1]), _unsurpassed(bottom, nodes)
    total = operator.n_matvecs - before
    return Spectrum(top, bottom, assemble(quadratures, operator, seed, total), total)


def _unsurpassed(pairs: Eigenpairs, nodes: np.ndarray) -> Eigenpairs:
    """Withdraw `converged` where another probe's Ritz values lie further out: they are bounds on the exact ones.

    Returns:
        The pairs, whose values are not changed.
    """
    count = min(len(nodes), len(pairs.values))
    values = np.nan_to_num(pairs.values)
    outwards = np.sign(nodes[0] - nodes[-1])
    beyond = outwards * (nodes[:count] - values[:count]) > slack(values[:count], nodes, pairs.tolerance)
    if not beyond.any():
        return pairs
    each = pairs.converged_each.copy()
    each[int(np.argmax(beyond)) :] = False
    return dataclasses.replace(pairs, converged_each=each, converged=np.bool_(False))
