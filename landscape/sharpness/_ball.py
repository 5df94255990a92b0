"""The set of perturbations a sharpness measure ranges over: a norm ball, plain or stretched by the weights.

Vectors are worked on in pieces, in place where that can be, since those of large models are many gigabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from landscape.sharpness._ladder import rungs

NORMS = ("l2", "linf")
_PIECE = 1 << 17  # numbers that are worked on at a time


class Radii:
    """The radius c of each coordinate in units of rho: |w|, so that zero weights stay, or 1.

    Memory: none beside the weights, which are not copied; |w| is taken piece by piece.

    Args:
        weights: The weights w, shape (P,).
        adaptive: Whether c = |w| or 1.
    """

    def __init__(self, weights: torch.Tensor, adaptive: bool):
        self._weights, self._adaptive = weights, adaptive

    def split(self, size: int) -> Iterator[torch.Tensor]:
        """Yield c in pieces of that many numbers."""
        return (scale(piece, self._adaptive) for piece in self._weights.split(size))


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


def project_(delta: torch.Tensor, c: torch.Tensor | Radii, rho: float, norm: str) -> torch.Tensor:
    """Bring δ into {‖δ ⊘ c‖ ≤ ρ} in place, with δ = 0 wherever c = 0.

    For l2 this scales δ (the radial projection in the stretched coordinates), for linf it clips each coordinate.

    Returns:
        The perturbation within the ball, shape (P,).
    """
    if norm == "linf":
        for part, radii in _together(delta, c):
            torch.minimum(part, rho * radii, out=part)
            torch.maximum(part, -rho * radii, out=part)
        return delta
    length = _length(delta, c, lambda part, radii: part.mul(_moving(radii)).div_(_above_zero(radii)))
    shrink = torch.where(length > 0, (rho / length).clamp(max=1.0), 1.0)  # on the device, as the length is
    for part, radii in _together(delta, c):
        part.mul_(shrink).mul_(_moving(radii))
    return delta


def steepest(gradient: torch.Tensor, c: torch.Tensor | Radii, norm: str) -> torch.Tensor:
    """Return the unit step of steepest ascent in the stretched norm: c² g/‖c g‖ for l2, c sign(g) for linf."""
    step = torch.empty_like(gradient)
    if norm == "linf":
        for out, (part, radii) in zip(step.split(_PIECE), _together(gradient, c), strict=True):
            torch.mul(radii, part.sign(), out=out)
        return step
    length = _length(gradient, c, torch.mul)
    length = torch.where(length > 0, length, torch.inf).to(gradient)  # no step where there is no slope
    for out, (part, radii) in zip(step.split(_PIECE), _together(gradient, c), strict=True):
        torch.mul(part, radii, out=out).mul_(radii).div_(length)
    return step


def stretch_(vector: torch.Tensor, c: torch.Tensor | Radii) -> torch.Tensor:
    """Multiply a vector by the radii, in place, and return it."""
    for part, radii in _together(vector, c):
        part.mul_(radii)
    return vector


def stretched_norm(vector: torch.Tensor, c: torch.Tensor | Radii) -> torch.Tensor:
    """Return ‖c v‖ in float64, on the device."""
    return _length(vector, c, lambda part, radii: part.double() * radii)


def any_moves(gradient: torch.Tensor, c: torch.Tensor | Radii) -> bool:
    """Return whether some coordinate has both a gradient and a radius."""
    return bool(torch.stack([(part * radii).any() for part, radii in _together(gradient, c)]).any())


def _moving(radii: torch.Tensor) -> torch.Tensor:
    """Return 1 where the radius is positive and 0 where it is zero; faster than masks."""
    return radii.div(_above_zero(radii))


def _above_zero(radii: torch.Tensor) -> torch.Tensor:
    return radii.clamp_min(torch.finfo(radii.dtype).tiny)


def _together(vector: torch.Tensor, c: torch.Tensor | Radii) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    return zip(vector.split(_PIECE), c.split(_PIECE), strict=True)


def _length(
    vector: torch.Tensor,
    c: torch.Tensor | Radii,
    stretched: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Return the l2 norm of what a function makes of vector and radii, summed in float64, on the device."""
    lengths = [torch.linalg.vector_norm(stretched(*both), dtype=torch.float64) for both in _together(vector, c)]
    return torch.linalg.vector_norm(torch.stack(lengths))
