"""The set of perturbations a sharpness measure ranges over: a norm ball, plain or stretched by the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from landscape.sharpness._ladder import rungs

NORMS = ("l2", "linf")


def check(rho: float | Sequence[float], norm: str) -> list[float]:
    """Refuse a radius or norm that means nothing.

    Returns:
        The radii, one or several.

    Raises:
        ValueError: A radius is not a positive finite number, or the norm is unknown.
    """
    if norm not in NORMS:
        raise ValueError(f"norm is {norm!r}; it must be one of {', '.join(NORMS)}")
    return rungs(rho)


def scale(weights: torch.Tensor, adaptive: bool) -> torch.Tensor:
    """Return c, the radius of each coordinate in units of rho: |w| (so that zero weights stay) or 1."""
    return weights.abs() if adaptive else torch.ones_like(weights)


def project(delta: torch.Tensor, c: torch.Tensor, rho: float, norm: str) -> torch.Tensor:
    """Bring δ into {‖δ ⊘ c‖ ≤ ρ}, with δ = 0 wherever c = 0.

    For l2 this scales δ (the radial projection in the stretched coordinates), for linf it clips each coordinate.

    Returns:
        The perturbation within the ball, shape (P,).
    """
    if norm == "linf":
        return torch.minimum(torch.maximum(delta, -rho * c), rho * c)
    ratio = torch.where(c > 0, delta / torch.where(c > 0, c, 1.0), 0.0)
    length = torch.linalg.vector_norm(ratio.double())
    shrink = torch.where(length > 0, (rho / length).clamp(max=1.0), 1.0)  # on the device, as the length is
    return torch.where(c > 0, delta, 0.0) * shrink


def steepest(gradient: torch.Tensor, c: torch.Tensor, norm: str) -> torch.Tensor:
    """Return the unit step of steepest ascent in the stretched norm: c² g/‖c g‖ for l2, c sign(g) for linf."""
    if norm == "linf":
        return c * gradient.sign()
    length = torch.linalg.vector_norm((c * gradient).double())
    return torch.where(length > 0, c**2 * gradient / length.to(gradient), 0.0)
