"""Evaluate the loss of cut and joined batches, which shows what it divides by.

Cut a batch into a part and a rest. A mean over examples is the mean of the two, weighted with what each divides by. A
sum is their sum. A loss that compares the examples of a batch with each other is neither. Losses are taken at the
present weights and at disturbed ones: what a loss divides by does not depend on the weights.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from landscape import _batches
from landscape._errors import MeasurementError
from landscape._examples import Reading, join, outside, take
from landscape.losses import LossCounts

# Losses whose noise is fixed by a seed draw other numbers for other cuts: only a sum and a mean can be told apart.
NOISY = 0.25
PRECISE = 1e-8  # rounding of losses in float64
# A cut tells something about the divisors where the losses of part and rest differ by this many tolerances.
_TELLING = 20.0
# A trial takes a few examples, of batches that are spread over all.
_MOST_BATCHES, _MOST_EXAMPLES = 16, 64
_WAYS = 3


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
    _seen: dict[tuple[int, int], tuple[Any, Look | None]] = dataclasses.field(default_factory=dict)

    def trials(self, points: Sequence[int]) -> list[Trial]:
        """Cut some examples in several ways (or one batch, or join two) and evaluate the pieces at some points.

        Returns:
            A trial for each way and point where the loss is finite; none where no batch can be cut or joined.
        """
        pool = self._pool()
        ways = [] if pool is None else [self._divided(pool, way) for way in range(_WAYS)]
        for makers in (ways, [self._cut()], [self._united()], [self._doubled()]):
            found = [trial for made in makers if made is not None for trial in self._tried(made, points)]
            if found:
                return found
        return []

    def _tried(self, made: _Pieces, points: Sequence[int]) -> list[Trial]:
        found = []
        for point in points:
            looks = [self._look(piece, made.index, point) for piece in (made.whole, made.part, made.rest, made.twice)]
            whole, part, rest, twice = looks
            if whole is None or part is None or (rest is None and (made.rest is not None or twice is None)):
                return []
            once = whole if made.whole_twice else part
            trial = Trial(whole, part, rest, once, twice, made.sizes, made.way)
            if trial.finite:
                found.append(trial)
        return found

    def union(self, index: int, other: int, point: int) -> tuple[Look, Look, Look] | None:
        """Evaluate two batches and their union at a point; None where they cannot be joined."""
        joined = self._batches_joined([index, other])
        if joined is None:
            return None
        looks = [
            self._look(batch, at, point)
            for batch, at in ((joined, index), (self.batches[index], index), (self.batches[other], other))
        ]
        return None if any(look is None for look in looks) else (looks[0], looks[1], looks[2])  # type: ignore[return-value]

    def _look(self, batch: Any, index: int, point: int) -> Look | None:
        if batch is None:
            return None
        # The whole and its double belong to several trials.
        key = (id(batch), point)
        if key not in self._seen:
            look = None
            # A module that refuses pieces of a batch is no fault of its own: then there is nothing to compare.
            with contextlib.suppress(Exception):
                look = self.evaluate(batch, index, point)
            self._seen[key] = (batch, look)  # with the batch, so that nothing else gets its number
        look = self._seen[key][1]
        return look if look is not None and look.loss is not None else None

    def _pool(self) -> _Pool | None:
        """Take a few examples of many batches: only between batches does it matter what each of them divides by."""
        able = [i for i, look in enumerate(self.looks) if _counted(look) and self.reading.counts[i]]
        used = able[:: max(1, -(-len(able) // _MOST_BATCHES))]
        each = max(1, _MOST_EXAMPLES // max(len(used), 1))
        examples = [(i, k) for i in used for k in range(min(each, self.reading.counts[i]))]
        whole = self._joined(examples) if len(examples) > 1 else None
        return None if whole is None else _Pool(examples, whole, self._joined([*examples, *examples]))

    def _divided(self, pool: _Pool, way: int) -> _Pieces | None:
        """Divide the pool: by batches the first time, then at random, so that no pattern in the data deceives."""
        total = len(pool.examples)
        order = np.arange(total) if not way else np.random.default_rng(way).permutation(total)
        first = set(order[: max(1, total // 3)].tolist())
        part = self._joined([example for k, example in enumerate(pool.examples) if k in first])
        rest = self._joined([example for k, example in enumerate(pool.examples) if k not in first])
        if part is None or rest is None:
            return None
        sizes = (total, len(first), total - len(first))
        return _Pieces(pool.examples[0][0], pool.whole, part, rest, pool.twice, True, sizes, way)

    def _cut(self) -> _Pieces | None:
        counts = self.reading.counts
        able = [i for i, n in enumerate(counts) if n > 1 and _counted(self.looks[i])]
        if not able:
            return None
        # The smallest batch that still tells much.
        large = [i for i in able if counts[i] >= 8]
        index = min(large, key=lambda i: counts[i]) if large else max(able, key=lambda i: counts[i])
        everything = [(index, k) for k in range(counts[index])]
        first = max(1, counts[index] // 3)
        part, rest = self._joined(everything[:first]), self._joined(everything[first:])
        if part is None or rest is None:
            return None
        twice = self._joined(everything[:first] * 2)
        sizes = (counts[index], first, counts[index] - first)
        return _Pieces(index, self.batches[index], part, rest, twice, False, sizes)

    def _united(self) -> _Pieces | None:
        usable = [i for i, look in enumerate(self.looks) if look.loss is not None and self.reading.counts[i]]
        if len(usable) < 2:
            return None
        one, other = usable[:2]
        whole = self._batches_joined([one, other])
        if whole is None:
            return None
        sizes = (
            self.reading.counts[one] + self.reading.counts[other],
            self.reading.counts[one],
            self.reading.counts[other],
        )
        twice = self._batches_joined([one, one])
        return _Pieces(one, whole, self.batches[one], self.batches[other], twice, False, sizes)

    def _doubled(self) -> _Pieces | None:
        index = next((i for i, look in enumerate(self.looks) if look.loss is not None), None)
        if index is None:
            return None
        twice, batch, count = self._batches_joined([index, index]), self.batches[index], self.reading.counts[index]
        return None if twice is None else _Pieces(index, batch, batch, None, twice, False, (count, count, 0))

    def _batches_joined(self, indices: Sequence[int]) -> Any:
        return self._joined([(index, k) for index in indices for k in range(self.reading.counts[index])])

    def _joined(self, examples: Sequence[tuple[int, int]]) -> Any:
        """Make a batch of examples, given as (batch, number in it), by their tensors or by the loader's collation."""
        plan, samples = self.reading.plan, getattr(self.drawn, "samples", [])
        runs = [(index, [k for _, k in run]) for index, run in itertools.groupby(examples, key=lambda e: e[0])]
        able = all(index < len(samples) and len(samples[index]) == self.reading.counts[index] for index, _ in runs)
        if able and any(outside(self.batches[index], plan) is not None for index, _ in runs):
            try:
                return self.cast(self.drawn.collate([samples[i][k] for i, chosen in runs for k in chosen]))  # type: ignore[attr-defined]
            except Exception:  # a collation of the user's may ask for full batches
                return None
        if not plan:
            return None
        try:
            cut = [take(self.batches[index], plan, chosen) for index, chosen in runs]
            return cut[0] if len(cut) == 1 else join(cut, plan)
        except (ValueError, RuntimeError, TypeError, IndexError):
            return None


@dataclasses.dataclass(frozen=True)
class _Pool:
    """Examples of several batches, as (batch, number in it), joined, and joined twice."""

    examples: list[tuple[int, int]]
    whole: Any
    twice: Any


@dataclasses.dataclass(frozen=True)
class _Pieces:
    """The batches of a trial, the number of the batch that they come from, and the way in which they were cut."""

    index: int
    whole: Any
    part: Any
    rest: Any
    twice: Any
    whole_twice: bool
    sizes: tuple[int, int, int]
    way: int = 0


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
        return PRECISE
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
