"""The fewest bits at an allowed rise of the loss: C_ε = min { bits(code) : L(decode(code)) <= L(w) + ε }."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from landscape._errors import MeasurementError
from landscape._given import of_objective
from landscape._results import Result
from landscape.compression._rungs import Rung, Rungs
from landscape.compression._tolerances import TOLERANCES, Floats, checked


@dataclasses.dataclass(frozen=True, eq=False)
class Bits(Result):
    """Bits against allowed loss rise: arrays with an entry for each tolerance, NaN where it was not reached.

    Attributes:
        tolerances: The tolerances as asked for: in nats, or as fractions of baseline - loss.
        allowed_rise: The tolerances in nats.
        bits: Length of the real stream that was decoded and measured: the complexity.
        ideal_bits: Its length under the probability model.
        bits_per_parameter: `bits` over the number of parameters: comparable within an architecture only.
        loss_rise: L(decoded w) - L(w), of the weights that the stream decodes to.
        loss_rise_stderr_sample: Its standard error over examples, from the rises of the batches; NaN if unknown.
        knob: The family's knob; for "uniform-tensor" the step in root mean squares of each tensor.
        reached: Whether there is a code within the tolerance.
        loss: The reference L(w), in nats.
        baseline: The loss with all weights zero, in nats.
        n_parameters: How many parameters are coded.
        n_evaluations: How often the loss was evaluated in all.
        family: The name of the family of codes.
        tensor_bits: The part of each tensor in `ideal_bits`, shape (tolerance, tensor).
        names: The tensors' names, shape (tensor,).
        sizes: How many parameters each has, shape (tensor,).
        rung_knob: The knobs of all codes whose loss was evaluated, coarse to fine, shape (rung,).
        rung_rise: The rise of the loss of each; infinite where it is no number.
        rung_ideal_bits: The ideal length of each; NaN for those that break every tolerance, which needs no length.
    """

    tolerances: Floats
    allowed_rise: Floats
    bits: Floats
    ideal_bits: Floats
    bits_per_parameter: Floats
    loss_rise: Floats
    loss_rise_stderr_sample: Floats
    knob: Floats
    reached: npt.NDArray[np.bool_]
    loss: float
    baseline: float
    n_parameters: int
    n_evaluations: int
    family: str
    tensor_bits: Floats
    names: npt.NDArray[np.str_]
    sizes: npt.NDArray[np.int64]
    rung_knob: Floats
    rung_rise: Floats
    rung_ideal_bits: Floats


@of_objective
def bits(
    objective: Any,
    family: str = "uniform-tensor",
    tolerances: Sequence[float] = TOLERANCES,
    *,
    relative: bool = False,
) -> Bits:
    """Find the fewest bits of a code whose decoded weights raise the loss by no more than each tolerance.

    C_ε = min over the family's knob of bits(code), subject to L(decode(code)) <= L(w) + ε. The knobs stand on a
    fixed ladder, which is bisected for each tolerance, guided by the law that the rise goes with the square of the
    step; the tolerances share the losses evaluated, five take about twenty. The search compares ideal lengths; for what
    it chose, the real stream is written and decoded. Where the decoded weights are, bit for bit, those whose loss the
    search evaluated, that is their loss; where they are not, it is evaluated anew.

    Only the trainable parameters are coded: buffers, such as BatchNorm's statistics, are left as they are and not
    counted. Beside the weights, the search holds two more copies of them, and what the family makes of one.

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
    asked = checked(tolerances)
    with objective.session():
        rungs = Rungs(objective, family)
        allowed = asked * _achieved(rungs) if relative else asked
        rungs.search(allowed)
        chosen: list[Rung | None] = [None] * len(allowed)
        shortest = None
        for index in np.argsort(allowed):
            # What keeps a tolerance keeps every larger one: so the real lengths never rise with the tolerance.
            found = rungs.realise(float(allowed[index]))
            if shortest is None or (found is not None and found.bits < shortest.bits):
                shortest = found
            chosen[index] = shortest

    def column(field: str) -> Floats:
        return np.array([math.nan if rung is None else getattr(rung, field) for rung in chosen], dtype=np.float64)

    layout = objective.layout
    missing = np.full(len(layout.names), math.nan)
    knobs, rises, lengths = rungs.measured()
    return Bits(
        tolerances=asked,
        allowed_rise=allowed,
        bits=column("bits"),
        ideal_bits=column("ideal_bits"),
        bits_per_parameter=column("bits") / layout.total,
        loss_rise=column("rise"),
        loss_rise_stderr_sample=column("rise_stderr_sample"),
        knob=column("knob"),
        reached=np.array([rung is not None for rung in chosen]),
        loss=rungs.loss,
        baseline=rungs.baseline,
        n_parameters=layout.total,
        n_evaluations=rungs.n_evaluations,
        family=family,
        tensor_bits=np.array([missing if rung is None else rung.tensor_bits for rung in chosen]),
        names=np.array(layout.names),
        sizes=np.array(layout.sizes),
        rung_knob=knobs,
        rung_rise=rises,
        rung_ideal_bits=lengths,
    )


def _achieved(rungs: Rungs) -> float:
    achieved = rungs.baseline - rungs.loss
    if not (math.isfinite(achieved) and achieved > 0):
        raise MeasurementError(
            f"the loss is {rungs.loss:.6g} and with all weights zero {rungs.baseline:.6g}: tolerances relative to the "
            "difference need a finite baseline above the loss; give tolerances in nats (relative=False)"
        )
    return achieved
