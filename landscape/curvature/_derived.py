"""Numbers derived from a spectrum: effective dimensionality, condition, negative share, entropy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from landscape._results import Estimate, Result
from landscape._sampling_error import of_contributions
from landscape.curvature._density import SpectralDensity
from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._pairs import Eigenpairs

_Function = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class EffectiveDimension(Result):
    """N_eff(z) and its complement on a ladder of z.

    Attributes:
        z: The scales, shape (m,), in units of the eigenvalues.
        value: N_eff(z) = Σ λ/(λ+z) over λ > 0, shape (m,).
        complement: min(n, P) − N_eff(z), shape (m,).
        stderr: Standard errors of both, shape (m,).
        stderr_sample: Their standard errors over examples, shape (m,); NaN where they are not known.
        n_examples: Number of examples n.
        size: Number of parameters P.
        scale: What the eigenvalues are of: "mean" or "sum" of the loss over examples.
        seed: Seed of the probes.
    """

    z: np.ndarray
    value: np.ndarray
    complement: np.ndarray
    stderr: np.ndarray
    stderr_sample: np.ndarray
    n_examples: int
    size: int
    scale: str
    seed: int


def effective_dimension(
    density: SpectralDensity, z: Sequence[float], n_examples: int, scale: str = "mean"
) -> EffectiveDimension:
    """Compute N_eff and its complement for a ladder of z, with error bars.

    Args:
        density: The spectral density of the mean loss.
        z: The scales, all positive; of the mean loss or of the sum as `scale` says.
        n_examples: Number of examples n behind the loss.
        scale: "mean": eigenvalues as they are; "sum": those of the summed loss, n times as large, as in the paper.

    Returns:
        Values, complements and standard errors.

    Raises:
        ValueError: `scale` is unknown, n is not positive, or a z is not.

    Source: Maddox, Benton & Wilson 2020, arXiv:2003.02139.
    """
    if scale not in {"mean", "sum"}:
        raise ValueError(f"scale is {scale!r}; it must be 'mean' or 'sum'")
    if n_examples < 1:
        raise ValueError(f"n_examples is {n_examples}; there must be at least one")
    divisor = n_examples if scale == "sum" else 1
    found = [density.n_eff(level / divisor) for level in z]
    value = np.array([estimate.value for estimate in found])
    return EffectiveDimension(
        np.asarray(z, dtype=np.float64),
        value,
        min(n_examples, density.size) - value,
        np.array([estimate.stderr for estimate in found]),
        np.array([estimate.stderr_sample for estimate in found]),
        n_examples,
        density.size,
        scale,
        density.seed,
    )


def negative_share(density: SpectralDensity) -> Estimate:
    """Estimate the share of negative curvature, Σ_{λ<0} |λ| / Σ |λ|, between 0 and 1; NaN for a zero matrix.

    A share of magnitudes, for the number of negative eigenvalues jumps with the rounding of those at zero.

    Args:
        density: The spectral density.

    Returns:
        The share with its standard error.
    """
    return _ratio(density, lambda x: np.maximum(-x, 0.0), np.abs)


def spectral_entropy(density: SpectralDensity, order: float = 1.0) -> SpectralEntropy:
    """Estimate the Rényi entropy of the magnitudes p_i = |λ_i| / Σ |λ_j|.

    S_α = ln(Σ p_i^α) / (1 − α) for α ≠ 1, the Shannon entropy −Σ p_i ln p_i for α = 1. exp S is a number of
    eigenvalues: the effective rank (α = 1), the participation ratio (α = 2). Between 0 (one eigenvalue) and ln P.

    Args:
        density: The spectral density.
        order: α > 0.

    Returns:
        The entropy in nats, with its order; NaN for a zero matrix.

    Raises:
        ValueError: The order is not positive and finite.

    Source: Rényi 1961; Roy & Vetterli 2007 (effective rank).
    """
    if not (order > 0 and math.isfinite(order)):
        raise ValueError(f"order is {order}; the entropy needs a positive, finite one")
    top = _largest(density)
    if top == 0:
        return _entropy(Estimate(math.nan, math.nan, len(density.nodes), density.seed), order)
    # Magnitudes in units of the largest: the entropy does not depend on the scale.
    if order == 1.0:
        # −Σ p ln p = ln A − B/A, where A = Σ |λ| and B = Σ |λ| ln |λ|.
        parts = (lambda x: np.abs(x) / top, lambda x: _x_log_x(np.abs(x) / top))
        a, b = (density.expectation(part).value for part in parts)
        value = math.log(density.size * a) - b / a
        slopes = (1 / a + b / a**2, -1 / a)
    else:
        parts = (lambda x: np.abs(x) / top, lambda x: (np.abs(x) / top) ** order)
        a, b = (density.expectation(part).value for part in parts)
        value = (math.log(density.size * b) - order * math.log(density.size * a)) / (1 - order)
        slopes = (-order / ((1 - order) * a), 1 / ((1 - order) * b))
    error = density.expectation(lambda x: slopes[0] * parts[0](x) + slopes[1] * parts[1](x))
    return _entropy(dataclasses.replace(error, value=float(np.clip(value, 0.0, math.log(density.size)))), order)


@dataclasses.dataclass(frozen=True)
class SpectralEntropy(Estimate):
    """An entropy of the spectrum with its order.

    Attributes:
        value: The entropy in nats.
        stderr: Its standard error, to first order.
        n: Number of probes.
        seed: Their seed.
        dof: Degrees of freedom behind the standard error.
        spread: The standard error before it was widened.
        stderr_sample: The standard error over examples, to first order.
        order: The order α; 1 is Shannon's.
    """

    order: float

    @property
    def effective_rank(self) -> float:
        """A number of eigenvalues, exp S."""
        return math.exp(self.value)


def _entropy(estimate: Estimate, order: float) -> SpectralEntropy:
    return SpectralEntropy(
        **{field.name: getattr(estimate, field.name) for field in dataclasses.fields(Estimate)}, order=float(order)
    )


def _x_log_x(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x * np.log(np.where(x > 0, x, 1.0)), 0.0)


def _largest(density: SpectralDensity) -> float:
    return float(np.abs(density.nodes[density.weights > 0]).max())


def _ratio(density: SpectralDensity, above: _Function, below: _Function) -> Estimate:
    """Estimate ∫ above dμ / ∫ below dμ, its error to first order from that of above − ratio · below."""
    bottom = density.expectation(below).value
    if bottom == 0:
        return Estimate(math.nan, math.nan, len(density.nodes), density.seed)
    value = density.expectation(above).value / bottom
    error = density.expectation(lambda x: (above(x) - value * below(x)) / bottom)
    return dataclasses.replace(error, value=value)


def condition_number(eigenvalues: np.ndarray, cutoff: float = 0.0) -> float:
    """Compute |λ|_max / |λ|_min over the given eigenvalues with |λ| > cutoff · |λ|_max.

    Of a whole spectrum it is the condition number; of the top k, how steep these are. The smallest eigenvalues of a
    network's Hessian are rounding: without a cutoff the number says how well zero was computed.

    Args:
        eigenvalues: Eigenvalues, shape (m,).
        cutoff: Relative magnitude below which an eigenvalue counts as zero.

    Returns:
        The number, at least 1; infinite where an eigenvalue is zero and there is no cutoff; NaN where all are.

    Raises:
        ValueError: No eigenvalues, one that is not finite, or a cutoff outside [0, 1).
    """
    magnitudes = np.abs(np.asarray(eigenvalues, dtype=np.float64))
    if magnitudes.size == 0 or not np.isfinite(magnitudes).all():
        raise ValueError("the condition number needs at least one eigenvalue, all of them finite")
    if not 0 <= cutoff < 1:
        raise ValueError(f"cutoff is {cutoff}; it is a share of the largest magnitude, at least 0 and below 1")
    largest = float(magnitudes.max())
    if largest == 0:
        return math.nan
    smallest = float(magnitudes[magnitudes > cutoff * largest].min()) if cutoff > 0 else float(magnitudes.min())
    return largest / smallest if smallest > 0 else math.inf


def condition_of_pairs(pairs: Eigenpairs, operator: SymmetricOperator | None = None) -> Estimate:
    """Compute |λ|_max / |λ|_min over the eigenpairs that are known, with its error over examples.

    A ratio κ = |a|/|b| moves by κ (da/a − db/b), to first order. The parts da and db of the groups of batches are
    those of the two eigenvalues, so eigenvalues that move together leave κ where it is.

    Args:
        pairs: Eigenpairs, as of `top_eigenpairs`; values that are NaN are left out.
        operator: What they are of; without it the error over examples is NaN.

    Returns:
        The number, at least 1; infinite where an eigenvalue is zero, and NaN where all are, or none is known.
    """
    known = np.flatnonzero(np.isfinite(pairs.values))
    if not len(known):
        return Estimate.exact(math.nan)
    values = pairs.values[known]
    value, parts = condition_number(values), None
    if pairs.parts is not None and math.isfinite(value):
        top, low = (known[int(pick(np.abs(values)))] for pick in (np.argmax, np.argmin))
        parts = value * (pairs.parts[:, top] / pairs.values[top] - pairs.parts[:, low] / pairs.values[low])
    return Estimate.exact(value, float(of_contributions(None if operator is None else operator.clusters, parts)))
