"""How much noise the weights stand at an allowed rise of the loss, and how few bits that leaves to say of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from landscape._fetching import fetched
from landscape._given import of_objective
from landscape._results import Result
from landscape._sampling_error import of_shares
from landscape.compression._bits_back import bits_back
from landscape.compression._radii import radii
from landscape.compression._tolerances import TOLERANCES, Floats, checked
from landscape.objective import Objective
from landscape.sharpness._crossing import Crossing, crossing
from landscape.sharpness._finite import require_finite
from landscape.sharpness._noise import draw

_START = 0.1


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseRadius(Result):
    """The noise that a network stands against allowed loss rise: arrays with an entry for each tolerance.

    Attributes:
        tolerances: Allowed rises of the mean loss, in its own units.
        sigma: σ_ε, in units of c; infinite where the loss never rises so far, 0 where the least noise costs more.
        stderr: Its standard error over pairs of draws, to first order; NaN where there is no σ.
        stderr_sample: Standard error over examples with these draws, to first order: that of the mean rise over its
            slope.
        bits: Bits-back length of the weights under this noise; NaN where there is no σ.
        tensor_bits: The same of each tensor, shape (tolerance, tensor).
        names: The tensors' names, shape (tensor,).
        per: What c is: "weight", "filter" or "tensor".
        loss: L(w).
        n_parameters: How many weights there are.
        n_evaluations: How often the loss was evaluated in all.
        n: Number of pairs of draws.
        seed: Their seed.
    """

    tolerances: Floats
    sigma: Floats
    stderr: Floats
    stderr_sample: Floats
    bits: Floats
    tensor_bits: Floats
    names: npt.NDArray[np.str_]
    per: str
    loss: float
    n_parameters: int
    n_evaluations: int
    n: int
    seed: int


@of_objective
def noise_radius(
    objective: Objective,
    tolerances: Sequence[float] = TOLERANCES,
    per: str = "filter",
    draws: int = 20,
    tol: float = 0.1,
    seed: int = 0,
) -> NoiseRadius:
    """Measure σ_ε, the largest σ with E[L(w + σ c ⊙ z)] <= L(w) + ε, z standard normal; and the bits that it leaves.

    At a minimum and for small ε, σ_ε = √(2ε / Tr(CHC)) with C = diag(c). A uniform grid of step Δ c has the same mean
    square error as σ = Δ/√12, so that √12 σ_ε with per="tensor" foretells the knob of the code "uniform-tensor". The
    length in bits is `KL(N(w, σ²c²) ‖ prior)` with Gaussian priors, one a tensor, their widths charged: about
    Σ_i log2(s/(σ c_i)), what quantisation and entropy coding of the weights at that noise would cost, without rounding.

    The same draws, in pairs of both signs, serve every σ and tolerance: the mean rise is then smooth in σ, and its
    crossing is found by doubling or halving, bisection and interpolation in ln σ.

    Args:
        objective: The loss over the measured examples.
        tolerances: ε, allowed rises of the mean loss, positive, in its own units.
        per: What the noise is relative to: "weight", c = |w|, invariant to rescaling of layers and of neurons;
            "filter", c the root mean square of the weight's output channel; "tensor", that of its tensor. The last two
            are invariant to rescaling of layers. Where c = 0 the weight stays, so pruned weights do with "weight".
        draws: Number of evaluated perturbations at each σ, at least 4.
        tol: Relative width of the bracket around σ when the search ends.
        seed: Seed of the draws.

    Returns:
        The curve, with standard errors and lengths.

    Raises:
        MeasurementError: The loss at w is not finite.
        ValueError: An argument is out of range.

    Source: Hinton & van Camp 1993, doi:10.1145/168304.168306, for noisy weights and bits back; Honkela & Valpola 2004,
    doi:10.1109/TNN.2004.828762; the noise per filter follows Li et al. 2018, arXiv:1712.09913. They minimise the length
    in training; this is the length at given weights.
    """
    allowed = checked(tolerances)
    if draws < 4:
        raise ValueError(f"draws is {draws}; at least 4 perturbations are needed, two pairs")
    if not 0 < tol < 1:
        raise ValueError(f"tol is {tol}; it must lie between 0 and 1")
    with objective.session():
        noisy = _Noisy(objective, per, draws // 2, seed)
        found = [noisy.crossing(float(tolerance), tol) for tolerance in allowed]
        weights, layout = noisy.weights, objective.layout
        lengths = np.full((len(allowed), len(layout.names)), math.nan)
        for row, one in zip(lengths, found, strict=True):
            if 0 < one.at < math.inf:
                row[:] = bits_back(weights, one.at * noisy.c, layout)
    return NoiseRadius(
        tolerances=allowed,
        sigma=np.array([one.at for one in found]),
        stderr=np.array([noisy.stderr(one) for one in found]),
        stderr_sample=np.array([noisy.stderr_sample(one) for one in found]),
        bits=lengths.sum(axis=1),
        tensor_bits=lengths,
        names=np.array(layout.names),
        per=per,
        loss=noisy.center,
        n_parameters=layout.total,
        n_evaluations=noisy.n_evaluations,
        n=draws // 2,
        seed=seed,
    )


class _Noisy:
    """The rises of the loss under noise of a given σ, each σ evaluated once."""

    def __init__(self, objective: Objective, per: str, pairs: int, seed: int):
        self._objective, self._pairs, self._seed = objective, pairs, seed
        self.weights = objective.vector()
        self._start = objective.loss_shares()
        require_finite(self._start.sum(), "loss")
        self.center, self.n_evaluations = float(self._start.sum().to(objective.dtype)), 1
        self.c = radii(self.weights, objective.layout, per)
        self._known: dict[float, Floats] = {}
        self._shares: dict[float, torch.Tensor] = {}

    def crossing(self, tolerance: float, tol: float) -> Crossing:
        """Find where the mean rise crosses a tolerance."""
        if not self.c.any():
            return Crossing(math.inf)
        return crossing(lambda sigma: float(self.rises(sigma).mean()) - tolerance, _START, tol)

    def rises(self, sigma: float) -> Floats:
        """Return the mean rise of each pair of draws, shape (pairs,)."""
        if sigma not in self._known:
            losses, shares = [], torch.zeros_like(self._start)
            noise = torch.empty(len(self.weights), dtype=torch.float32)
            direction, moved = torch.empty_like(self.weights), torch.empty_like(self.weights)
            for index in range(self._pairs):
                draw(len(self.weights), "l2", self._seed, index, out=noise)
                torch.mul(noise.to(self.weights), self.c, out=direction)
                for sign in (1, -1):
                    torch.add(self.weights, direction, alpha=sign * sigma, out=moved)
                    found = self._objective.loss_shares(moved)
                    losses.append(found.sum().to(self._objective.dtype))
                    shares += found
            self._shares[sigma] = shares / len(losses) - self._start
            rises = fetched(losses).reshape(self._pairs, 2) - self.center
            self.n_evaluations += rises.size
            # A loss that is no number any more has left every tolerance behind.
            self._known[sigma] = np.where(np.isfinite(rises), rises, math.inf).mean(axis=1)
        return self._known[sigma]

    def stderr(self, found: Crossing) -> float:
        """Return the standard error of σ: that of the mean rise over its slope, both from the ends of the bracket."""
        if math.isnan(per_rise := self._per_rise(found)):
            return math.nan
        inner, outer = self.rises(found.inner), self.rises(found.outer)
        return per_rise * float(((inner + outer) / 2).std(ddof=1)) / math.sqrt(self._pairs)

    def stderr_sample(self, found: Crossing) -> float:
        """Return the standard error of σ over examples, likewise."""
        if math.isnan(per_rise := self._per_rise(found)):
            return math.nan
        by_batch = (self._shares[found.inner] + self._shares[found.outer]) / 2
        return per_rise * float(of_shares(self._objective.clusters, by_batch))

    def _per_rise(self, found: Crossing) -> float:
        """Return by how much σ moves where the mean rise does, from the ends of the bracket; NaN if unknown."""
        if not 0 < found.at < math.inf:
            return math.nan
        inner, outer = self.rises(found.inner), self.rises(found.outer)
        if not (np.isfinite(inner).all() and np.isfinite(outer).all()):
            return math.nan
        slope = float((outer - inner).mean()) / math.log(found.outer / found.inner)
        return found.at / slope if slope > 0 else math.nan
