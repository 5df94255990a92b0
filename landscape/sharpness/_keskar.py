"""Keskar's ε-sharpness: the largest rise of the loss in a small box, in the whole space or in a random subspace."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy.optimize
import torch

from landscape._derivatives import require_gradient
from landscape._errors import MeasurementError
from landscape._given import of_objective
from landscape._results import Estimate
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
        0 (NaN for one subspace alone). A `Ladder` for several ε.

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
        center = objective.loss()
        require_finite(center, "loss")
        if not float(center) > -1:
            raise MeasurementError(
                f"the loss is {float(center)}; this measure divides by 1 + loss, which must be positive"
            )
        boxes = (
            [_whole(objective, adaptive)]
            if subspace is None
            else [_random(objective, adaptive, subspace, seed, i) for i in range(draws)]
        )
        found = [[_search(objective, box, width, iterations, float(center), seed) for box in boxes] for width in widths]
    if subspace is None:
        return gather(rho, [Estimate.exact(rises[0]) for rises in found])
    return gather(rho, [Estimate.from_samples(rises, seed) for rises in found])


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


def _search(objective: Objective, box: _Box, width: float, iterations: int, center: float, seed: int) -> float:
    weights = objective.vector()
    half = width * box.half
    seen = [center]

    def descend(y: np.ndarray) -> tuple[float, np.ndarray]:
        moved = weights + box.move(torch.from_numpy(y).to(weights, copy=True))
        loss, gradient = objective.loss_and_gradient(moved)
        found = torch.cat([loss[None].double(), box.pull(gradient).double()]).cpu().numpy()
        seen.append(float(found[0]))
        return -seen[-1], -found[1:]

    start = np.zeros(len(half))
    if not descend(start)[1].any():
        start = half * np.random.default_rng(seed).uniform(-1.0, 1.0, len(half))
    if math.isfinite(seen[-1]):
        # No tolerance: the number of iterations is the paper's, and a flat place is not a reason to stop.
        options = {"maxiter": iterations, "ftol": 0.0, "gtol": 0.0}
        bounds = scipy.optimize.Bounds(-half, half)
        scipy.optimize.minimize(descend, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    # np.max passes on a NaN: a loss that is no number somewhere in the box is said as it is.
    return 100.0 * (float(np.max(seen)) - center) / (1.0 + center)
