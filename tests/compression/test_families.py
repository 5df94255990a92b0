"""What every family of codes must hold; a new one adds how it is built to `CASES`, and nothing else."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from landscape import MeasurementError
from landscape._layout import ParameterLayout
from landscape.compression import Code, decode, encode
from landscape.compression._entropy import Meter
from landscape.compression._families import FAMILIES, family_of


@dataclasses.dataclass(frozen=True)
class Case:
    """How a family is built: knobs from coarse to fine, and the relative error at the finest."""

    knobs: tuple[float, ...]
    finest_error: float = 2e-5


CASES = {
    "uniform-tensor": Case((3.0, 0.5, 0.05, 1e-3)),
    "uniform-channel": Case((3.0, 0.5, 0.05, 1e-3)),
    "codebook": Case((2, 3, 16, 200), finest_error=2e-3),
    "pruned": Case((2.0, 0.7, 0.1, 1e-3)),
    "svd": Case((3.0, 0.5, 0.05, 1e-3), finest_error=2e-4),
    "low-rank-grid": Case((3.0, 0.5, 0.05, 1e-3)),
}
families = pytest.mark.parametrize("family", FAMILIES)


def test_every_family_is_tested():
    assert list(CASES) == list(FAMILIES)


class EntropySink:
    """Adds up what no code of the same words can be shorter than: the entropies of the counts."""

    def __init__(self) -> None:
        self.bits = 0.0

    def uniform(self, values, width):
        self.bits += np.size(values) * width

    def adaptive(self, symbols, size):
        counts = np.unique(symbols, return_counts=True)[1]
        self.bits -= float((counts * np.log2(counts / max(len(symbols), 1))).sum())

    def static(self, symbols, weights, first=0):
        self.adaptive(symbols, len(weights))


def assert_exact(family: str, weights: dict[str, np.ndarray], knob: float) -> Code:
    """Decoded equals quantised in every bit; no length is below the entropy; tensors' shares add up."""
    codec = family_of(family)
    parts = codec.quantise(weights, knob)
    code = encode(weights, knob, family=family)
    decoded = decode(code)
    assert list(decoded) == list(weights)
    for restored, (name, array) in zip(codec.restore(parts), weights.items(), strict=True):
        assert decoded[name].dtype == array.dtype
        assert decoded[name].shape == array.shape
        assert decoded[name].tobytes() == restored.tobytes()
        assert np.isfinite(restored).all()
    entropy = EntropySink()
    codec.write(parts, entropy)
    assert code.ideal_bits >= entropy.bits - 1e-6
    assert code.bits >= entropy.bits - 1e-6
    assert code.ideal_bits - 64 <= code.bits <= 1.02 * code.ideal_bits + 64
    shares = [Meter() for _ in parts]
    for index, share in enumerate(shares):
        codec.write(parts[index : index + 1], share)
    assert math.fsum(share.bits for share in shares) == pytest.approx(code.ideal_bits, rel=1e-12)
    return code


def random_tensor(rng: np.random.Generator, kind: int) -> np.ndarray:
    shape = tuple(rng.integers(1, 9, rng.integers(0, 5)))
    scale = 10.0 ** rng.uniform(-38, 37)
    array = {
        0: lambda: rng.normal(size=shape) * scale,
        1: lambda: np.full(shape, scale),
        2: lambda: np.zeros(shape),
        3: lambda: rng.normal(size=(*shape, 0)),
        4: lambda: np.clip(rng.standard_cauchy(size=shape), -1e6, 1e6),
        5: lambda: rng.choice([1e30, -1e30, 1e-38, 1e-45, 0.0, -0.0], size=shape),
        6: lambda: rng.integers(-2, 3, size=shape) * 0.25,
        7: lambda: rng.choice([-1, 1, 0.3], size=shape) * np.finfo([np.float32, np.float64][kind % 2]).max,
        8: lambda: np.outer(rng.normal(size=7), rng.normal(size=5)),
    }[kind % 9]()
    return np.asarray(array).astype([np.float32, np.float64][kind % 2])


@families
def test_a_thousand_random_tensors(family):
    rng = np.random.default_rng(0)
    for start in range(0, 1000 // len(FAMILIES) + 1, 2):
        weights = {f"w{kind}": random_tensor(rng, kind) for kind in (start, start + 1)}
        assert_exact(family, weights, rng.choice(CASES[family].knobs))


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


@families
@settings(deadline=None, max_examples=40)
@given(weights=networks(), data=st.data())
def test_any_finite_weights(family, weights, data):
    assert_exact(family, weights, data.draw(st.sampled_from(CASES[family].knobs)))


def trained_like(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Layers with heavy tails, outstanding directions, silent channels, and biases."""
    kernel = rng.laplace(size=(16, 3, 3, 3)) * rng.lognormal(size=(16, 1, 1, 1))
    first = rng.normal(size=(150, 144)) + 3 * np.outer(rng.normal(size=150), rng.normal(size=144))
    first[40:100] = 0
    return {
        "0.weight": kernel.astype(np.float32),
        "0.bias": rng.normal(size=16).astype(np.float32),
        "1.weight": first.astype(np.float32),
        "1.bias": rng.normal(size=150).astype(np.float32),
        "2.weight": rng.laplace(size=(10, 150)),
    }


@families
@pytest.mark.parametrize("index", range(4))
def test_real_length_within_two_percent_and_64_bits_of_the_ideal_length(family, index):
    weights = trained_like(np.random.default_rng(0))
    assert sum(array.size for array in weights.values()) > 10_000
    assert_exact(family, weights, CASES[family].knobs[index])


@families
def test_at_the_coarsest_rung_nothing_is_left(family):
    rng = np.random.default_rng(0)
    spike = np.zeros((5, 50))
    spike[3, 7] = -7.5  # the largest ratio of an element to the root mean square
    weights = {"a": rng.standard_cauchy(size=(30, 20)), "b": spike, "c": np.ones(7), "d": np.ones((4, 4))}
    knob = family_of(family).ladder(ParameterLayout.of(list(weights.items())))[0]
    code = assert_exact(family, weights, knob)
    assert all((array == 0).all() for array in decode(code).values())
    assert code.ideal_bits == 2 * len(weights)
    assert code.bits <= 16


def errors_down_the_ladder(family: str, array: np.ndarray, octaves: bool) -> np.ndarray:
    codec = family_of(family)
    knobs = codec.ladder(ParameterLayout(("w",), (array.shape,)))
    assert (np.diff(knobs) < 0).all() or (np.diff(knobs) > 0).all()
    if octaves:
        passed = np.floor(np.abs(np.log2(knobs / knobs[0])) + 1e-9)
        knobs = knobs[np.flatnonzero(np.diff(passed, prepend=-1))]
    restored = [codec.restore(codec.quantise({"w": array}, float(knob)))[0] for knob in knobs]
    return np.array([np.linalg.norm(r - array) / np.linalg.norm(array) for r in restored])


@families
def test_the_error_falls_down_the_ladder(family):
    """Rung by rung but for 12 % of the error, where elements happen to lie well on the coarser grid."""
    rng = np.random.default_rng(1)
    for array in (rng.normal(size=(30, 20)), rng.laplace(size=200)):
        errors = errors_down_the_ladder(family, array, octaves=False)
        assert errors[0] == 1
        assert (errors[1:] <= 1.12 * errors[:-1]).all()
        assert errors[-1] <= CASES[family].finest_error


@families
def test_the_error_falls_from_octave_to_octave_whatever_the_tails(family):
    """But for 5 %, where one element is all of the error."""
    rng = np.random.default_rng(1)
    for array in (rng.standard_cauchy(size=(4, 5, 6)), rng.laplace(size=(40, 30))):
        errors = errors_down_the_ladder(family, array, octaves=True)
        assert errors[0] == 1
        assert (errors[1:] <= 1.05 * errors[:-1]).all()


@families
def test_finer_knobs_take_more_bits(family):
    weights = {"w": np.random.default_rng(0).normal(size=(50, 100)).astype(np.float32)}
    lengths = [encode(weights, knob, family=family).bits for knob in CASES[family].knobs]
    assert lengths == sorted(lengths)


@pytest.mark.slow
@families
def test_kraft_over_all_small_messages(family):
    """Every tensor of these shapes and elements, at every knob: prefix-free, and of sum at most 1."""
    for shape, most in [((1,), 4), ((3,), 2), ((2, 2), 1), ((1, 2), 2)]:
        elements = list(itertools.product(range(-most, most + 1), repeat=math.prod(shape)))
        payloads = {}
        for knob, values in itertools.product(CASES[family].knobs, elements):
            code = encode({"w": np.reshape(values, shape) * 0.5}, knob, family=family)
            payloads[code.payload] = code
        assert math.fsum(2.0**-code.bits for code in payloads.values()) <= 1
        assert math.fsum(2.0**-code.ideal_bits for code in payloads.values()) <= 1
        ordered = sorted(payloads)
        assert not any(second.startswith(first) for first, second in itertools.pairwise(ordered))


@pytest.fixture(scope="module")
def codes() -> dict[str, Code]:
    rng = np.random.default_rng(3)
    weights = {"weight": rng.normal(size=(20, 30)).astype(np.float32), "bias": rng.normal(size=20)}
    return {family: encode(weights, case.knobs[1], family=family) for family, case in CASES.items()}


@families
def test_every_truncation_is_told(codes, family):
    for length in range(len(codes[family].payload)):
        with pytest.raises(MeasurementError, match="damaged"):
            decode(dataclasses.replace(codes[family], payload=codes[family].payload[:length]))


@families
def test_bytes_too_many_are_told(codes, family):
    for tail in (b"\0", b"\xff", b"\0" * 40):
        with pytest.raises(MeasurementError, match="damaged"):
            decode(dataclasses.replace(codes[family], payload=codes[family].payload + tail))


@families
def test_a_flipped_bit_gives_other_weights_or_a_sentence(codes, family):
    code = codes[family]
    original = decode(code)
    told = []
    for bit in range(0, code.bits, 7):
        damaged = bytearray(code.payload)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            decoded = decode(dataclasses.replace(code, payload=bytes(damaged)))
        except MeasurementError as error:
            told.append(str(error))
        else:
            assert all(np.isfinite(array).all() for array in decoded.values())
            assert any(decoded[name].tobytes() != original[name].tobytes() for name in original)
    assert told
    assert all("damaged" in sentence for sentence in told)


@families
def test_random_bytes_never_crash(codes, family):
    rng = np.random.default_rng(0)
    for _ in range(300):
        payload = rng.bytes(int(rng.integers(0, 400)))
        with contextlib.suppress(MeasurementError):
            decode(dataclasses.replace(codes[family], payload=payload))


@families
def test_arrays_that_are_not_contiguous(family):
    array = np.random.default_rng(0).normal(size=(20, 30))
    for knob in CASES[family].knobs:
        copied, view = (encode({"w": a}, knob, family=family) for a in (np.ascontiguousarray(array.T), array.T))
        assert view.payload == copied.payload


@families
@pytest.mark.parametrize("factor", [5.0, 1 / 3, 1e-30, 1e30])
def test_a_tensor_s_bits_do_not_change_with_its_scale(family, factor):
    rng = np.random.default_rng(0)
    weights = {"weight": rng.normal(size=(12, 18)), "bias": rng.normal(size=13), "kernel": rng.normal(size=(5, 4, 3))}
    scaled = {name: array * factor for name, array in weights.items()}
    for knob in CASES[family].knobs:
        one, other = (encode(tensors, knob, family=family) for tensors in (weights, scaled))
        assert other.ideal_bits == pytest.approx(one.ideal_bits, rel=1e-9)


@families
@pytest.mark.parametrize("knob", [0.0, -1.0, float("nan"), float("inf")])
def test_a_knob_must_be_positive_and_finite(family, knob):
    with pytest.raises(ValueError, match=r"the knob \(.* is .*, expected a"):
        encode({"w": np.ones((2, 2))}, knob, family=family)


@families
def test_absolute_steps_are_for_one_family(family):
    with contextlib.nullcontext() if family == "uniform-tensor" else pytest.raises(ValueError, match="has no steps"):
        encode({"w": np.ones(2)}, steps=[0.5], family=family)
