"""The ladder of a family's knobs, with what has been measured of it, and the bisection on it."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from landscape._errors import MeasurementError
from landscape._sampling_error import of_shares
from landscape.compression._bitstream import decode, encode
from landscape.compression._entropy import Meter
from landscape.compression._families import family_of, quantised
from landscape.compression._tensors import Array, float_arrays
from landscape.compression._tolerances import Floats

_LARGE = 1 << 20  # weights from which parts are made twice, so that those of one tensor are held at a time
_START = 0.4  # of the ladder's length: where trained networks begin to feel the grid, roughly


@dataclasses.dataclass(frozen=True, eq=False)
class Rung:
    """A code of the ladder that was written, decoded and measured.

    Attributes:
        knob: The family's knob.
        bits: Length of the stream.
        ideal_bits: Its length under the probability model.
        tensor_bits: The part of each tensor in that, shape (tensor,).
        rise: Rise of the loss with the decoded weights.
        rise_stderr_sample: Its standard error over examples; NaN where it is not known.
    """

    knob: float
    bits: float
    ideal_bits: float
    tensor_bits: Floats
    rise: float
    rise_stderr_sample: float


class Rungs:
    """The ladder of knobs, coarse to fine. The loss is evaluated once for the same weights.

    Attributes:
        knobs: The knobs.
        rises: The rise of the loss by number of the rung, infinite where the loss is no number.
        loss: L(w).
        baseline: The loss with all weights zero.
        n_evaluations: How often the loss was evaluated.
    """

    def __init__(self, objective: Any, family: str) -> None:
        """Measure both ends: the weights themselves and weights of zero, with the coarsest rung.

        Raises:
            MeasurementError: The loss or a weight is NaN or infinite.
        """
        self.n_evaluations = 0
        self.rises: dict[int, float] = {}
        self._objective = objective
        self._codec = family_of(family)
        self._weights = objective.vector()
        self._arrays = float_arrays(objective.layout.named(self._weights))
        self._flat = np.empty(objective.layout.total, dtype=np.result_type(*self._arrays.values()))
        self._places = objective.layout.named(self._flat)
        self.knobs = self._codec.ladder(objective.layout)
        self._losses: dict[bytes, tuple[float, torch.Tensor]] = {}
        self._lengths: dict[int, Floats] = {}
        self._real: dict[int, Rung] = {}
        self._largest = -math.inf
        self.loss, self._shares = self._loss_of(self._arrays)
        if not math.isfinite(self.loss):
            raise MeasurementError(
                f"the loss at the present weights is {self.loss}, expected a finite number: the bits at a tolerance "
                "are relative to it; check whether the training has diverged"
            )
        self._flat.fill(0)
        self.baseline, _ = self._loss()
        self._measure(0)

    def search(self, tolerances: Floats) -> None:
        """Measure rungs until, for each tolerance, the coarsest one known to keep it stands by one that breaks it."""
        self._largest = float(tolerances.max())
        start = int(_START * len(self.knobs))
        if start not in self.rises:
            self._measure(start)
        for tolerance in np.sort(tolerances):
            self._search(float(tolerance))

    def _search(self, tolerance: float) -> None:
        beyond = len(self.knobs)  # stands for a rung finer than all, which keeps every tolerance
        for trial in itertools.count():
            good = min((rung for rung, rise in self.rises.items() if rise <= tolerance), default=beyond)
            bad = max((rung for rung in self.rises if rung < good), default=-1)
            if good - bad == 1:
                return
            # Every third trial halves the interval, so that a loss that follows no law is bisected all the same.
            guess = (good + bad) // 2 if trial % 3 == 2 else self._guess(bad, good, tolerance)
            self._measure(min(max(guess, bad + 1), good - 1))

    def _guess(self, bad: int, good: int, tolerance: float) -> int:
        # The law: the rise goes with the square of the step, or of one over the number of levels, so ln rise with
        # twice the logarithm of the knob, whichever way that runs. It serves from one end; between two of which the
        # coarse one is not saturated, ln rise is interpolated.
        law = 2 * np.abs(np.log(self.knobs / self.knobs[0]))
        above, below = self.rises[bad], self.rises.get(good, 0.0)
        if below > 0:
            if math.isfinite(above) and math.log(above / below) > (law[good] - law[bad]) / 2:
                return round(bad + (good - bad) * math.log(above / tolerance) / math.log(above / below))
            return max(int(np.searchsorted(law, law[good] - math.log(tolerance / below))), (good + bad) // 2)
        if math.isfinite(above):
            return int(np.searchsorted(law, law[bad] + math.log(above / tolerance)))
        return (good + bad) // 2

    def realise(self, tolerance: float) -> Rung | None:
        """Return the shortest of the measured codes that keeps the tolerance when decoded; None without."""
        kept = [rung for rung, rise in self.rises.items() if rise <= tolerance]
        for rung in sorted(kept, key=lambda rung: float(self._length(rung).sum())):
            if rung not in self._real:
                self._real[rung] = self._written(rung)
            if self._real[rung].rise <= tolerance:
                return self._real[rung]
        return None

    def measured(self) -> tuple[Floats, Floats, Floats]:
        """Return knob, rise and ideal length of all measured rungs, coarse to fine; NaN where no length was needed."""
        order = sorted(self.rises)
        lengths = [float(self._lengths[rung].sum()) if rung in self._lengths else math.nan for rung in order]
        return self.knobs[order], np.array([self.rises[rung] for rung in order]), np.array(lengths)

    # ------------------------------------------------------------------ single rungs

    def _measure(self, rung: int) -> None:
        kept = []
        for names, parts in quantised(self._codec, self._arrays, float(self.knobs[rung])):
            for name, array in zip(names, self._codec.restore(parts), strict=True):
                self._places[name][...] = array
            if len(self._flat) < _LARGE:
                kept.append(parts)
        self.rises[rung], _ = self._rise(*self._loss())
        if self.rises[rung] <= self._largest:  # others are never chosen: nobody asks for their length
            self._lengths[rung] = self._metered(kept or self._parts(rung))

    def _written(self, rung: int) -> Rung:
        knob = float(self.knobs[rung])
        code = encode(self._arrays, knob, family=self._codec.name)
        rise, shares = self._rise(*self._loss_of(decode(code)))
        error = float(of_shares(self._objective.clusters, shares)) if math.isfinite(rise) else math.nan
        return Rung(knob, code.bits, code.ideal_bits, self._length(rung), rise, error)

    def _length(self, rung: int) -> Floats:
        if rung not in self._lengths:
            self._lengths[rung] = self._metered(self._parts(rung))
        return self._lengths[rung]

    def _parts(self, rung: int) -> Iterable[Sequence[Any]]:
        return (parts for _, parts in quantised(self._codec, self._arrays, float(self.knobs[rung])))

    def _metered(self, several: Iterable[Sequence[Any]]) -> Floats:
        """Return the ideal length of each tensor."""
        meter, ends = Meter(), []
        for parts in several:
            for index in range(len(parts)):
                self._codec.write(parts[index : index + 1], meter)
                ends.append(meter.bits)
        return np.diff(np.array(ends), prepend=0.0)

    def _rise(self, loss: float, shares: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Return the rise of the loss, and what each batch contributes to it."""
        # A loss that is NaN or infinite at coarse weights breaks every tolerance.
        return (loss - self.loss if math.isfinite(loss) else math.inf), shares - self._shares

    def _loss_of(self, tensors: Mapping[str, Array]) -> tuple[float, torch.Tensor]:
        for name, place in self._places.items():
            place[...] = tensors[name]
        return self._loss()

    def _loss(self) -> tuple[float, torch.Tensor]:
        """Return the loss at the weights in `_flat` with the batches' shares; of weights seen before, those."""
        digest = hashlib.blake2b(self._flat.data, digest_size=16).digest()
        if digest not in self._losses:
            self.n_evaluations += 1
            shares = self._objective.loss_shares(torch.from_numpy(self._flat).to(self._weights))
            self._losses[digest] = float(shares.sum().to(self._weights.dtype)), shares
        return self._losses[digest]
