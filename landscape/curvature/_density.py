"""Spectral density by stochastic Lanczos quadrature, and what follows from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch

from landscape._given import of_operator
from landscape._memory import fits
from landscape._results import Estimate, Result, aside
from landscape._sampling_error import Clusters, of_contributions
from landscape.curvature._calibration import form_error
from landscape.curvature._lanczos import Krylov, rademacher
from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._outside import Outside, shifts
from landscape.curvature._pairs import Eigenpairs
from landscape.curvature._plain_lanczos import PlainLanczos
from landscape.curvature._quadrature import Quadrature, change, stacked
from landscape.curvature._resolution import node_widths, quadrature_error


@dataclasses.dataclass(frozen=True)
class SpectralDensity(Result):
    """Eigenvalue density μ = (1/P) Σ δ(λ − λ_i) as Gauss quadratures, one a probe.

    Attributes:
        nodes: Quadrature nodes, shape (probes, steps), in units of the loss per squared parameter.
        weights: Their weights, shape (probes, steps): those of a probe sum to 1; unused places have weight 0.
        size: Number of parameters P.
        seed: Seed of the probes.
        n_matvecs: Number of products spent.
        shifts: How far each eigenvalue that was known beforehand may be off, shape (k,): the first k nodes of every
            probe are those, with weight 1/P, and the others are the quadrature of what is left.
        parts: What groups of batches contribute (`Quadrature`), shape (probes, groups, steps, steps); None if unknown.
        clusters: The groups.
    """

    nodes: np.ndarray
    weights: np.ndarray
    size: int
    seed: int
    n_matvecs: int
    shifts: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0))
    parts: np.ndarray | None = aside()
    clusters: Clusters | None = aside()

    @property
    def n_known(self) -> int:
        """Number k of eigenvalues that were known beforehand."""
        return len(self.shifts)

    def expectation(self, function: Callable[[np.ndarray], np.ndarray]) -> Estimate:
        """Estimate (1/P) tr f(H) = ∫ f dμ with its standard error.

        Value ± 1.96·stderr is the 95 % interval from two probes on: the spread over probes is pooled with the variance
        that a quadratic form is known to have, which the same quadrature gives (2 ∫ f² dμ / P, less the part of a
        constant), and widened by Student's t where few eigenvalues carry the sum. The error of a quadrature with too
        few steps for f is in it, too, from how much the last steps changed it (`quadrature_error`), and so is what the
        residuals of eigenvalues known beforehand leave open.

        `stderr_sample` is the error over examples, to first order in what each group of batches contributes to H.

        Args:
            function: Vectorised f of the eigenvalue.

        Returns:
            Mean over probes; NaN standard error with a single probe.
        """
        return dataclasses.replace(self._mean(function), stderr_sample=self._over_examples(function))

    def _over_examples(self, function: Callable[[np.ndarray], np.ndarray]) -> float:
        """Return the standard error over examples of ∫ f dμ."""
        if self.parts is None:
            return float("nan")
        probes = zip(self.nodes, self.weights > 0, self.parts, strict=True)  # padding lies where f may have no value
        changes = [change(function, nodes[used], parts[:, used][:, :, used]) for nodes, used, parts in probes]
        return float(of_contributions(self.clusters, np.mean(changes, axis=0)))

    def _mean(self, function: Callable[[np.ndarray], np.ndarray]) -> Estimate:
        at_nodes = np.where(self.weights > 0, function(self.nodes), 0.0)
        known, left = np.split(at_nodes, [self.n_known], axis=1)
        nodes, weights, rest = self.nodes[:, self.n_known :], self.weights[:, self.n_known :], self.size - self.n_known
        sure = float(known[0].sum()) / self.size
        scale = float(np.abs(left).max(initial=0.0)) or 1.0  # fourth powers of small eigenvalues would underflow
        first, second, fourth = (self.size * (weights * (left / scale) ** order).sum(axis=1) for order in (1, 2, 4))
        if rest <= 1:
            value = sure + float(first.mean()) * scale / self.size
            estimate = Estimate.student(value, 0.0, len(first), self.seed, float("inf"))
        elif len(first) == 1:
            return Estimate.from_samples(sure + first * (scale / self.size), self.seed)
        else:
            signs = not self.n_known
            spread, dof = form_error(first, float(second.mean()), float(fourth.mean()), rest, signs=signs)
            estimate = Estimate.student(float(first.mean()), spread, len(first), self.seed, dof)
            share = rest / self.size
            estimate = estimate.scaled(scale / self.size, sure).joined(
                share * quadrature_error(nodes, weights / share, rest, function)
            )
        return estimate.joined(self._unsure(function)) if self.n_known else estimate

    def _unsure(self, function: Callable[[np.ndarray], np.ndarray]) -> float:
        """What a sum of f changes by when known eigenvalues and the nodes next to them move by the shifts."""
        values, others = self.nodes[0, : self.n_known], self.nodes[:, self.n_known :]
        others = others[self.weights[:, self.n_known :] > 0]
        moved = [values]
        if len(others):
            moved.append(others[np.abs(values[:, None] - others[None, :]).argmin(axis=1)])
        changes = [
            np.maximum(np.abs(function(x + self.shifts) - function(x)), np.abs(function(x - self.shifts) - function(x)))
            for x in moved
        ]
        return float(np.sum(changes)) / self.size

    def moment(self, order: int) -> Estimate:
        """Estimate the spectral moment tr(H^order)/P."""
        return self.expectation(lambda nodes: nodes**order)

    @property
    def stderr(self) -> float:
        """Standard error of the mean eigenvalue tr(H)/P; `density_stderr` gives that of the curve."""
        return self.moment(1).stderr

    def n_eff(self, z: float) -> Estimate:
        """Estimate the effective dimensionality N_eff(z) = Σ λ/(λ+z) over λ > 0.

        Args:
            z: The scale in units of the eigenvalues, z > 0.

        Returns:
            The estimate, between 0 and P.

        Raises:
            ValueError: z is not positive.

        Source: MacKay 1992; Maddox, Benton & Wilson 2020, arXiv:2003.02139. There it is taken from the top
        eigenvalues; a count of k pairs caps that at k, so it comes from the whole density here.
        """
        if not z > 0:
            raise ValueError(f"z is {z}; the effective dimensionality needs a positive scale")
        share = self.expectation(lambda nodes: np.maximum(nodes, 0.0) / (np.maximum(nodes, 0.0) + z))
        return share.scaled(self.size)

    def n_eff_complement(self, z: float, n_examples: int) -> Estimate:
        """Estimate min(n, P) − N_eff(z), the directions among those that n examples can determine that they do not.

        Args:
            z: The scale in units of the eigenvalues, z > 0.
            n_examples: Number of examples n.

        Returns:
            The estimate, with the standard error of N_eff.

        Source: Maddox, Benton & Wilson 2020, arXiv:2003.02139.
        """
        return self.n_eff(z).scaled(-1.0, min(n_examples, self.size))

    def density(self, grid: Sequence[float] | np.ndarray, sigma: float | None = None) -> np.ndarray:
        """Smooth the density for plotting.

        By default each node is spread, by the kernel (1 − t²)⁵ of finite reach, over the resolution near it: an
        eigenvalue that the quadrature has found stays sharp, a node of the bulk reaches to its neighbours, and nothing
        is drawn where there is nothing (`widths`). With `sigma` it is a Gaussian of that width everywhere.

        Args:
            grid: Eigenvalues to evaluate at, shape (m,).
            sigma: Width of a Gaussian; by default the width follows the resolution.

        Returns:
            Density at the grid, shape (m,), with integral 1 over the real line.
        """
        return self._curves(grid, sigma).mean(axis=0)

    def density_stderr(self, grid: Sequence[float] | np.ndarray, sigma: float | None = None) -> np.ndarray:
        """Return the standard error of `density` over probes, shape (m,); NaN with a single probe."""
        curves = self._curves(grid, sigma)
        if len(curves) == 1:
            return np.full(curves.shape[1], np.nan)
        return curves.std(axis=0, ddof=1) / np.sqrt(len(curves))

    def widths(self) -> np.ndarray:
        """Return the half-width that each node is drawn with, shape (probes, steps): the resolution near it.

        At least 3·10⁻³ of the largest magnitude, as a line in a plot.
        """
        rest = slice(self.n_known, None)
        left = [node_widths(n[rest], w[rest]) for n, w in zip(self.nodes, self.weights, strict=True)]
        found = np.pad(np.stack(left), ((0, 0), (self.n_known, 0)))
        least = 3e-3 * float(np.abs(self.nodes[self.weights > 0]).max())
        return np.maximum(found, least or 1e-12)

    def _curves(self, grid: Sequence[float] | np.ndarray, sigma: float | None) -> np.ndarray:
        offsets = np.asarray(grid, dtype=np.float64)[None, :, None] - self.nodes[:, None, :]
        if sigma is not None:
            kernel = np.exp(-0.5 * (offsets / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
        else:
            widths = self.widths()[:, None, :]
            kernel = 693 / 512 * np.maximum(1 - (offsets / widths) ** 2, 0.0) ** 5 / widths
        return (self.weights[:, None, :] * kernel).sum(axis=2)


@of_operator
def spectral_density(
    operator: SymmetricOperator,
    seed: int = 0,
    probes: int = 4,
    steps: int = 30,
    known: Sequence[Eigenpairs] = (),
    memory_budget: int | str | None = None,
) -> SpectralDensity:
    """Estimate the eigenvalue density by stochastic Lanczos quadrature.

    For each probe v with independent signs, the Lanczos tridiagonal T of `steps` steps gives nodes θ (its eigenvalues)
    and weights τ (squared first components of its eigenvectors); Σ τ f(θ) is exact for vᵀf(H)v/P where f is a
    polynomial of degree 2·steps − 1, and unbiased for tr f(H)/P.

    Eigenpairs that are `known` already are taken out: each is a point of mass 1/P, and the probes, uniform on a sphere
    then, are drawn orthogonal to them, as all of their Krylov spaces are. What outer eigenvalues add to the variance of
    moments is gone, and no steps are spent on finding them again.

    Memory: (steps, P) numbers for one probe at a time, twice that while they grow; with known pairs a copy of their
    vectors. Where that exceeds a `memory_budget`, directions are not reorthogonalised: three vectors, and as good a
    quadrature (Greenbaum 1989), though nodes of converged eigenvalues come in copies that share the weight.

    Args:
        operator: The symmetric operator, shape (P, P).
        seed: Seed of the probes.
        probes: Number of probes; two at least give a standard error.
        steps: Lanczos steps a probe.
        known: Eigenpairs of this operator found before, for example both ends of a `spectrum`; those that are not
            converged are left alone.
        memory_budget: What a probe may allocate: bytes, a text such as "8GB", or "auto" for what is free on the device
            less a margin. The operator's own memory, and that of its products, come on top.

    Returns:
        The density with nodes and weights of every probe.

    Raises:
        ValueError: `probes` or `steps` is below 1.
        MeasurementError: A product is not finite.

    Source: Ubaru, Chen & Saad 2017; Ghorbani, Krishnan & Xiao 2019, arXiv:1901.10159. All directions are
    reorthogonalised, where PyHessian does not.
    """
    if probes < 1 or steps < 1:
        raise ValueError(f"probes={probes} and steps={steps} must both be at least 1")
    known = [pairs for pairs in known if pairs.vectors.shape[1]]
    lean = fits(memory_budget, operator) < vectors_of(steps)
    if known:
        return outside(operator, known, seed, probes, steps, lean)
    before = operator.n_matvecs
    size = operator.shape[0]
    quadratures = [
        grown(operator, rademacher(size, seed, probe), steps, seed, lean).quadrature() for probe in range(probes)
    ]
    return assemble(quadratures, operator, seed, operator.n_matvecs - before)


def outside(
    operator: SymmetricOperator, known: Sequence[Eigenpairs], seed: int, probes: int, steps: int, lean: bool = False
) -> SpectralDensity:
    """Take known eigenpairs out of the density exactly, and the rest of it by probes orthogonal to them."""
    before = operator.n_matvecs
    left = Outside(operator, known)
    count = len(left.values)
    if not count:
        return spectral_density(operator, seed, probes, steps)
    quadratures = []
    for probe in range(probes):
        own = Quadrature(np.empty(0), np.empty(0), None if left.parts is None else np.empty((len(left.parts), 0, 0)))
        if left.rest:
            own = grown(left, left.probe(seed, probe), min(steps, left.rest), seed, lean).quadrature()
        quadratures.append(left.join(own))
    found = assemble(quadratures, operator, seed, operator.n_matvecs - before)
    used = found.nodes[:, count:][found.weights[:, count:] > 0]
    return dataclasses.replace(found, shifts=shifts(left.values, left.residuals, used))


def vectors_of(steps: int) -> int:
    """Vectors that a probe of so many steps takes with its basis."""
    return 2 * steps + 8


def grown(operator: SymmetricOperator, start: torch.Tensor, steps: int, seed: int, lean: bool) -> Krylov | PlainLanczos:
    """Take Lanczos steps from a start vector, which is taken over, with a basis or without one."""
    run = PlainLanczos(operator, start) if lean else Krylov(operator, start, seed)
    del start  # it is the run's, and freed by it
    run.grow(steps)
    return run


def assemble(quadratures: list[Quadrature], operator: SymmetricOperator, seed: int, n_matvecs: int) -> SpectralDensity:
    """Stack quadratures of different lengths, padded with nodes of weight 0."""
    nodes, weights, parts = stacked(quadratures)
    clusters = None if parts is None else operator.clusters
    return SpectralDensity(nodes, weights, operator.shape[0], seed, n_matvecs, parts=parts, clusters=clusters)
