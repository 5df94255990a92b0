"""A network as few whole numbers: a point on a grid of a random subspace, or of all weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from landscape._errors import MeasurementError
from landscape._layout import ParameterLayout
from landscape._results import Result
from landscape.certificates._grids import GridTensor, read_step, step_at, write_step
from landscape.certificates._projection import Floats, Integers, Projection
from landscape.compression._entropy import Decoder, Sink

STARTS = ("initial", "zero")
LARGEST_DENSE = 2**26
"""Signs of a dense A."""

_LARGEST_SPARSE = 2**30
_LARGEST = 8
_WIDTH = 3  # of the largest level, which is 1 to 8


@dataclasses.dataclass(frozen=True)
class SubspaceCode(Result):
    """w = w0 + A θ with θ on levels −m, ..., m of one step: what `train_subspace` finds and `certify` codes.

    Attributes:
        start: w0: "initial", the parameters as the architecture constructs them under the seed, or "zero".
        seed: Of the construction, and of A.
        dimension: Length of θ; None where every weight is a coordinate (A the identity).
        taps: How many coordinates each weight hears; None for all of them.
        largest: m, 1 to 8.
        step: Index of the step.
        integers: θ in steps, shape (d,).
        others: Buffers and frozen parameters that are not as constructed, each on a grid of its own.
    """

    start: str
    seed: int
    dimension: int | None
    taps: int | None
    largest: int
    step: int
    integers: Integers = dataclasses.field(repr=False)
    others: Mapping[str, GridTensor] = dataclasses.field(default_factory=dict, repr=False)

    def settings(self) -> dict[str, Any]:
        """Return what the reader must know beside the stream: fixed before, or charged."""
        fixed = {"start": self.start, "seed": self.seed, "dimension": self.dimension, "taps": self.taps}
        return {"codec": "subspace", **fixed}

    def projection(self, layout: ParameterLayout) -> Projection:
        """Return the subspace of a network's trainable parameters."""
        return Projection(layout, self.dimension, self.seed, self.taps)

    def vector(self, projection: Projection, start: Floats) -> Floats:
        """Return the flat weights in float64, shape (P,)."""
        return projection.weights(start, self.integers, step_at(self.step))

    def write(self, sink: Sink) -> None:
        """Write m, the step and θ; the settings are known to the reader.

        Raises:
            ValueError: A coordinate is no level.
        """
        if self.integers.size and np.abs(self.integers).max() > self.largest:
            raise ValueError(
                f"a coordinate of {np.abs(self.integers).max()} steps is beyond the last of {self.largest}"
            )
        sink.uniform(self.largest - 1, _WIDTH)
        write_step(sink, self.step)
        sink.adaptive(self.integers + self.largest, 2 * self.largest + 1)


def read_subspace(source: Decoder, settings: Mapping[str, Any], layout: ParameterLayout) -> SubspaceCode:
    """Read what `SubspaceCode.write` wrote.

    Args:
        source: The stream.
        settings: As `SubspaceCode.settings` gave them.
        layout: The trainable parameters.

    Returns:
        The code, without its other tensors.
    """
    fixed = require_settings(settings, layout)
    length = layout.total if fixed["dimension"] is None else fixed["dimension"]
    largest = int(source.uniform(1, _WIDTH)[0]) + 1
    step = read_step(source)
    integers = source.adaptive(length, 2 * largest + 1) - largest
    return SubspaceCode(**fixed, largest=largest, step=step, integers=integers)


def require_settings(settings: Mapping[str, Any], layout: ParameterLayout) -> dict[str, Any]:
    """Check the settings of a subspace, which may come from a file that somebody wrote.

    Args:
        settings: start, seed, dimension and taps by name.
        layout: The trainable parameters.

    Returns:
        These four.

    Raises:
        MeasurementError: One is not possible.
    """
    start, seed, dimension, taps = (settings.get(name) for name in ("start", "seed", "dimension", "taps"))
    if start not in STARTS:
        raise MeasurementError(f"start is {start!r}; expected one of {', '.join(STARTS)}")
    if not _is_whole(seed, 0, 2**63 - 1):
        raise MeasurementError(f"seed is {seed!r}; expected a whole number from 0 to 2^63 − 1")
    if dimension is not None and not _is_whole(dimension, 1, layout.total):
        raise MeasurementError(
            f"dimension is {dimension!r}; a subspace of {layout.total} weights has from 1 to {layout.total} dimensions"
        )
    if taps is not None and (dimension is None or not _is_whole(taps, 1, dimension)):
        raise MeasurementError(f"taps is {taps!r}; a weight hears from 1 to all of {dimension} coordinates")
    # A file that announces more than this would keep its reader busy for hours, or fill the memory.
    terms = 0 if dimension is None else dimension if taps is None else taps
    numbers, largest = terms * layout.total, LARGEST_DENSE if taps is None else max(_LARGEST_SPARSE, 8 * layout.total)
    if numbers > largest:
        raise MeasurementError(
            f"dimension {dimension} and taps {taps} of {layout.total} weights draw {numbers} signs, expected at most "
            f"{largest}; take fewer dimensions, or taps=8"
        )
    return {"start": start, "seed": seed, "dimension": dimension, "taps": taps}


def require_levels(levels: int) -> int:
    """Return m of a number of levels 2m + 1.

    Raises:
        ValueError: The number is not odd, or not between 3 and 17.
    """
    if levels not in range(3, 2 * _LARGEST + 2, 2):
        raise ValueError(f"levels is {levels}; expected an odd number from 3 to {2 * _LARGEST + 1}")
    return (levels - 1) // 2


def on_grid(theta: Any, largest: int) -> Integers:
    """Round coordinates in steps to levels."""
    return np.clip(np.rint(np.asarray(theta, dtype=np.float64)), -largest, largest).astype(np.int64)


def _is_whole(value: Any, least: int, largest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= largest
