"""Weights into bytes and back: `decode(encode(weights, ...))` gives the quantised weights, bit for bit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from landscape._errors import MeasurementError
from landscape._layout import ParameterLayout
from landscape._results import Result
from landscape.compression._entropy import Encoder, Meter, Witness
from landscape.compression._families import Family, family_of, quantised, restored
from landscape.compression._grid import UniformTensor
from landscape.compression._tensors import Array, float_arrays


@dataclasses.dataclass(frozen=True)
class Code(Result):
    """A network's weights as a stream of bytes that decodes without anything else but the architecture.

    Attributes:
        payload: The stream: scales, alphabets and integers of all tensors. Given the layout it is
            self-delimiting.
        layout: Names and shapes of the tensors: the architecture, which is not counted.
        family: The name of the family of codes.
        ideal_bits: Length of the message under its probability model, before rounding to whole bytes; NaN
            where the code was not made by `encode`.
    """

    payload: bytes
    layout: ParameterLayout
    family: str = "uniform-tensor"
    ideal_bits: float = math.nan

    @property
    def bits(self) -> int:
        """Length of the stream, in bits."""
        return 8 * len(self.payload)


def encode(
    weights: Mapping[str, Any],
    knob: float | None = None,
    *,
    steps: Mapping[str, float] | Sequence[float] | None = None,
    family: str = "uniform-tensor",
) -> Code:
    """Quantise weights and write them as a stream of bytes.

    In "uniform-tensor" each tensor w becomes round(w / step) · step with one step a tensor, step = knob ·
    rms(w). The other families are "uniform-channel" (a step for each output channel), "codebook" (a few values
    for each tensor, found by k-means), "pruned" (small weights zero), "svd" (singular directions above the noise of
    their rounded factors) and "low-rank-grid" (low rank, and a grid for what it leaves over). Everything that
    decoding needs, but names and shapes, is in the stream: scales, types, ranges, models, integers.

    Args:
        weights: Tensors by name, numpy or torch, float32 or float64 (half precisions are taken as float32).
            The order counts.
        knob: The family's one knob: the step in units of each tensor's or channel's root mean square, the
            larger the fewer bits; for "pruned" the threshold; for "codebook" the number of values, the larger the
            more bits.
        steps: Instead of the knob: the absolute step of each tensor, by name or in order, in the weights'
            unit; rounded to the tensor's type.
        family: Name of the family of codes.

    Returns:
        The code, with its length `.bits` and the ideal length `.ideal_bits`.

    Raises:
        MeasurementError: A weight is NaN or infinite.
        TypeError: Both or neither of `knob` and `steps` are given, or a tensor is not of a floating-point
            type.
        ValueError: A knob or step is not positive, or too fine; the family is unknown or has no steps.

    Example:
        >>> code = encode({"weight": np.float32([0.9, -0.1, 0.4])}, steps={"weight": 0.5})
        >>> decode(code)["weight"]
        array([1. , 0. , 0.5], dtype=float32)
    """
    codec = family_of(family)
    arrays = float_arrays(weights)
    layout = ParameterLayout.of(list(arrays.items()))
    encoder, meter = Encoder(), Meter()
    for parts in _quantised(codec, arrays, knob, steps):
        codec.write(parts, encoder)
        codec.write(parts, meter)
    return Code(encoder.payload(), layout, family, meter.bits)


def decode(code: Code) -> dict[str, Array]:
    """Read the quantised weights from a code.

    What was read is written again and compared with the stream: a stream that is cut short or has bytes too
    many is always noticed. A changed byte mostly gives another valid stream, hence other weights: there is no
    checksum.

    Args:
        code: As `encode` returned it, or put together from a stored payload and the network's layout.

    Returns:
        The tensors by name, float32 or float64 as they were encoded.

    Raises:
        MeasurementError: The stream is no network of this layout.
        ValueError: The family is unknown.
    """
    codec = family_of(code.family)
    source = Witness(code.payload)
    tensors = restored(codec, code.layout, source)
    expected = source.payload()
    if expected != code.payload:
        raise MeasurementError(
            f"the compressed stream is damaged: found {len(code.payload)} bytes where the weights that they decode "
            f"to take {len(expected)} bytes, or other ones; expected the whole payload of a Code, with the layout of "
            "the same network"
        )
    return dict(zip(code.layout.names, tensors, strict=True))


def _quantised(
    codec: Family,
    arrays: Mapping[str, Array],
    knob: float | None,
    steps: Mapping[str, float] | Sequence[float] | None,
) -> Iterator[Sequence[Any]]:
    """Yield the quantised parts, a few at a time."""
    if (knob is None) == (steps is None):
        raise TypeError(
            f"found knob={knob} and steps={steps}, expected exactly one of them: `knob` (a step relative to each "
            "tensor's root mean square) or `steps` (absolute, one a tensor)"
        )
    if steps is None:
        yield from (parts for _, parts in quantised(codec, arrays, float(knob)))  # type: ignore[arg-type]
        return
    if not isinstance(steps, Mapping) and np.ndim(steps) != 1:
        raise TypeError(
            f"found steps={steps}, expected absolute steps, one a tensor, by name or in order; a single number is the "
            "relative step: give it as `knob`"
        )
    if not isinstance(codec, UniformTensor):
        raise ValueError(f"the family '{codec.name}' has no steps; give its `knob`")
    yield codec.quantise_at(arrays, steps)
