"""The two-part code: first the weights, rounded, then the labels by the network that they decode to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from landscape._errors import MeasurementError
from landscape._given import of_objective
from landscape._results import Result
from landscape.compression import bits
from landscape.description._labels import Labels, joined, watch_labels

Floats = npt.NDArray[np.float64]

TOLERANCES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Allowed rises of the loss in nats, from nearly none to that of weights which are all zero."""


@dataclasses.dataclass(frozen=True, eq=False)
class TwoPart(Result):
    """Two-part code lengths of labels along a rate-distortion curve, and the shortest of them.

    Attributes:
        bits: The shortest length, code_bits + label_bits; NaN where no tolerance was reached.
        code_bits: Length of the decodable code of the weights in it.
        label_bits: Length of the labels under the decoded network in it.
        tolerance: The tolerance that gave it, the largest one of equals: the choice of minimum description length.
        uniform_bits: Length of the uniform code of the labels, n log2(classes); NaN where `classes` is not known.
        ratio: `bits` over `uniform_bits`; NaN where that is zero or not known.
        n_labels: How many labels there are, n.
        classes: How many values a label can have; 0 where that is not known.
        assumption: What had to be taken on trust of the loss, empty where it was seen to be a mean −ln p.
        tolerances: Allowed rises of the loss, in nats, shape (tolerances,).
        curve_bits: The whole length at each tolerance, NaN where none was reached.
        curve_code_bits: That of the weights.
        curve_label_bits: That of the labels.
        loss: Mean loss of the network as it is, in nats.
        loss_rise: What the decoded weights add to it, at each tolerance.
        family: The name of the family of codes.
    """

    bits: float
    code_bits: float
    label_bits: float
    tolerance: float
    uniform_bits: float
    ratio: float
    n_labels: int
    classes: int
    assumption: str
    tolerances: Floats
    curve_bits: Floats
    curve_code_bits: Floats
    curve_label_bits: Floats
    loss: float
    loss_rise: Floats
    family: str


@of_objective
def two_part(
    objective: Any,
    family: str = "uniform-tensor",
    tolerances: Sequence[float] = TOLERANCES,
    *,
    n_labels: int | None = None,
    classes: int | None = None,
) -> TwoPart:
    """Measure how many bits send the labels as a code of the weights and then the labels under the decoded network.

    L(w, y | x) = bits(code) + n · NLL(decode(code)) / ln 2

    NLL is the mean loss in nats over all n labels, of weights that were really decoded. A finer code takes more bits
    and leaves fewer for the labels; the codes are those of the fewest bits at each tolerance, found by
    `landscape.compression.bits`, and the shortest sum is the choice of minimum description length. The receiver needs
    inputs, architecture and buffers; buffers are not counted.

    Args:
        objective: The loss over the labelled examples, a `landscape.Objective`: a mean negative log-likelihood.
        family: Name of the family of codes.
        tolerances: Allowed rises of the loss, positive, in nats.
        n_labels: How many labels the loss is a mean over, where it calls no loss function of torch; by default one an
            example. Of other losses it is counted.
        classes: How many values a label has, where the loss calls no loss function of torch.

    Returns:
        The shortest length with its parts, and the whole curve.

    Raises:
        MeasurementError: The loss is seen to be no mean −ln p of labels: a squared error, several losses, class
            weights, label smoothing, a penalty. Or as in `landscape.compression.bits`.

    Source: Rissanen 1978, "Modeling by shortest data description"; Blier and Ollivier 2018, arXiv:1802.07044, who find
    such codes of networks longer than the uniform code, where prequential ones are short.
    """
    with objective.session():
        seen = _seen(objective)
        curve = bits(objective, family, tolerances)
    assumption = ""
    if seen is None:
        n_labels = int(sum(objective.batch_sizes)) if n_labels is None else n_labels
        assumption = (
            f"the loss calls no loss function of torch: it is taken for the mean of −ln p over {n_labels} labels"
        )
    else:
        nll, n_labels, classes = seen
        # Labels have finite bits each, rounding included; further terms of a loss are larger than this.
        if not math.isclose(nll, curve.loss, rel_tol=1e-3, abs_tol=1e-5):
            raise MeasurementError(
                f"the loss is {curve.loss:.6g} and the mean −ln p of its {n_labels} labels {nll:.6g}: it is no code "
                "length (class weights, label smoothing, or a further term such as a penalty); measure the plain "
                "cross-entropy"
            )
    labels = n_labels * (curve.loss + curve.loss_rise) / math.log(2)
    total = curve.bits + labels
    uniform = n_labels * math.log2(classes) if classes else math.nan
    reached = np.flatnonzero(~np.isnan(total))
    best = int(reached[::-1][np.argmin(total[reached[::-1]])]) if len(reached) else None
    shortest = math.nan if best is None else float(total[best])
    return TwoPart(
        bits=shortest,
        code_bits=math.nan if best is None else float(curve.bits[best]),
        label_bits=math.nan if best is None else float(labels[best]),
        tolerance=math.nan if best is None else float(curve.tolerances[best]),
        uniform_bits=uniform,
        ratio=shortest / uniform if uniform else math.nan,
        n_labels=n_labels,
        classes=classes or 0,
        assumption=assumption,
        tolerances=curve.tolerances,
        curve_bits=total,
        curve_code_bits=curve.bits,
        curve_label_bits=labels,
        loss=curve.loss,
        loss_rise=curve.loss_rise,
        family=family,
    )


def _seen(objective: Any) -> tuple[float, int, int] | None:
    """Watch the loss on every batch: mean −ln p, number of labels and of classes; None where nothing is called.

    Returns:
        The three, or None.

    Raises:
        MeasurementError: A loss is called that is no −ln p of labels, or several.
    """
    parameters = objective.layout.unflatten(objective.vector())
    found: list[Labels] = []
    with torch.no_grad():
        for index in range(len(objective.batches)):
            with watch_labels() as watcher:
                objective.batch_loss(index, parameters)
            if not watcher.calls:
                continue
            seen = [labels for _, labels in watcher.calls if labels is not None]
            if len(watcher.calls) > 1 or not seen:
                names = ", ".join(name for name, _ in watcher.calls)
                raise MeasurementError(
                    f"the loss is made of {names}, and only one cross_entropy, nll_loss or binary_cross_entropy is a "
                    "code length of labels; measure that alone"
                )
            found += seen
    if not found:
        return None
    labels = joined(found)
    return float(labels.nats.mean()), len(labels.nats), labels.classes
