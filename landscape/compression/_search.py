"""The fewest bits at an allowed rise of the loss: C_ε = min { bits(code) : L(decode(code)) <= L(w) + ε }."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from landscape._errors import MeasurementError
from landscape._results import Result
from landscape.compression._bitstream import decode, encode, ideal_bits
from landscape.compression._families import family_of
from landscape.compression._tensors import Array, float_arrays

Floats = npt.NDArray[np.float64]

TOLERANCES = (0.003, 0.01, 0.03, 0.1, 0.3)
"""The allowed rises of the loss at which compressibility is recorded, in nats."""

_FIRST_KNOB = 0.5  # where the search starts: about where trained networks begin to feel the grid


@dataclasses.dataclass(frozen=True, eq=False)
class Bits(Result):
    """Bits against allowed loss rise: arrays with an entry for each tolerance, NaN where it was not reached.

    Attributes:
        tolerances: The tolerances as asked for: in nats, or as fractions of baseline - loss.
        allowed_rise: The tolerances in nats.
        bits: Length of the real stream that was decoded and measured: the complexity.
        ideal_bits: Its length under the probability model.
        bits_per_parameter: `bits` over the number of parameters: comparable within an architecture only.
        loss_rise: L(decoded w) - L(w), evaluated anew from the decoded weights.
        knob: The family's knob; for "uniform-tensor" the step in root mean squares of each tensor.
        reached: Whether there is a code within the tolerance.
        loss: The reference L(w), in nats.
        baseline: The loss of the coarsest code, where every weight is zero, in nats.
        n_parameters: How many parameters are coded.
        n_evaluations: How often the loss was evaluated in all.
        family: The name of the family of codes.
    """

    tolerances: Floats
    allowed_rise: Floats
    bits: Floats
    ideal_bits: Floats
    bits_per_parameter: Floats
    loss_rise: Floats
    knob: Floats
    reached: npt.NDArray[np.bool_]
    loss: float
    baseline: float
    n_parameters: int
    n_evaluations: int
    family: str


def bits(
    objective: Any,
    family: str = "uniform-tensor",
    tolerances: Sequence[float] = TOLERANCES,
    *,
    relative: bool = False,
) -> Bits:
    """Find the fewest bits of a code whose decoded weights raise the loss by no more than each tolerance.

    C_ε = min over the family's knob of bits(code), subject to L(decode(code)) <= L(w) + ε. The knobs stand on a
    fixed geometric ladder, which is bisected for each tolerance, guided by the law that the rise goes with the
    square of the step; the tolerances share the losses evaluated, five take about thirty. The search compares
    ideal lengths; for what it chose, the real stream is written and decoded, and the loss is evaluated anew from
    the decoded weights.

    Only the trainable parameters are coded: buffers, such as BatchNorm's statistics, are left as they are and not
    counted. Beside the weights, the search holds three more copies of them and 64-bit integers for one.

    Args:
        objective: The loss as a function of the weights, a `landscape.Objective`.
        family: Name of the family of codes.
        tolerances: Allowed rises of the loss, positive, in nats (or fractions, see `relative`).
        relative: Whether the tolerances are fractions of baseline - loss, where the baseline is the loss with
            all weights zero: a fraction of all that the weights have achieved.

    Returns:
        The curve. A tolerance that even the finest knob misses has NaN bits and `reached` False. The bits
        never rise with the tolerance.

    Raises:
        MeasurementError: The loss or a weight is NaN or infinite, or relative tolerances have no finite
            baseline above the loss.
        ValueError: No tolerance is given, or one is not positive and finite, or the family is unknown.

    Where we differ: the loss is not strictly monotone in the knob. The knob found by the bisection has itself been
    measured to keep the tolerance, and the next coarser one to break it; a still coarser one may happen to keep
    it again, and is not looked for. So the bits are an upper bound on the family's minimum, and among all codes
    whose loss was evaluated there is no shorter one within the tolerance.
    """
    asked = np.asarray(tolerances, dtype=np.float64)
    if asked.ndim != 1 or asked.size == 0 or not (np.isfinite(asked).all() and (asked > 0).all()):
        raise ValueError(f"found tolerances {tolerances}, expected a sequence of at least one positive finite number")
    with objective.session():
        rungs = _Rungs(objective, family)
        allowed = asked * _achieved(rungs) if relative else asked
        for tolerance in allowed:
            rungs.search(float(tolerance))
        chosen: list[_Rung | None] = [None] * len(allowed)
        shortest = None
        for index in np.argsort(allowed):
            # What keeps a tolerance keeps every larger one: so the real lengths never rise with the tolerance.
            found = rungs.realise(float(allowed[index]))
            if shortest is None or (found is not None and found.bits < shortest.bits):
                shortest = found
            chosen[index] = shortest

    def column(field: str) -> Floats:
        return np.array([math.nan if rung is None else getattr(rung, field) for rung in chosen], dtype=np.float64)

    n_parameters = objective.layout.total
    return Bits(
        tolerances=asked,
        allowed_rise=allowed,
        bits=column("bits"),
        ideal_bits=column("ideal_bits"),
        bits_per_parameter=column("bits") / n_parameters,
        loss_rise=column("rise"),
        knob=column("knob"),
        reached=np.array([rung is not None for rung in chosen]),
        loss=rungs.loss,
        baseline=rungs.baseline,
        n_parameters=n_parameters,
        n_evaluations=rungs.n_evaluations,
        family=family,
    )


@dataclasses.dataclass(frozen=True)
class _Rung:
    knob: float
    bits: float
    ideal_bits: float
    rise: float


class _Rungs:
    """The ladder of knobs, coarse to fine, with what has been measured of it."""

    def __init__(self, objective: Any, family: str) -> None:
        self.n_evaluations = 0
        self._objective = objective
        self._codec = family_of(family)
        self._weights = objective.vector()
        self._arrays = float_arrays(objective.layout.named(self._weights))
        self._knobs = self._codec.ladder(objective.layout)
        self._rises: dict[int, float] = {}
        self._ideal: dict[int, float] = {}
        self._real: dict[int, _Rung] = {}
        self.loss = self._evaluate(None)
        if not math.isfinite(self.loss):
            raise MeasurementError(
                f"the loss at the present weights is {self.loss}, expected a finite number: the bits at a tolerance "
                "are relative to it; check whether the training has diverged"
            )
        self.baseline = self._measure(0)
        self._measure(int(np.argmin(np.abs(np.log(self._knobs / _FIRST_KNOB)))))

    def search(self, tolerance: float) -> None:
        """Measure rungs until the coarsest one known to keep the tolerance stands next to one that breaks it."""
        beyond = len(self._knobs)  # stands for a rung finer than all, which keeps every tolerance
        for trial in itertools.count():
            good = min((rung for rung, rise in self._rises.items() if rise <= tolerance), default=beyond)
            bad = max((rung for rung in self._rises if rung < good), default=-1)
            if good - bad == 1:
                return
            # Every third trial halves the interval, so that a loss that follows no law is bisected all the same.
            guess = (good + bad) // 2 if trial % 3 == 2 else self._guess(bad, good, tolerance)
            self._measure(min(max(guess, bad + 1), good - 1))

    def realise(self, tolerance: float) -> _Rung | None:
        """Return the shortest of the measured codes that, written and decoded, keeps the tolerance."""
        kept = [rung for rung, rise in self._rises.items() if rise <= tolerance]
        for rung in sorted(kept, key=self._ideal.__getitem__):
            if rung not in self._real:
                code = encode(self._arrays, float(self._knobs[rung]), family=self._codec.name)
                rise = self._evaluate(decode(code)) - self.loss
                self._real[rung] = _Rung(float(self._knobs[rung]), code.bits, code.ideal_bits, rise)
            if self._real[rung].rise <= tolerance:
                return self._real[rung]
        return None

    def _guess(self, bad: int, good: int, tolerance: float) -> int:
        """Guess where the rise crosses the tolerance: ln rise is nearly linear in ln knob, of slope 2 to begin with."""
        above, below = self._rises[bad], self._rises.get(good, 0.0)
        if not math.isfinite(above):
            return (bad + good) // 2
        if below > 0:
            return round(bad + (good - bad) * math.log(above / tolerance) / math.log(above / below))
        octaves = math.log2(above / tolerance) / 2
        return round(bad + octaves / math.log2(self._knobs[0] / self._knobs[1]))

    def _measure(self, rung: int) -> float:
        parts = self._codec.quantise(self._arrays, float(self._knobs[rung]))
        self._ideal[rung] = ideal_bits(self._codec, parts)
        tensors = dict(zip(self._arrays, self._codec.restore(parts), strict=True))
        loss = self._evaluate(tensors)
        # A loss that is NaN or infinite at coarse weights breaks every tolerance.
        self._rises[rung] = loss - self.loss if math.isfinite(loss) else math.inf
        return loss

    def _evaluate(self, tensors: Mapping[str, Array] | None) -> float:
        self.n_evaluations += 1
        if tensors is None:
            return float(self._objective.loss(self._weights))
        flat = np.concatenate([tensors[name].ravel() for name in self._objective.layout.names])
        return float(self._objective.loss(self._weights.new_tensor(flat)))


def _achieved(rungs: _Rungs) -> float:
    achieved = rungs.baseline - rungs.loss
    if not (math.isfinite(achieved) and achieved > 0):
        raise MeasurementError(
            f"the loss is {rungs.loss:.6g} and with all weights zero {rungs.baseline:.6g}: tolerances relative to the "
            "difference need a finite baseline above the loss; give tolerances in nats (relative=False)"
        )
    return achieved
