"""Grids by channel: steps by hand, the neurons' scales, and networks whose neurons are rescaled."""

from __future__ import annotations

import numpy as np
import pytest

from landscape._errors import MeasurementError
from landscape._layout import ParameterLayout
from landscape.compression import Code, decode, encode
from landscape.compression._channel_grid import UniformChannel
from landscape.compression._channels import Scales, mantissa_bits
from landscape.compression._entropy import Encoder
from landscape.compression._integers import write_integers
from landscape.compression._scales import coarse, write_coarse, write_kind

FAMILY = UniformChannel()


def network(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A convolution, its flattened output into two layers, with biases."""
    return {
        "0.weight": rng.normal(size=(6, 1, 3, 3)),
        "0.bias": rng.normal(size=6),
        "1.weight": rng.laplace(size=(8, 6 * 4)),
        "1.bias": rng.normal(size=8),
        "2.weight": rng.normal(size=(5, 8)),
        "2.bias": rng.normal(size=5),
    }


def rescaled(weights: dict[str, np.ndarray], first: np.ndarray, second: np.ndarray) -> dict[str, np.ndarray]:
    inputs = np.repeat(first, 4)
    return {
        "0.weight": weights["0.weight"] * first[:, None, None, None],
        "0.bias": weights["0.bias"] * first,
        "1.weight": weights["1.weight"] / inputs * second[:, None],
        "1.bias": weights["1.bias"] * second,
        "2.weight": weights["2.weight"] / second,
        "2.bias": weights["2.bias"],
    }


@pytest.mark.parametrize("knob", [1.5, 0.5, 0.03])
def test_neurons_may_be_rescaled_by_any_factors(knob):
    rng = np.random.default_rng(0)
    weights = network(rng)
    first, second = 10.0 ** rng.uniform(-20, 20, 6), 10.0 ** rng.uniform(-20, 20, 8)
    one, other = encode(weights, knob, family="uniform-channel"), None
    other = encode(rescaled(weights, first, second), knob, family="uniform-channel")
    assert other.ideal_bits == pytest.approx(one.ideal_bits, rel=1e-12)
    # What is decoded is one function, though no scale is exact: the network of the one, rescaled, is the other.
    decoded, again = decode(one), decode(other)
    moved = np.abs(again["0.weight"]).sum((1, 2, 3)) / np.abs(decoded["0.weight"]).sum((1, 2, 3))
    assert moved == pytest.approx(first, rel=0.2)
    shifted = np.abs(again["1.weight"] * np.repeat(moved, 4)).sum(1) / np.abs(decoded["1.weight"]).sum(1)
    for name, array in rescaled(decoded, moved, shifted).items():
        assert again[name] == pytest.approx(array, rel=1e-12)


def test_steps_follow_the_channel_by_hand():
    weights = {"w": np.array([[3.0, -4.0, 5.0, 0.0], [300.0, 400.0, 0.0, -500.0], [0.0, 0.0, 0.0, 0.0]])}
    (part,) = FAMILY.quantise(weights, 0.5)
    # Root mean squares sqrt(12.5) and a hundred times that: 3 / (0.5 * 3.54) = 1.7 and so on.
    assert part.integers.tolist() == [2, -2, 3, 0, 2, 2, 0, -3, 0, 0, 0, 0]
    assert part.codes[2] == 0
    scales = Scales.of(part.codes, mantissa_bits(0.5), np.dtype(np.float64))
    roots = np.ldexp(scales.mantissas, scales.exponents)
    assert roots == pytest.approx(np.sqrt(12.5) * np.array([1, 100, 0]), rel=1 / 32)
    assert part.restore() == pytest.approx(np.reshape(part.integers, (3, 4)) * 0.5 * roots[:, None], rel=1e-15)


def test_a_scale_costs_the_same_whatever_it_is():
    rng = np.random.default_rng(0)
    array = rng.normal(size=(20, 30))
    one = encode({"w": array}, 0.5, family="uniform-channel")
    other = encode({"w": array * 10.0 ** rng.uniform(-100, 100, (20, 1))}, 0.5, family="uniform-channel")
    assert other.ideal_bits == one.ideal_bits


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("digits", [2, 7, 20])
def test_scales_keep_their_digits_over_the_whole_range(dtype, digits):
    limits = np.finfo(dtype)
    values = np.array([limits.smallest_subnormal, limits.tiny, 1.0, 1.999999, 2 / 3, limits.max / 2, 0.0], np.float64)
    mantissas, exponents = np.frexp(values)
    codes = Scales(2 * mantissas, np.where(values > 0, exponents - 1, 0).astype(np.int64)).coded(
        digits, np.dtype(dtype)
    )
    again = Scales.of(codes, digits, np.dtype(dtype))
    assert (codes < 1 << Scales.width(digits, np.dtype(dtype))).all()
    assert again.mantissas * 2.0 ** again.exponents.clip(-1074, 1023) == pytest.approx(values, rel=2.0 ** -(digits + 1))
    assert ((again.mantissas == 0) == (values == 0)).all()


def test_scales_out_of_range_are_left_where_they_are():
    # An input of 3e38 in units of a neuron of 1e-45 has no exponent; the tensor is then measured by itself.
    weights = {"a": np.float32([[3e38, 3e38], [1e-45, 1e-45]]), "b": np.float32([[3e38, 3e38], [3e38, -3e38]])}
    parts = FAMILY.quantise(weights, 0.1)
    assert parts[1].offered
    assert parts[1].neurons is None
    decoded = decode(encode(weights, 0.1, family="uniform-channel"))
    for name, array in weights.items():
        assert decoded[name] == pytest.approx(array, rel=0.1)


def test_knobs_have_eight_digits():
    assert coarse(0.5) == 0.5
    assert coarse(1 / 3) == pytest.approx(1 / 3, rel=2**-8)
    assert coarse(1e-60) > 0
    assert np.isfinite(coarse(1e60))


def test_channels_of_zeros_cost_a_flag():
    """An embedding of which few rows were ever trained: a flag a row, at its entropy, and no scales."""
    rng = np.random.default_rng(0)
    few = rng.normal(size=(100, 16)).astype(np.float32)
    table = np.zeros((20000, 16), dtype=np.float32)
    table[rng.choice(20000, 100, replace=False)] = few
    alone, among = (encode({"w": array}, 0.5, family="uniform-channel") for array in (few, table))
    share = 100 / 20000
    places = -20000 * (share * np.log2(share) + (1 - share) * np.log2(1 - share))
    # The integers' own places cost sixteen times as much: their alphabet knows nothing of rows.
    assert among.ideal_bits - alone.ideal_bits < 17 * places + 100
    assert among.ideal_bits < 20000
    assert (decode(among)["w"][table.any(axis=1)] != 0).any(axis=1).all()
    assert not decode(among)["w"][~table.any(axis=1)].any()


def test_a_stream_without_any_scale_is_refused():
    dtype = np.dtype(np.float32)
    encoder = Encoder()
    write_kind(encoder, dtype, False)
    write_coarse(encoder, 0.5)
    encoder.static(np.array([0]), np.array([255, 1]))
    encoder.uniform(np.zeros(3), Scales.width(mantissa_bits(0.5), dtype))
    write_integers(encoder, np.arange(12))
    with pytest.raises(MeasurementError, match="'w' announces weights, and all its scales are zero"):
        decode(Code(encoder.payload(), ParameterLayout(("w",), ((3, 4),)), "uniform-channel"))
