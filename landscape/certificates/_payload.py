"""A payload is one self-delimiting stream: which other tensors are coded, these, and the trained weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from landscape._errors import MeasurementError
from landscape.certificates._certificate import Certificate
from landscape.certificates._grids import GridTensor
from landscape.certificates._skeleton import Architecture, Skeleton, construct, difference
from landscape.certificates._subspace import SubspaceCode, read_subspace
from landscape.compression._bitstream import Code, decode
from landscape.compression._entropy import Decoder, Encoder, Sink, Witness

Arrays = dict[str, npt.NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class WeightsCode:
    """The trainable parameters by a family of `landscape.compression`, and other tensors on grids.

    Attributes:
        code: The parameters.
        seed: Seed under which the architecture constructs what is not coded.
        others: Buffers and frozen parameters that are not as constructed.
    """

    code: Code
    seed: int
    others: Mapping[str, GridTensor]

    def settings(self) -> dict[str, Any]:
        """Return what the reader must know beside the stream: fixed before, or charged."""
        return {"codec": "weights", "family": self.code.family, "seed": self.seed}


def payload_of(code: SubspaceCode | WeightsCode, skeleton: Skeleton) -> bytes:
    """Write a network.

    Args:
        code: The network.
        skeleton: What it is of.

    Returns:
        A stream that no other network's stream begins with, given the settings and the architecture.
    """
    encoder = Encoder()
    _write_others(encoder, code.others, skeleton)
    if isinstance(code, SubspaceCode):
        code.write(encoder)
        return encoder.payload()
    return encoder.payload() + code.code.payload


def tensors_of(code: SubspaceCode | WeightsCode, skeleton: Skeleton) -> Arrays:
    """Return the values that a code stands for, by name.

    Args:
        code: The network.
        skeleton: What it is of.

    Returns:
        Arrays of the parameters and of the other coded tensors.
    """
    return _tensors(code, skeleton)


def read_payload(settings: Mapping[str, Any], payload: bytes, skeleton: Skeleton) -> SubspaceCode | WeightsCode:
    """Read a network; what is read is written again and compared, so no byte is left over.

    Written again is each symbol under the model that it was read with: no choice that the writer made by comparing
    lengths is made anew, which another machine might round otherwise.

    Args:
        settings: As the code's `settings` gave them.
        payload: The stream.
        skeleton: The architecture.

    Returns:
        The network.

    Raises:
        MeasurementError: The stream or the settings are of no network of this architecture.
    """
    source = Witness(payload)
    others = _read_others(source, skeleton)
    code: SubspaceCode | WeightsCode
    if settings.get("codec") == "subspace":
        code = dataclasses.replace(read_subspace(source, settings, skeleton.layout), others=others)
        again = source.payload()
    elif settings.get("codec") == "weights":
        before = source.payload()
        code = _read_weights(settings, payload[len(before) :], others, skeleton)
        again = before + code.code.payload
    else:
        raise MeasurementError(f"the codec is {settings.get('codec')!r}; this toolkit knows 'subspace' and 'weights'")
    if again != payload:
        raise MeasurementError(
            f"the stream of {len(payload)} bytes is not the one of the network that it decodes to; it is damaged, or "
            "of another architecture"
        )
    return code


def used_names(code: SubspaceCode | WeightsCode, skeleton: Skeleton) -> set[str]:
    """Return the tensors whose constructed values decoding does **not** use."""
    coded = set(code.others)
    if not (isinstance(code, SubspaceCode) and code.start == "initial"):
        coded |= set(skeleton.parameters)
    return coded


def decoded(certificate: Certificate, architecture: Architecture) -> nn.Module:
    """Build the network that a certificate is of.

    Args:
        certificate: The certificate.
        architecture: What builds the network when called without arguments.

    Returns:
        The network, in eval mode, on the CPU.

    Raises:
        MeasurementError: It is another architecture, it constructs other values, or the stream is damaged.
    """
    return decode_payload(certificate.codec, certificate.payload, certificate.architecture, architecture)


def decode_payload(
    settings: Mapping[str, Any], payload: bytes, described: Mapping[str, Any], architecture: Architecture
) -> nn.Module:
    """Build a network from its stream.

    Args:
        settings: How the stream decodes.
        payload: The stream.
        described: The architecture that it was made for, as in `Certificate.architecture`.
        architecture: What builds the network when called without arguments.

    Returns:
        The network, in eval mode, on the CPU.

    Raises:
        MeasurementError: It is another architecture, it constructs other values, or the stream is damaged.
    """
    seed = settings.get("seed")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise MeasurementError(f"seed is {seed!r}; expected a whole number from 0 to 2^63 − 1")
    skeleton = construct(architecture, seed)
    differs = difference(described, skeleton.describe())
    if differs:
        raise MeasurementError(f"this is another architecture: {differs}")
    code = read_payload(settings, payload, skeleton)
    if skeleton.checksum(used_names(code, skeleton)) != described.get("constructed"):
        raise MeasurementError(
            "the architecture constructs other values than when the certificate was made (initial weights, frozen "
            "parameters or buffers that the payload leaves to it): it has changed, draws from a generator that is not "
            "seeded, or another version of torch draws otherwise"
        )
    return skeleton.load(_tensors(code, skeleton))


def _tensors(code: SubspaceCode | WeightsCode, skeleton: Skeleton) -> Arrays:
    arrays: Arrays = {name: grid.restore() for name, grid in code.others.items()}
    if isinstance(code, SubspaceCode):
        vector = code.vector(code.projection(skeleton.layout), skeleton.start(code.start))
        return arrays | skeleton.layout.named(vector)
    return arrays | decode(code.code)


def _read_weights(
    settings: Mapping[str, Any], payload: bytes, others: dict[str, GridTensor], skeleton: Skeleton
) -> WeightsCode:
    code = Code(payload, skeleton.layout, str(settings.get("family")))
    try:
        decode(code)
    except ValueError as error:
        raise MeasurementError(str(error)) from error
    return WeightsCode(code, int(settings.get("seed", 0)), others)


def _write_others(sink: Sink, coded: Mapping[str, GridTensor], skeleton: Skeleton) -> None:
    flags = np.array([name in coded for name in skeleton.others], dtype=np.int64)
    sink.adaptive(flags, 2)
    for name in skeleton.others:
        if name in coded:
            coded[name].write(sink)


def _read_others(source: Decoder, skeleton: Skeleton) -> dict[str, GridTensor]:
    flags = source.adaptive(len(skeleton.others), 2)
    return {
        name: GridTensor.read(source, tensor.numel())
        for (name, tensor), coded in zip(skeleton.others.items(), flags, strict=True)
        if coded
    }
