"""Critical sharpness: how far the last update can be stretched before it no longer lowers the loss."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping

import torch

from landscape._given import of_objective
from landscape._results import Estimate
from landscape._sampling_error import of_shares
from landscape.objective import Objective
from landscape.sharpness._descent import Decay, check_step, decay_term
from landscape.sharpness._finite import require_finite
from landscape.sharpness._stretch import Stretch, stretch

# Forward passes of a search that begins anywhere, and of one that begins at the last critical learning rate.
_COLD, _WARM = 24, 7


@dataclasses.dataclass(frozen=True)
class CriticalSharpness(Estimate):
    """The critical sharpness with the bracket that holds it; nothing is sampled, so `stderr` is 0.

    Attributes:
        value: λc = 2/ηc; infinite where the update climbs from the start; NaN where the search found no end.
        stderr: 0.
        n: 1.
        seed: None.
        dof: Infinite.
        spread: None.
        stderr_sample: Standard error over examples, Δ held fixed: that of (L(w + cΔ) − L(w))/c at c = ηc/η over c times
            its slope there, times λc; NaN where the search has not converged.
        critical_rate: ηc, a good `start` for the next event; NaN where λc is NaN.
        lower: Lower end of the bracket of λc.
        upper: Its upper end.
        converged: Whether the bracket is as narrow as asked, and the loss changes by more than rounding.
        n_evaluations: Forward passes over all examples.
    """

    critical_rate: float
    lower: float
    upper: float
    converged: bool
    n_evaluations: int


@of_objective
def critical_sharpness(
    objective: Objective,
    update: torch.Tensor,
    learning_rate: float = 1.0,
    start: float | None = None,
    slope: float | None = None,
    weight_decay: Decay = 0.0,
    tol: float = 0.05,
    max_evaluations: int | None = None,
) -> CriticalSharpness:
    """Measure λc = 2/ηc, where ηc = min {η' > 0 : L(w + (η'/η) Δ) > L(w)}.

    Δ is the update that the optimizer made with the learning rate η at the weights w. A step with a larger rate than ηc
    would have raised the loss. So λc reaches 2/η when the optimizer steps too far. For plain gradient descent on a
    quadratic λc is gᵀHg/gᵀg.

    The search evaluates the loss along the update and needs no derivatives. It begins at `start`, grows or shrinks the
    rate until the loss has changed sides, and closes the bracket by linear interpolation of (L(w + cΔ) − L(w))/c,
    which is exact where the loss is quadratic. It assumes that the loss falls, then rises. Where the loss crosses its
    start several times, the crossing found may not be the first.

    Memory: two vectors of the parameters' length beside the update.

    Args:
        objective: The loss over the measured examples, at the weights before the step.
        update: Δ, the weights after the step less those before it, shape (P,).
        learning_rate: η of that step. With 1 the result is in units of this update: λc = 2/c.
        start: A guess of ηc, such as that of the last event; by default η.
        slope: Δᵀg, where it is known (with the decay's part). It saves evaluations and shows at once that an update
            climbs.
        weight_decay: Coupled weight decay λ that the optimizer adds to the gradient, one number, or numbers by the
            names of parameters. The loss is then L + ½ Σ λ_i w_i², which is what the optimizer descends. Leave
            decoupled decay out.
        tol: Width of the bracket, relative to ηc. The value is interpolated within it.
        max_evaluations: Most forward passes: 7 with a `start`, else 24.

    Returns:
        λc in units of 1/η with its bracket.

    Raises:
        MeasurementError: The loss at w is not finite, or the update is zero or not finite.
        ValueError: The learning rate or another argument is out of range.

    Source: Kalra et al. 2026, arXiv:2601.16979. They close the bracket by bisection; we interpolate.
    """
    update = check_step(objective, update, learning_rate)
    most = (_COLD if start is None else _WARM) if max_evaluations is None else max_evaluations
    if most < 3 or not 0 < tol < 1 or (start is not None and not 0 < start < math.inf):
        raise ValueError(
            f"max_evaluations is {most}, tol {tol} and start {start}; the search needs at least 3 evaluations, a "
            "tolerance between 0 and 1, and a positive start"
        )
    if slope is not None and slope > 0:
        return CriticalSharpness(math.inf, 0.0, 1, None, 0.0, math.inf, math.inf, True, 0)
    with objective.session():
        weights = objective.vector()
        start_shares = objective.loss_shares(weights)
        center = start_shares.sum().to(objective.dtype)
        require_finite(center, "loss")
        decay = decay_term(weight_decay, objective.layout, weights, update)

        shares: dict[float, torch.Tensor] = {}

        @functools.cache
        def rise(c: float) -> float:
            shares[c] = objective.loss_shares(torch.add(weights, update, alpha=c))
            return float(shares[c].sum().to(objective.dtype)) - float(center) + decay(c)

        found = stretch(rise, 1.0 if start is None else start / learning_rate, slope, tol, most - 1)
    # Smaller changes of the loss than this are rounding: they would decide on which side a point lies.
    rounding = 4 * torch.finfo(objective.dtype).eps * abs(float(center))
    converged = found.closed and found.largest * tol > rounding
    rate = found.at * learning_rate
    lower, upper = (2 / (end * learning_rate) if end else math.inf for end in (found.outer, found.inner))
    evaluations = rise.cache_info().misses + 1
    found_at = CriticalSharpness(2 / rate, 0.0, 1, None, rate, lower, upper, converged, evaluations)
    if not converged:
        return found_at
    moved = _moved(found, start_shares, shares, rise)
    error = float(of_shares(objective.clusters, moved)) * found_at.value
    return dataclasses.replace(found_at, stderr_sample=error)


def _moved(
    found: Stretch, start: torch.Tensor, shares: Mapping[float, torch.Tensor], rise: Callable[[float], float]
) -> torch.Tensor:
    """Return by which share each batch moves the critical sharpness, to first order, shape (batches,).

    At the crossing the mean slope m(c) = (L(w + cΔ) − L(w))/c is zero. It is taken as linear within the bracket.
    """
    low, high = rise(found.inner) / found.inner, rise(found.outer) / found.outer
    if not (math.isfinite(high) and high > low):
        return torch.full_like(start, math.nan)
    part = (found.at - found.inner) / (found.outer - found.inner)
    before, beyond = ((shares[c] - start) / c for c in (found.inner, found.outer))
    by_batch = (1 - part) * before + part * beyond
    return by_batch * (found.outer - found.inner) / ((high - low) * found.at)
