"""The volume of the basin around the weights, by rays that curvature has made equally long."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.special import gammaln, logsumexp, softmax

from landscape._fetching import fetched
from landscape._given import of_objective
from landscape._results import Result
from landscape._sampling_error import of_shares
from landscape.curvature import diagonal, hessian
from landscape.objective import Objective
from landscape.sharpness._finite import require_finite
from landscape.sharpness._noise import draw
from landscape.sharpness._radius import _Ray

_LARGEST_DENSE = 2048
_FLOOR = 1e-9


@dataclasses.dataclass(frozen=True)
class BasinVolume(Result):
    """The logarithm of a basin's volume with its spread.

    Attributes:
        log_volume: ln of the volume of {w : the loss rises by less than ε on the straight way from w*}, in nats;
            infinite where a ray never leaves.
        stderr: Standard error by the jackknife over rays.
        stderr_sample: Standard error over examples, with these rays: of n Σ_i v_i d(ln r_i), where v_i is the share of
            ray i in the volume. NaN where a ray never meets the threshold, or where it is not known.
        spread: Standard deviation of d ln r over rays. The mean of r^d is that of its upper tail: above about 1 the
            estimate rests on few rays and is too low by some nats, which `stderr` does not see.
        radii: Length of each ray in the preconditioned coordinates, shape (rays,).
        threshold: ε.
        n_parameters: d.
        preconditioner: What made the rays equally long.
        seed: Seed of the rays.
    """

    log_volume: float
    stderr: float
    stderr_sample: float
    spread: float
    radii: np.ndarray
    threshold: float
    n_parameters: int
    preconditioner: str
    seed: int


@of_objective
def basin_volume(
    objective: Objective,
    threshold: float = 0.1,
    rays: int = 20,
    preconditioner: str = "auto",
    tol: float = 1e-4,
    seed: int = 0,
) -> BasinVolume:
    """Estimate ln V, V = V_d(1) |det A| E[r(u)^d], with L(w* + r(u) A u) = L(w*) + ε and u uniform on the sphere.

    A = |H|^{-½} makes the rays of a quadratic equally long, and the estimate exact: ln V = ln V_d(1) + (d/2) ln 2ε −
    ½ ln det H. Without a preconditioner (A = I) the estimate rests on the rare rays along flat directions.

    Memory: "hessian" holds two dense matrices of P² numbers.

    Args:
        objective: The loss at a local minimum w*.
        threshold: ε, the rise of the loss at the rim of the basin.
        rays: Number of rays, at least 2.
        preconditioner: "hessian" (dense, up to 2048 parameters), "diagonal" (|diag H|^{-½}, estimated), "none", or
            "auto": the first that can be had. Curvatures below 10⁻⁹ of the largest count as that.
        tol: Relative accuracy of each radius; it costs d·tol nats at most.
        seed: Seed of the rays.

    Returns:
        The log-volume with its error and spread.

    Raises:
        MeasurementError: The loss at w* is not finite.
        ValueError: An argument is out of range.

    Source: Scherlis & Belrose 2025, arXiv:2501.18812, who weigh the volume by the law of initial weights and
    precondition by Adam's second moments; the volume here is Lebesgue's.
    """
    if not 0 < threshold < math.inf:
        raise ValueError(f"threshold is {threshold}; it must be a positive finite rise of the loss")
    if rays < 2:
        raise ValueError(f"rays is {rays}; at least 2 are needed")
    if not 0 < tol < 1:
        raise ValueError(f"tol is {tol}; it must lie between 0 and 1")
    with objective.session():
        weights, start = objective.vector(), objective.loss_shares()
        require_finite(start.sum(), "loss")
        chosen, stretch, log_det = _preconditioner(objective, preconditioner, seed)
        radii, shifts = [], []
        for index in range(rays):
            unit = draw(len(weights), "l2", seed, index).to(weights)
            ray = _Ray(objective, weights, start, stretch(unit / torch.linalg.vector_norm(unit)))
            radii.append(ray.radius(threshold, tol))
            shifts.append(ray.shift(radii[-1]) / radii[-1])
    size, logs = len(weights), len(weights) * np.log(radii)
    ball = size / 2 * math.log(math.pi) - float(gammaln(size / 2 + 1))
    return BasinVolume(
        log_volume=ball + log_det + _log_mean(logs),
        stderr=_jackknife(logs),
        stderr_sample=_over_examples(objective, logs, shifts),
        spread=float(logs.std(ddof=1)) if np.isfinite(logs).all() else math.nan,
        radii=np.array(radii),
        threshold=threshold,
        n_parameters=size,
        preconditioner=chosen,
        seed=seed,
    )


def _preconditioner(
    objective: Objective, name: str, seed: int
) -> tuple[str, Callable[[torch.Tensor], torch.Tensor], float]:
    """Return its name, u ↦ A u, and ln |det A|."""
    if name == "auto":
        name = "hessian" if objective.n_parameters <= _LARGEST_DENSE else "diagonal"
    if name == "none":
        return name, lambda unit: unit, 0.0
    operator = hessian(objective)
    if name == "diagonal":
        # Any stretch is right and only the spread depends on it; Bekas' errors are relative to an entry's own row.
        estimate = torch.as_tensor(diagonal(operator, method="bekas", seed=seed).value)
        scale = _floored(estimate.to(objective.device, objective.dtype)).rsqrt()
        return name, lambda unit: scale * unit, float(scale.double().log().sum())
    if name != "hessian":
        raise ValueError(f"preconditioner is {name!r}; it must be 'auto', 'hessian', 'diagonal' or 'none'")
    if objective.n_parameters > _LARGEST_DENSE:
        raise ValueError(
            f"a dense Hessian of {objective.n_parameters} parameters is too large (limit {_LARGEST_DENSE}); use "
            "preconditioner='diagonal'"
        )
    identity = torch.eye(objective.n_parameters, device=objective.device, dtype=objective.dtype)
    values, vectors = torch.linalg.eigh((operator @ identity).double())
    roots = _floored(values).rsqrt()
    return (
        name,
        lambda unit: (vectors @ (roots * (vectors.T @ unit.double()))).to(unit),
        float(roots.log().sum()),
    )


def _floored(values: torch.Tensor) -> torch.Tensor:
    size = values.abs()
    largest = float(size.max())
    return size.clamp_min(_FLOOR * largest if largest > 0 else 1.0)


def _log_mean(logs: np.ndarray) -> float:
    return float(logsumexp(logs) - math.log(len(logs)))


def _over_examples(objective: Objective, logs: np.ndarray, shifts: list[torch.Tensor]) -> float:
    """Return the standard error over examples, from what each batch moves the logarithms of the radii by."""
    if not np.isfinite(logs).all():
        return math.nan
    moves = objective.n_parameters * softmax(logs) @ fetched(shifts)
    return float(of_shares(objective.clusters, moves))


def _jackknife(logs: np.ndarray) -> float:
    if not np.isfinite(logs).all():
        return math.nan
    left_out = np.array([_log_mean(np.delete(logs, index)) for index in range(len(logs))])
    return float(math.sqrt((len(logs) - 1) * left_out.var()))
