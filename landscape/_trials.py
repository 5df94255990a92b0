"""Compare the losses of a batch and of its parts: is the loss a mean, a sum, or neither?

A mean over examples stays when the examples are doubled, and is the weighted mean of its parts. A sum doubles, and is
the sum of its parts. A loss that compares the examples of a batch with each other does neither.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch

from landscape._errors import MeasurementError
from landscape.losses import LossCounts

# Losses whose noise is fixed by a seed draw other numbers for other cuts: only a sum and a mean can be told apart.
NOISY = 0.25
PRECISE = 1e-8  # rounding of losses in float64
# A cut tells something about the divisors where the losses of part and rest differ by this many tolerances.
_TELLING = 20.0


@dataclasses.dataclass(frozen=True)
class Look:
    """What one evaluation of a batch shows.

    Attributes:
        loss: The loss; None where the step skips the batch.
        calls: The loss functions that were called.
        classifies: Whether one of them knows classes.
        elsewhere: Whether some of them were called outside of the loss function that the objective was given.
        factors: What the loss multiplies the result of each summed call by; empty where nobody asked.
    """

    loss: float | None
    calls: tuple[LossCounts, ...] = ()
    classifies: bool = False
    elsewhere: bool = False
    factors: tuple[float, ...] = ()


Divisor = Callable[[Look, int], float | None]
"""What a batch of so many examples divides by, as one look at it tells."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """The losses of a batch, of two parts of it, and of one of them joined with itself, at one point.

    Attributes:
        whole: The batch.
        part: A part.
        rest: The rest; None for a batch that could not be cut.
        once: The piece that was joined with itself.
        twice: That piece joined with itself; None where it could not be joined.
        sizes: Examples in the whole, the part, and the rest.
        way: Number of the way in which the whole was cut.
    """

    whole: Look
    part: Look
    rest: Look | None
    once: Look
    twice: Look | None
    sizes: tuple[int, int, int]
    way: int = 0

    @property
    def finite(self) -> bool:
        """Whether the loss of the whole batch is a finite number."""
        return self.whole.loss is not None and math.isfinite(self.whole.loss)

    def is_mean(self, divisor: Divisor, tol: float) -> bool:
        """Whether the losses are means with this divisor."""
        whole, part, rest = self._losses()
        if self.twice is not None and not _close(self.twice.loss, self._once, tol):
            return False
        if self.rest is None:
            return self.twice is not None
        looks = zip((self.whole, self.part, self.rest), self.sizes, strict=True)
        of_whole, of_part, of_rest = (divisor(look, size) for look, size in looks)
        if of_whole is None or of_part is None or of_rest is None or not of_whole > 0:
            return False
        if abs(of_whole - of_part - of_rest) > 1e-4 * of_whole:
            return False
        # A part without counted targets has no loss, and adds nothing.
        mixed = (part * of_part if of_part else 0.0) + (rest * of_rest if of_rest else 0.0)
        return _close(whole, mixed / of_whole, tol, part if of_part else 0.0, rest if of_rest else 0.0)

    def is_sum(self, tol: float) -> bool:
        """Whether the loss is a sum over examples."""
        whole, part, rest = self._losses()
        if self.twice is not None and not _close(self.twice.loss, 2 * self._once, tol):
            return False
        if self.rest is None:
            return self.twice is not None
        return _close(whole, part + rest, tol, part, rest)

    def telling(self, tol: float) -> bool:
        """Whether part and rest have losses that differ by far more than rounding."""
        whole, part, rest = self._losses()
        return abs(part - rest) > _TELLING * tol * max(abs(whole), abs(part), abs(rest))

    def claimed_share(self, divisor: Divisor) -> float:
        """Return the part's share in the divisor of the whole."""
        whole, part = divisor(self.whole, self.sizes[0]), divisor(self.part, self.sizes[1])
        return (part or 0.0) / whole if whole else 0.0

    def share(self, tol: float) -> tuple[float, float] | None:
        """Return the part's share in a mean, and how far it may be off; None where the losses are no such mean."""
        whole, part, rest = self._losses()
        if self.rest is None or self.twice is None or not _close(self.twice.loss, self._once, tol):
            return None
        return share_of(whole, part, rest, tol)

    @property
    def _once(self) -> float:
        return math.nan if self.once.loss is None else self.once.loss

    def _losses(self) -> tuple[float, float, float]:
        looks = (self.whole, self.part, self.rest or self.part)
        whole, part, rest = (float("nan") if look.loss is None else look.loss for look in looks)
        return whole, part, rest


def share_of(union: float, one: float, other: float, tol: float) -> tuple[float, float] | None:
    """Solve union = r · one + (1 − r) · other for the share r.

    Returns:
        r and how far it may be off; None where that is too far, or where r is no share.
    """
    scale = max(abs(union), abs(one), abs(other))
    if not scale > 0 or not abs(one - other) > _TELLING * tol * scale:
        return None
    share = (union - other) / (one - other)
    return (share, 2 * tol * scale / abs(one - other)) if 0 < share < 1 else None


def tolerance(dtype: torch.dtype, device: torch.device) -> float:
    """Return how far losses of equal value may differ by rounding, relative to their size."""
    if dtype == torch.float64:
        return PRECISE
    return 2e-5 if device.type == "cpu" else 3e-4


def _close(value: float | None, expected: float, tol: float, *others: float) -> bool:
    if value is None:
        return False
    scale = max(abs(value), abs(expected), *(abs(other) for other in others))
    return abs(value - expected) <= tol * scale


def require_function(losses: Sequence[torch.Tensor]) -> None:
    """Refuse a loss that comes out differently when it is evaluated again.

    Args:
        losses: Two evaluations of the loss of one batch.

    Raises:
        MeasurementError: They differ by more than rounding.
    """
    first, second = losses
    # Reductions on many threads may differ in the last bits; randomness differs by far more.
    if not agree(first, second):
        raise MeasurementError(
            f"the loss of one batch came out as {float(first):.8g} and then as {float(second):.8g}: it is not a "
            "function of the parameters. Usual causes: dropout called with its default training=True, noise or "
            "sampling in the step, a counter that changes the loss, non-deterministic kernels. Fix the cause, or "
            "pass noise_seed=0 to measure one fixed draw of the noise"
        )


def agree(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two evaluations differ by rounding alone."""
    return torch.allclose(first, second, rtol=1e-4, atol=1e-12, equal_nan=True)
