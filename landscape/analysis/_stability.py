"""The curvature at which a step of an optimizer no longer contracts, from the recorded optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

_GRADIENT_DESCENT = frozenset({"sgd", "gd"})
_ADAM = frozenset({"adam", "adamw"})
_DIVIDES = frozenset({"rmsprop", "adagrad"})


def _number(value: Any, default: float = 0.0) -> float:
    """Return a recorded setting as a number; the default where it is none."""
    return float(value) if isinstance(value, (int, float)) else default


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A stability line over a training.

    Attributes:
        factor: What stands over the learning rate η.
        shift: What is added to factor/η.
        label: The line in words.
    """

    factor: float
    shift: float
    label: str

    def at(self, rate: Any) -> np.ndarray:
        """Return the line for learning rates; NaN where the rate is not known or 0."""
        rate = np.asarray(rate, dtype=np.float64)
        known = np.isfinite(rate) & (rate > 0)
        line = np.full(rate.shape, np.nan)
        line[known] = self.factor / rate[known] + self.shift
        return line


def preconditioned_threshold(optimizer: Any) -> Threshold | None:
    """Return the stability line of the preconditioned sharpness λmax(P^{-½} H P^{-½}).

    With P frozen: (2+2β₁)/((1−β₁)η) for Adam, 38/η at β₁ = 0.9; with AdamW's decoupled decay λ,
    (1+β₁)(2−ηλ)/((1−β₁)η). (2+2μ)/η for RMSprop with momentum μ, 2/η for Adagrad. Coupled decay is part of the
    preconditioned sharpness itself, so it does not move the line.

    Args:
        optimizer: The root attribute `optimizer` of a run: `name`, `betas`, `momentum`, `weight_decay`.

    Returns:
        The line; None for optimizers without one.

    Source: Cohen et al. 2022, arXiv:2207.14484, section 2; the shift by decoupled decay is the same calculation with
    the weights multiplied by 1 − ηλ in each step.
    """
    settings = optimizer if isinstance(optimizer, Mapping) else {}
    name = _name(settings)
    if name in _ADAM:
        betas = settings.get("betas")
        first = _number(betas[0], 0.9) if isinstance(betas, (list, tuple)) and betas else 0.9
        decoupled = name == "adamw" or bool(settings.get("decoupled_weight_decay"))
        decay = _number(settings.get("weight_decay")) if decoupled else 0.0
        if first == 1:
            return None
        label = f"(2+2β₁)/((1−β₁)η), β₁ = {first:g}"
        return Threshold((2 + 2 * first) / (1 - first), -decay * (1 + first) / (1 - first), label)
    if name in _DIVIDES:
        momentum = _number(settings.get("momentum"))
        return Threshold(2 + 2 * momentum, 0.0, f"(2+2μ)/η, μ = {momentum:g}" if momentum else "2/η")
    return None


def _name(settings: Mapping[str, Any]) -> str:
    return str(settings.get("name", "SGD")).rsplit(".", 1)[-1].lower()


def stability_threshold(optimizer: Any) -> tuple[float, str] | None:
    """Return what stands over the learning rate η in the stability threshold of gradient descent.

    2/η; with heavy-ball momentum β and dampening d, (2 + 2β)/((1 − d)η); with Nesterov's momentum,
    (2 + 2β)/((1 + 2β)η).

    Args:
        optimizer: The root attribute `optimizer` of a run: `name`, `momentum`, `nesterov`, `dampening`; None where
            the run does not say.

    Returns:
        The factor and its label; None for optimisers that precondition the gradient, whose threshold is not on the
        Hessian alone: see `preconditioned_threshold`.

    Source: Cohen et al. 2021, arXiv:2103.00065, section 2 and appendix B.
    """
    settings = optimizer if isinstance(optimizer, Mapping) else {}
    if _name(settings) not in _GRADIENT_DESCENT:
        return None
    momentum = _number(settings.get("momentum"))
    dampening = _number(settings.get("dampening"))
    if momentum == 0.0:
        return 2.0, "2/η"
    if settings.get("nesterov"):
        return (2 + 2 * momentum) / (1 + 2 * momentum), f"(2+2β)/((1+2β)η), Nesterov β = {momentum:g}"
    if dampening == 1:
        return None
    if dampening:
        return (2 + 2 * momentum) / (1 - dampening), f"(2+2β)/((1−d)η), β = {momentum:g}, d = {dampening:g}"
    return 2 + 2 * momentum, f"(2+2β)/η, β = {momentum:g}"
