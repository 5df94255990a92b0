"""Intrinsic dimension: the smallest random subspace in which a network learns nearly what it learns in all weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from landscape._given import check_batches
from landscape._results import Result
from landscape.certificates._certificate import best_of
from landscape.certificates._certify import certify
from landscape.certificates._examples import require_whole
from landscape.certificates._skeleton import Architecture
from landscape.certificates._training import train_subspace

Floats = npt.NDArray[np.float64]

DIMENSIONS = (10, 25, 50, 100, 200, 400)


@dataclasses.dataclass(frozen=True, eq=False)
class IntrinsicDimension(Result):
    """Trainings in random subspaces of several dimensions: an array entry for each, smallest first.

    Attributes:
        dimension: The smallest d whose accuracy is at least `share` of the baseline's; None where none is.
        dimensions: d, shape (m,).
        error: Error rate of the coded and decoded network on the examples.
        bits: Length of its stream.
        bound: The bound that follows for each alone, with nothing charged for having tried several.
        best_bound: The least of them with the choice of d charged.
        baseline_error: Error rate that accuracies are compared with.
        share: The share of accuracy that is asked for.
        seed: Of the construction and of the subspaces.
    """

    dimension: int | None
    dimensions: npt.NDArray[np.int64]
    error: Floats
    bits: Floats
    bound: Floats
    best_bound: float
    baseline_error: float
    share: float
    seed: int


def intrinsic_dimension(
    architecture: Architecture,
    batches: Iterable[Any],
    dimensions: Sequence[int] = DIMENSIONS,
    *,
    share: float = 0.9,
    baseline_error: float | None = None,
    seed: int = 0,
    delta: float = 0.05,
    **training: Any,
) -> IntrinsicDimension:
    """Train in random subspaces w0 + Aθ of growing dimension, and find the smallest that does nearly as well as all.

    d_share = min {d : 1 − error(d) ≥ share · (1 − baseline_error)}

    Each network is coded, and the errors are those of what its stream decodes to: so the same trainings give the curve
    of bits, and a bound, against d.

    Args:
        architecture: What builds the network when called without arguments.
        batches: The examples.
        dimensions: The d to try, each 1 to the number of weights.
        share: The share of the baseline's accuracy that is asked for, above 0 and up to 1.
        baseline_error: Error rate to compare with; by default that of all weights trained and coded likewise.
        seed: Of the construction and of the subspaces.
        delta: δ of the bounds.
        **training: Further arguments of `train_subspace`: levels, epochs, learning_rate, loss_fn, ...

    Returns:
        The curve, and the dimension.

    Raises:
        MeasurementError: A dimension is not possible, or the network cannot be certified.
        ValueError: No dimension is given, or a number is out of range.

    Source: Li et al. 2018, arXiv:1804.08838 (d_int90).

    Where we differ: accuracy is that of the decoded network on the training examples, where they take the validation
    accuracy of one in full precision; the projection has signs for entries, so that it can be drawn anywhere.
    """  # noqa: DOC502 - what trains raises the first
    tried = np.unique(np.asarray(dimensions, dtype=np.int64))
    if not tried.size:
        raise ValueError("dimensions is empty; give at least one, for example (10, 50, 200)")
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; it is a share of the baseline's accuracy, above 0 and up to 1")
    if baseline_error is not None and not 0 <= baseline_error <= 1:
        raise ValueError(f"baseline_error is {baseline_error}; an error rate lies between 0 and 1")
    check_batches(batches)
    require_whole(batches)
    held = list(batches)

    def claim(dimension: int | None) -> Any:
        code = train_subspace(architecture, held, dimension=dimension, seed=seed, delta=delta, **training)
        loss_fn = training.get("loss_fn")
        return certify(code, held, architecture=architecture, loss_fn=loss_fn, delta=delta)

    claims = [claim(int(dimension)) for dimension in tried]
    reference = claim(None).error if baseline_error is None else float(baseline_error)
    errors = np.array([one.error for one in claims])
    enough = np.flatnonzero(1 - errors >= share * (1 - reference))
    return IntrinsicDimension(
        dimension=int(tried[enough[0]]) if enough.size else None,
        dimensions=tried,
        error=errors,
        bits=np.array([one.bits for one in claims], dtype=np.float64),
        bound=np.array([one.bound for one in claims]),
        best_bound=best_of(claims, "dimension").bound,
        baseline_error=reference,
        share=share,
        seed=seed,
    )
