"""What encode and decode take and refuse; what all families hold is in test_families.py."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from landscape import MeasurementError
from landscape.compression import Code, _integers, decode, encode


def test_all_zero_tensors_take_two_bits():
    weights = {f"w{i}": np.zeros((3, 4), dtype=np.float32) for i in range(12)}
    code = encode(weights, 1.0)
    assert code.ideal_bits == 24
    assert code.bits == 8 * len(code.payload) == 32  # 24 bits, and the range coder's end
    assert all((array == 0).all() for array in decode(code).values())


def test_ideal_length_by_hand():
    # Type and zero flag 2, step 31, shift 6, zigzag(-1) = 1 in 6, size - 1 = 2 in 6 + 1, model 1; KT over {-1, 0, 1}.
    weights = {"w": np.array([0.5, -0.5, 0.0, 0.5], dtype=np.float32)}
    sequential = -math.log2((1 / 3) * (1 / 5) * (1 / 7) * (3 / 9))
    assert encode(weights, steps=[0.5]).ideal_bits == pytest.approx(2 + 31 + 6 + 6 + 7 + 1 + sequential, rel=1e-12)


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


def test_decoding_chooses_nothing(monkeypatch):
    """Another machine may round two lengths that are nearly equal the other way; its streams decode all the same."""
    weights = {"w": np.random.default_rng(0).normal(size=500)}
    plain = encode(weights, 0.3)
    shorter = _integers.choose

    def otherwise(counts):
        return dataclasses.replace(shorter(counts), static=not shorter(counts).static)

    with monkeypatch.context() as patched:
        patched.setattr(_integers, "choose", otherwise)
        other = encode(weights, 0.3)
    assert other.payload != plain.payload
    assert (decode(other)["w"] == decode(plain)["w"]).all()


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
    with pytest.raises(
        ValueError, match="there is no family 'zip'; expected one of: codebook, low-rank-grid, pruned, svd"
    ):
        encode(weights, 0.1, family="zip")
    assert encode(weights, steps=np.array([0.5])).payload == encode(weights, steps={"w": 0.5}).payload
