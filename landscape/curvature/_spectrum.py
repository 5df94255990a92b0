"""Both ends of the spectrum and its density together: the first Krylov run serves all of them."""

from __future__ import annotations

import dataclasses

from landscape._results import Result
from landscape.curvature._density import SpectralDensity, assemble, quadrature
from landscape.curvature._eigenpairs import Eigenpairs, check_count, extract, search, second_look, verify
from landscape.curvature._lanczos import Krylov, rademacher
from landscape.curvature._operator import SymmetricOperator


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


def spectrum(
    operator: SymmetricOperator,
    k: int = 10,
    k_bottom: int = 2,
    tol: float = 1e-3,
    seed: int = 0,
    probes: int = 4,
    steps: int = 30,
    max_matvecs: int | None = None,
) -> Spectrum:
    """Compute the top and bottom eigenpairs and the spectral density from shared Krylov runs.

    The first probe's Lanczos run goes on until both ends have converged, as in `top_eigenpairs`; its quadrature is also
    the density's first probe. `probes` − 1 shorter runs give the density its standard error.

    Args:
        operator: The symmetric operator, shape (P, P).
        k: Number of pairs at the top.
        k_bottom: Number of pairs at the bottom.
        tol: Relative residual of the eigenpairs.
        seed: Seed of the probes.
        probes: Probes of the density.
        steps: Lanczos steps of each further probe.
        max_matvecs: Most products of the first run, by default max(100, 10 k), a sixth of them (20 at most) kept for
            the second look of `top_eigenpairs` at each end.

    Returns:
        Eigenpairs of both ends and the density.

    Raises:
        MeasurementError: k or k_bottom exceeds P, or a product is not finite.
    """
    check_count(operator, max(k, k_bottom))
    before = operator.n_matvecs
    first = Krylov(operator, rademacher(operator.shape[0], seed, 0), seed)
    budget = max_matvecs or max(100, 10 * k)
    first.grow(min(steps, budget - second_look(budget)))
    search(first, ((k, "LA"), (k_bottom, "SA")), tol, budget)
    top = extract(first, k, "LA", tol, seed)
    bottom = extract(first, k_bottom, "SA", tol, seed)
    quadratures = [quadrature(first)]
    del first  # its basis is the largest thing in memory
    top = verify(operator, top, "LA", tol, budget)
    bottom = verify(operator, bottom, "SA", tol, budget)
    for probe in range(1, probes):
        krylov = Krylov(operator, rademacher(operator.shape[0], seed, probe), seed)
        krylov.grow(steps)
        quadratures.append(quadrature(krylov))
    total = operator.n_matvecs - before
    return Spectrum(top, bottom, assemble(quadratures, operator.shape[0], seed, total), total)
