"""Evaluate the loss of cut and joined batches, which shows what it divides by.

Cut a batch into a part and a rest. A mean over examples is the mean of the two, weighted with what each divides by. A
sum is their sum. A loss that compares the examples of a batch with each other is neither. Losses are taken at the
present weights and at disturbed ones: what a loss divides by does not depend on the weights.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from landscape import _batches
from landscape._errors import MeasurementError
from landscape._examples import Reading, join, outside, take
from landscape._observe import LossCall

# Losses whose noise is fixed by a seed draw other numbers for other cuts: only a sum and a mean can be told apart.
NOISY = 0.25
# A cut tells something about the divisors where the losses of part and rest differ by this many tolerances.
_TELLING = 20.0
# A trial takes a few examples, of batches that are spread over all.
_MOST_BATCHES, _MOST_EXAMPLES = 16, 64


@dataclasses.dataclass(frozen=True)
class Look:
    """What one evaluation of a batch shows.

    Attributes:
        loss: The loss; None where the step skips the batch.
        calls: The loss functions that were called.
        classifies: Whether one of them knows classes.
        elsewhere: Whether some of them were called outside of the loss function that the objective was given.
    """

    loss: float | None
    calls: tuple[LossCall, ...] = ()
    classifies: bool = False
    elsewhere: bool = False


Divisor = Callable[[Look, int], float | None]
"""What a batch of so many examples divides by, as one look at it tells."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """The losses of a batch, of two parts of it, and of the first part joined with itself, at one point.

    Attributes:
        whole: The batch.
        part: A part.
        rest: The rest; None for a batch that could not be cut.
        doubled: The part joined with itself; None where it could not be joined.
        sizes: Examples in the whole, the part, and the rest.
    """

    whole: Look
    part: Look
    rest: Look | None
    doubled: Look | None
    sizes: tuple[int, int, int]

    @property
    def finite(self) -> bool:
        """Whether the loss of the whole batch is a finite number."""
        return self.whole.loss is not None and math.isfinite(self.whole.loss)

    def is_mean(self, divisor: Divisor, tol: float) -> bool:
        """Whether the losses are means with this divisor."""
        whole, part, rest = self._losses()
        if self.doubled is not None and not _close(self.doubled.loss, part, tol):
            return False
        if self.rest is None:
            return self.doubled is not None
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
        if self.doubled is not None and not _close(self.doubled.loss, 2 * part, tol):
            return False
        if self.rest is None:
            return self.doubled is not None
        return _close(whole, part + rest, tol, part, rest)

    def share(self, tol: float) -> tuple[float, float] | None:
        """Return the part's share in a mean, and how far it may be off; None where the losses are no such mean."""
        whole, part, rest = self._losses()
        if self.rest is None or self.doubled is None or not _close(self.doubled.loss, part, tol):
            return None
        return share_of(whole, part, rest, tol)

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


@dataclasses.dataclass
class Experiment:
    """Batches that can be cut, joined and evaluated.

    Attributes:
        batches: The batches, in the measuring type.
        reading: Where their examples lie.
        drawn: The batches as they were given, with samples where a loader made them.
        looks: What the first evaluation of each showed.
        evaluate: Evaluates a batch at a point, given by number; the number of a batch of the objective goes with it.
        cast: Brings a collated batch into the measuring type.
    """

    batches: Sequence[Any]
    reading: Reading
    drawn: Sequence[Any]
    looks: Sequence[Look]
    evaluate: Callable[[Any, int, int], Look]
    cast: Callable[[Any], Any]

    def trials(self, points: Sequence[int]) -> list[Trial]:
        """Cut one batch (or join two) and evaluate the pieces at some points.

        Returns:
            A trial at each point where the losses are finite; none where no batch can be cut or joined.
        """
        for make in (self._spread, self._cut, self._united, self._doubled):
            made = make()
            found = [] if made is None else self._tried(made, points)
            if found:
                return found
        return []

    def _tried(self, made: Any, points: Sequence[int]) -> list[Trial]:
        index, whole, part, rest, doubled, sizes = made
        found = []
        for point in points:
            looks = [None if piece is None else self._look(piece, index, point) for piece in (whole, part, rest)]
            twice = None if doubled is None else self._look(doubled, index, point)
            if looks[0] is None or looks[1] is None or (rest is not None and looks[2] is None):
                return []
            trial = Trial(looks[0], looks[1], looks[2], twice, sizes)
            if trial.finite:
                found.append(trial)
        return found

    def union(self, index: int, other: int, point: int) -> tuple[Look, Look, Look] | None:
        """Evaluate two batches and their union at a point; None where they cannot be joined."""
        joined = self._joined([(index, None), (other, None)])
        if joined is None:
            return None
        looks = [
            self._look(batch, at, point)
            for batch, at in ((joined, index), (self.batches[index], index), (self.batches[other], other))
        ]
        return None if any(look is None for look in looks) else (looks[0], looks[1], looks[2])  # type: ignore[return-value]

    def _look(self, batch: Any, index: int, point: int) -> Look | None:
        # A module that refuses pieces of a batch is no fault of its own: then there is nothing to compare.
        try:
            look = self.evaluate(batch, index, point)
        except Exception:
            return None
        return None if look.loss is None else look

    def _spread(self) -> Any:
        """Take a few examples of many batches: only between batches does it matter what each of them divides by."""
        able = [i for i, look in enumerate(self.looks) if look.loss is not None and self.reading.counts[i]]
        used = able[:: -(-len(able) // _MOST_BATCHES)]
        each = max(1, _MOST_EXAMPLES // max(len(used), 1))
        pool = [(i, range(min(each, self.reading.counts[i]))) for i in used]
        total = sum(len(part) for _, part in pool)
        if total < 2:
            return None
        first, rest = _divided(pool, max(1, total // 3))
        pieces = [self._joined(chosen) for chosen in (pool, first, rest, [*first, *first])]
        if any(piece is None for piece in pieces[:3]):
            return None
        size = sum(len(part) for _, part in first)
        return used[0], *pieces, (total, size, total - size)

    def _cut(self) -> Any:
        counts, looks = self.reading.counts, self.looks
        able = [i for i, n in enumerate(counts) if n > 1 and looks[i].loss is not None and _counted(looks[i])]
        if not able:
            return None
        # The smallest batch that still tells much.
        large = [i for i in able if counts[i] >= 8]
        index = min(large, key=lambda i: counts[i]) if large else max(able, key=lambda i: counts[i])
        count = counts[index]
        first = max(1, count // 3)
        part = self._joined([(index, range(first))])
        rest = self._joined([(index, range(first, count))])
        if part is None or rest is None:
            return None
        doubled = self._joined([(index, range(first)), (index, range(first))])
        return index, self.batches[index], part, rest, doubled, (count, first, count - first)

    def _united(self) -> Any:
        usable = [i for i, look in enumerate(self.looks) if look.loss is not None and self.reading.counts[i]]
        if len(usable) < 2:
            return None
        one, other = usable[:2]
        whole, doubled = self._joined([(one, None), (other, None)]), self._joined([(one, None), (one, None)])
        if whole is None:
            return None
        sizes = (self.reading.counts[one], self.reading.counts[other])
        return one, whole, self.batches[one], self.batches[other], doubled, (sum(sizes), *sizes)

    def _doubled(self) -> Any:
        index = next((i for i, look in enumerate(self.looks) if look.loss is not None), None)
        if index is None:
            return None
        doubled, count = self._joined([(index, None), (index, None)]), self.reading.counts[index]
        return doubled and (index, self.batches[index], self.batches[index], None, doubled, (count, count, 0))

    def _joined(self, chosen: Sequence[tuple[int, range | None]]) -> Any:
        """Make a batch of examples of the batches, by their tensors or by the loader's own collation."""
        samples = getattr(self.drawn, "samples", [])
        able = all(index < len(samples) and len(samples[index]) == self.reading.counts[index] for index, _ in chosen)
        if able and any(outside(self.batches[index], self.reading.plan) is not None for index, _ in chosen):
            items = [samples[i][k] for i, part in chosen for k in (range(len(samples[i])) if part is None else part)]
            try:
                return self.cast(self.drawn.collate(items))  # type: ignore[attr-defined]
            except Exception:  # a collation of the user's may ask for full batches
                return None
        plan = self.reading.plan
        if not plan:
            return None
        try:
            cut = [self.batches[i] if part is None else take(self.batches[i], plan, part) for i, part in chosen]
            return cut[0] if len(cut) == 1 else join(cut, plan)
        except (ValueError, RuntimeError, TypeError, IndexError):
            return None


def _divided(pool: Sequence[tuple[int, range]], size: int) -> tuple[list[tuple[int, range]], list[tuple[int, range]]]:
    """Divide chosen examples into the first `size` and the others."""
    first: list[tuple[int, range]] = []
    others: list[tuple[int, range]] = []
    for index, part in pool:
        taken = min(size, len(part))
        size -= taken
        first += [(index, part[:taken])] if taken else []
        others += [(index, part[taken:])] if taken < len(part) else []
    return first, others


def _counted(look: Look) -> bool:
    """Whether something in a batch counts: a loss that is a number."""
    return look.loss is not None and look.loss == look.loss


def _close(value: float | None, expected: float, tol: float, *others: float) -> bool:
    if value is None:
        return False
    scale = max(abs(value), abs(expected), *(abs(other) for other in others))
    return abs(value - expected) <= tol * scale


def disturbed(vector: torch.Tensor, layout: Any, seed: int) -> torch.Tensor:
    """Return the parameters with noise of a third of each tensor's root mean square added, shape (P,)."""
    generator = torch.Generator().manual_seed(seed)
    other = vector.clone()
    for part in layout.unflatten(other):
        rms = float(part.double().square().mean().sqrt()) if part.numel() else 0.0
        noise = torch.randn(part.shape, generator=generator, dtype=torch.float32)
        part.add_(noise.to(part), alpha=0.3 * rms + 0.01)
    return other


def tolerance(dtype: torch.dtype, device: torch.device) -> float:
    """Return how far losses of equal value may differ by rounding, relative to their size."""
    if dtype == torch.float64:
        return 1e-8
    return 2e-5 if device.type == "cpu" else 3e-4


def require_number(weight: Any, source: str, batch: Any) -> float:
    """Return what a user says a batch's loss divides by, as a number.

    Raises:
        MeasurementError: It is negative, not finite, or no number.
    """
    try:
        value = float(weight)
    except (TypeError, ValueError):
        value = float("nan")
    if not 0 <= value < float("inf"):
        raise MeasurementError(
            f"{source} gave {weight!r} for a batch of {_batches.n_examples(batch)} examples; expected what the loss of "
            "the batch divides by, a number of 0 or more"
        )
    return value
