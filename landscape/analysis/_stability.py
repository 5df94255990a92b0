"""The curvature at which a step of gradient descent no longer contracts, from the recorded optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_GRADIENT_DESCENT = frozenset({"sgd", "gd"})


def stability_threshold(optimizer: Any) -> tuple[float, str] | None:
    """Return what stands over the learning rate η in the stability threshold of gradient descent.

    2/η; with heavy-ball momentum β and dampening d, (2 + 2β)/((1 − d)η); with Nesterov's momentum,
    (2 + 2β)/((1 + 2β)η).

    Args:
        optimizer: The root attribute `optimizer` of a run: `name`, `momentum`, `nesterov`, `dampening`; None where
            the run does not say.

    Returns:
        The factor and its label; None for optimisers that precondition the gradient, whose threshold is not on the
        Hessian alone.

    Source: Cohen et al. 2021, arXiv:2103.00065, section 2 and appendix B.
    """
    settings = optimizer if isinstance(optimizer, Mapping) else {}
    name = str(settings.get("name", "SGD")).rsplit(".", 1)[-1].lower()
    if name not in _GRADIENT_DESCENT:
        return None
    momentum = float(settings.get("momentum") or 0.0)
    dampening = float(settings.get("dampening") or 0.0)
    if momentum == 0.0:
        return 2.0, "2/η"
    if settings.get("nesterov"):
        return (2 + 2 * momentum) / (1 + 2 * momentum), f"(2+2β)/((1+2β)η), Nesterov β = {momentum:g}"
    if dampening:
        return (2 + 2 * momentum) / (1 - dampening), f"(2+2β)/((1−d)η), β = {momentum:g}, d = {dampening:g}"
    return 2 + 2 * momentum, f"(2+2β)/η, β = {momentum:g}"
