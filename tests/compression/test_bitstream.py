"""decode(encode(weights)) is exact, the lengths are honest, and damage never crashes."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from landscape import MeasurementError
from landscape.compression import Code, decode, encode
from landscape.compression._grid import UniformTensor

GRID = UniformTensor()


def assert_exact(weights: dict[str, np.ndarray], knob: float) -> Code:
    """Decoded equals quantised in every bit, and no length is below the entropy of the integers."""
    parts = GRID.quantise(weights, knob)
    code = encode(weights, knob)
    decoded = decode(code)
    assert list(decoded) == list(weights)
    entropy = 0.0
    for part, (name, array) in zip(parts, weights.items(), strict=True):
        assert decoded[name].dtype == array.dtype
        assert decoded[name].shape == array.shape
        assert decoded[name].tobytes() == part.restore().tobytes()
        counts = np.unique(part.integers, return_counts=True)[1]
        entropy -= float((counts * np.log2(counts / max(array.size, 1))).sum())
    assert code.bits == 8 * len(code.payload)
    assert code.bits >= entropy
    assert code.ideal_bits >= entropy
    return code


@st.composite
def networks(draw):
    names = draw(st.lists(st.text(max_size=3), unique=True, max_size=4))
    weights = {}
    for name in names:
        dtype = draw(st.sampled_from([np.float32, np.float64]))
        finite = st.floats(allow_nan=False, allow_infinity=False, width=np.dtype(dtype).itemsize * 8)
        shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
        weights[name] = draw(hnp.arrays(dtype, shape, elements=finite))
    return weights


@settings(deadline=None)
@given(networks(), st.floats(2**-16, 1e4))
def test_round_trip_is_exact(weights, knob):
    assert_exact(weights, knob)


def random_tensor(rng: np.random.Generator, kind: int) -> np.ndarray:
    shape = tuple(rng.integers(1, 9, rng.integers(0, 4)))
    scale = 10.0 ** rng.uniform(-38, 37)
    array = {
        0: lambda: rng.normal(size=shape) * scale,
        1: lambda: np.full(shape, scale),
        2: lambda: np.zeros(shape),
        3: lambda: rng.normal(size=(*shape, 0)),
        4: lambda: np.clip(rng.standard_cauchy(size=shape), -1e6, 1e6),
        5: lambda: rng.choice([1e30, -1e30, 1e-38, 1e-45, 0.0, -0.0], size=shape),
        6: lambda: rng.integers(-2, 3, size=shape) * 0.25,
    }[kind % 7]()
    return np.asarray(array).astype([np.float32, np.float64][kind % 2])


def test_a_thousand_random_tensors():
    rng = np.random.default_rng(0)
    for kind in range(1000):
        assert_exact({"w": random_tensor(rng, kind)}, 2.0 ** rng.uniform(-16, 4))


@pytest.mark.parametrize("n", [10_000, 200_000])
@pytest.mark.parametrize("knob", [3.0, 0.5, 0.05, 1e-4])
def test_real_length_within_two_percent_and_64_bits_of_the_ideal_length(n, knob):
    rng = np.random.default_rng(0)
    weights = {"a": rng.laplace(size=n).astype(np.float32), "b": rng.normal(size=(7, 5)).astype(np.float32)}
    code = assert_exact(weights, knob)
    assert code.ideal_bits - 64 <= code.bits <= 1.02 * code.ideal_bits + 64


def test_all_zero_tensors_take_two_bits():
    code = assert_exact({f"w{i}": np.zeros((3, 4), dtype=np.float32) for i in range(12)}, 1.0)
    assert code.ideal_bits == 24
    assert code.bits == 32  # 24 bits, and the range coder's end


def test_kraft_over_an_enumerated_family():
    # All tensors with integers in -2..2 times 0.5, of each length up to 4; the layout is known to the decoder.
    for length in range(1, 5):
        codes = [
            encode({"w": np.array(q) * 0.5}, steps={"w": 0.5}) for q in itertools.product(range(-2, 3), repeat=length)
        ]
        assert len({code.payload for code in codes}) == 5**length
        assert math.fsum(2.0**-code.ideal_bits for code in codes) <= 1
        assert math.fsum(2.0**-code.bits for code in codes) <= 1
        ordered = sorted(code.payload for code in codes)
        assert not any(second.startswith(first) for first, second in itertools.pairwise(ordered))


def test_ideal_length_by_hand():
    # Type and zero flag 2, step 31, shift 6, zigzag(-1) = 1 in 6, size - 1 = 2 in 6 + 1, model 1; KT over {-1, 0, 1}.
    weights = {"w": np.array([0.5, -0.5, 0.0, 0.5], dtype=np.float32)}
    sequential = -math.log2((1 / 3) * (1 / 5) * (1 / 7) * (3 / 9))
    assert encode(weights, steps=[0.5]).ideal_bits == pytest.approx(2 + 31 + 6 + 6 + 7 + 1 + sequential, rel=1e-12)


def test_coarser_knobs_take_fewer_bits():
    weights = {"w": np.random.default_rng(0).normal(size=5000).astype(np.float32)}
    lengths = [encode(weights, 2.0**k).bits for k in range(-12, 5)]
    assert lengths == sorted(lengths, reverse=True)


def test_torch_tensors_and_half_precision():
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 3)
    expected = decode(encode({name: p.detach().numpy() for name, p in model.named_parameters()}, 0.1))
    decoded = decode(encode(dict(model.named_parameters()), 0.1))
    assert all((decoded[name] == expected[name]).all() for name in expected)
    halves = {"a": torch.randn(4, 5, dtype=torch.bfloat16), "b": np.ones(3, np.float16), "c": np.ones(3, ">f8")}
    assert [a.dtype for a in decode(encode(halves, 0.1)).values()] == [np.float32, np.float32, np.float64]


def test_non_contiguous_arrays():
    array = np.random.default_rng(0).normal(size=(20, 30))
    one, other = (decode(encode({"w": a}, steps=[0.1]))["w"] for a in (array, array.T))
    assert (other == one.T).all()


@pytest.fixture(scope="module")
def code() -> Code:
    rng = np.random.default_rng(3)
    return encode({"weight": rng.normal(size=(20, 30)).astype(np.float32), "bias": rng.normal(size=20)}, 0.3)


def test_a_code_put_together_from_its_payload_decodes(code):
    again = decode(Code(code.payload, code.layout))
    assert all((again[name] == array).all() for name, array in decode(code).items())


def test_every_truncation_is_told(code):
    for length in range(len(code.payload)):
        with pytest.raises(MeasurementError, match="damaged"):
            decode(dataclasses.replace(code, payload=code.payload[:length]))


def test_bytes_too_many_are_told(code):
    for tail in (b"\0", b"\xff", b"\0" * 40):
        with pytest.raises(MeasurementError, match="damaged"):
            decode(dataclasses.replace(code, payload=code.payload + tail))


def test_a_flipped_bit_gives_other_weights_or_a_sentence(code):
    original = decode(code)
    told = []
    for bit in range(0, code.bits, 3):
        damaged = bytearray(code.payload)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            decoded = decode(dataclasses.replace(code, payload=bytes(damaged)))
        except MeasurementError as error:
            told.append(str(error))
        else:
            assert any(decoded[name].tobytes() != original[name].tobytes() for name in original)
    assert told
    assert all("damaged" in sentence for sentence in told)


def test_random_bytes_never_crash(code):
    rng = np.random.default_rng(0)
    for _ in range(300):
        with pytest.raises(MeasurementError, match="damaged"):
            decode(dataclasses.replace(code, payload=rng.bytes(int(rng.integers(0, 400)))))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(bad):
    with pytest.raises(MeasurementError, match="tensor 'w' has 1 of 3 elements that are NaN or infinite"):
        encode({"w": np.array([0.0, bad, 1.0])}, 0.1)


@pytest.mark.parametrize("array", [np.arange(3), np.ones(3, complex), np.ones(3, bool), torch.arange(3)])
def test_weights_that_are_no_floats(array):
    with pytest.raises(TypeError, match="expected a floating-point type"):
        encode({"w": array}, 0.1)


def test_knob_or_steps():
    weights = {"w": np.ones(3)}
    with pytest.raises(TypeError, match="expected exactly one of them"):
        encode(weights)
    with pytest.raises(TypeError, match="expected exactly one of them"):
        encode(weights, 0.1, steps={"w": 0.1})
    with pytest.raises(TypeError, match="give it as `knob`"):
        encode(weights, steps=0.1)
    with pytest.raises(ValueError, match="there is no family 'zip'; expected one of: uniform-tensor"):
        encode(weights, 0.1, family="zip")
    assert encode(weights, steps=np.array([0.5])).payload == encode(weights, steps={"w": 0.5}).payload
