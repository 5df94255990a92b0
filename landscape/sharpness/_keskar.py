"""Keskar's ε-sharpness: the largest rise of the loss in a small box, in the whole space or in a random subspace."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy.optimize
import torch

from landscape._derivatives import require_gradient
from landscape._errors import MeasurementError
from landscape._given import of_objective
from landscape._results import Estimate
from landscape._sampling_error import of_shares
from landscape.objective import Objective
from landscape.sharpness._finite import require_finite
from landscape.sharpness._ladder import Ladder, gather, rungs


@of_objective
def keskar(
    objective: Objective,
    rho: float | Sequence[float] = 1e-3,
    adaptive: bool = True,
    norm: str = "linf",
    subspace: int | None = None,
    draws: int = 5,
    iterations: int = 10,
    seed: int = 0,
) -> Estimate | Ladder:
    """Measure 100 · (max L(w + Ay) − L(w)) / (1 + L(w)) over |y_i| ≤ ε (|(A⁺w)_i| + 1).

    A is the identity, or P × `subspace` with independent standard normal entries. The maximum is sought by scipy's
    L-BFGS-B from y = 0; the largest loss that it meets counts, so the number is a lower bound and at least 0. Where the
    gradient in y is exactly zero it starts at a random point of the box instead, for it would stop at once.

    The box does not follow the weights (its side does not shrink below 2ε), so nothing about it is invariant, and it
    is scaled by the loss itself: compare at equal loss only.

    Memory: in the whole space about 25 copies of the parameters in float64 (L-BFGS-B's own); else A, (P, subspace)
    numbers.

    Args:
        objective: The loss over the measured examples.
        rho: ε, 1e-3 or 5e-4 in the paper; or a ladder of them, each with a search of its own.
        adaptive: Whether the box grows with the weights, as in the paper; False takes |y_i| ≤ ε.
        norm: "linf" alone, which is what a box is; `worst_case` searches balls in "l2".
        subspace: Dimension of the random subspace, 100 in the paper; None for the whole space.
        draws: Number of random subspaces.
        iterations: Iterations of L-BFGS-B; each takes one gradient or a few.
        seed: Seed of the subspaces.

    Returns:
        The sharpness in the paper's percent; over several subspaces the mean with its standard error, else an error of
        0 (NaN for one subspace alone). The standard error over examples is that of 100 (dM − (1 + M)/(1 + L) dL)/(1 +
        L), dM and dL the changes of the losses at the point that was found, M, and at w, L: as in `worst_case`. A
        `Ladder` for several ε.

    Raises:
        MeasurementError: The loss at w is not finite, or −1 or less, where the scaling means nothing.
        ValueError: An argument is out of range.

    Source: Keskar et al. 2017, arXiv:1609.04836, metric 2.1.
    """
    widths = rungs(rho)
    if norm != "linf":
        raise ValueError(
            f"norm is {norm!r}; Keskar's sharpness is defined in a box, so its norm must be 'linf', the default; "
            "worst_case has balls in 'l2'"
        )
    if subspace is not None and not 1 <= subspace <= objective.n_parameters:
        raise ValueError(f"subspace is {subspace}; its dimension lies between 1 and {objective.n_parameters}")
    if draws < 1 or iterations < 1:
        raise ValueError(f"draws is {draws} and iterations {iterations}; both must be at least 1")
    require_gradient(objective)
    with objective.session(), objective.same_kernels():
        start = objective.loss_shares()
        require_finite(start.sum(), "loss")
        center = float(start.sum().to(objective.dtype))
        if not center > -1:
            raise MeasurementError(f"the loss is {center}; this measure divides by 1 + loss, which must be positive")
        boxes = (
            [_whole(objective, adaptive)]
            if subspace is None
            else [_random(objective, adaptive, subspace, seed, i) for i in range(draws)]
        )
        found = [[_search(objective, box, width, iterations, start, seed) for box in boxes] for width in widths]
    drawn = None if subspace is None else seed
    return gather(rho, [_estimate(objective, start, center, peaks, drawn) for peaks in found])


def _estimate(
    objective: Objective, start: torch.Tensor, center: float, peaks: Sequence[_Peak], seed: int | None
) -> Estimate:
    """Take the mean over boxes, a single one without a seed."""
    below = 1.0 + center
    rises = [100.0 * (peak.loss - center) / below for peak in peaks]
    found = Estimate.exact(rises[0]) if seed is None else Estimate.from_samples(rises, seed)
    parts = [100.0 * (peak.shares - (1.0 + peak.loss) / below * start) / below for peak in peaks]
    error = float(of_shares(objective.clusters, torch.stack(parts).mean(dim=0)))
    return dataclasses.replace(found, stderr_sample=error if math.isfinite(found.value) else math.nan)


@dataclasses.dataclass(frozen=True)
class _Peak:
    """The largest loss found in a box, and what each batch contributes to it, shape (batches,)."""

    loss: float
    shares: torch.Tensor


class _Box:
    """Coordinates y of a point w + Ay, and the half-widths of the box in units of ε: |A⁺w| + 1, or 1."""

    def __init__(
        self,
        own: torch.Tensor,
        adaptive: bool,
        move: Callable[[torch.Tensor], torch.Tensor],
        pull: Callable[[torch.Tensor], torch.Tensor],
    ):
        self.half = 1.0 + adaptive * own.abs().double().cpu().numpy()
        self.move = move
        self.pull = pull


def _whole(objective: Objective, adaptive: bool) -> _Box:
    return _Box(objective.vector(), adaptive, lambda y: y, lambda gradient: gradient)


def _random(objective: Objective, adaptive: bool, dimension: int, seed: int, index: int) -> _Box:
    weights = objective.vector()
    drawn = np.random.default_rng((seed, index)).standard_normal((len(weights), dimension))
    # Copied to torch's own aligned memory, here and below: matrix products round by where their arguments begin.
    basis = torch.from_numpy(drawn).to(weights, copy=True)
    # By QR: the default driver, which looks at the rank too, gave other last bits from one call to the next.
    inverse = torch.linalg.lstsq(basis.double(), weights.double()[:, None], driver="gels").solution[:, 0]
    return _Box(inverse, adaptive, lambda y: basis @ y, lambda gradient: basis.T @ gradient)


def _search(objective: Objective, box: _Box, width: float, iterations: int, shares: torch.Tensor, seed: int) -> _Peak:
    weights = objective.vector()
    half = width * box.half
    peak = _Peak(float(shares.sum().to(objective.dtype)), shares)
    last = peak.loss

    def descend(y: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal peak, last
        moved = weights + box.move(torch.from_numpy(y).to(weights, copy=True))
        shares, gradient = objective.shares_and_gradient(moved)
        loss = shares.sum().to(objective.dtype)
        found = torch.cat([loss[None].double(), box.pull(gradient).double()]).cpu().numpy()
        last = float(found[0])
        # A loss that is no number somewhere in the box is said as it is.
        if not (math.isnan(peak.loss) or last <= peak.loss):
            peak = _Peak(last, shares)
        return -last, -found[1:]

    start = np.zeros(len(half))
    if not descend(start)[1].any():
        start = half * np.random.default_rng(seed).uniform(-1.0, 1.0, len(half))
    if math.isfinite(last):
        # No tolerance: the number of iterations is the paper's, and a flat place is not a reason to stop.
        options = {"maxiter": iterations, "ftol": 0.0, "gtol": 0.0}
        bounds = scipy.optimize.Bounds(-half, half)
        scipy.optimize.minimize(descend, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return peak
