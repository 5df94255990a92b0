"""Evaluate the loss of cut and joined batches, which shows what it divides by.

A few examples of many batches are joined, divided into a part and a rest in several ways, and joined with themselves.
Losses are taken at the present weights and at disturbed ones: what a loss divides by does not depend on the weights.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from landscape._examples import Reading, outside
from landscape._pieces import join, take
from landscape._trials import Look, Trial

# A trial takes a few examples, of batches that are spread over all.
_MOST_BATCHES, _MOST_EXAMPLES = 16, 64
_WAYS = 3


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


def disturbed(vector: torch.Tensor, layout: Any, seed: int) -> torch.Tensor:
    """Return the parameters with noise of a third of each tensor's root mean square added, shape (P,)."""
    generator = torch.Generator().manual_seed(seed)
    other = vector.clone()
    for part in layout.unflatten(other):
        rms = float(part.double().square().mean().sqrt()) if part.numel() else 0.0
        noise = torch.randn(part.shape, generator=generator, dtype=torch.float32)
        part.add_(noise.to(part), alpha=0.3 * rms + 0.01)
    return other
