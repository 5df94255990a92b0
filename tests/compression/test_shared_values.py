"""The families "codebook" and "pruned": what is shared, what is left, and what that costs."""

from __future__ import annotations

import numpy as np
import pytest

from landscape._layout import ParameterLayout
from landscape.compression import decode, encode
from landscape.compression._codebook import Codebook
from landscape.compression._pruned import Pruned


def mean_square_error(family: str, array: np.ndarray, knob: float) -> float:
    return float(np.square(decode(encode({"w": array}, knob, family=family))["w"] - array).mean())


def test_levels_by_hand():
    weights = {"w": np.array([-1.0, -1.1, -0.9, 2.0, 2.0, 2.2, 1.8])}
    (part,) = Codebook().quantise(weights, 2)
    assert part.symbols.tolist() == [0, 0, 0, 1, 1, 1, 1]
    # Within half a unit, 1/16 of the distance of two levels in units of the root mean square.
    assert part.restore()[[0, 3]] == pytest.approx([-1.0, 2.0], abs=part.unit / 2 * 1.001)
    assert part.unit == pytest.approx(np.sqrt(np.square(weights["w"]).mean()) / 32)


@pytest.mark.parametrize(("levels", "distortion"), [(2, 0.3634), (4, 0.1175), (8, 0.03454), (16, 0.009497)])
@pytest.mark.parametrize("n", [3000, 200_000])
def test_gaussian_levels_are_those_of_lloyd_and_max(levels, distortion, n):
    """Max 1960, table I: the least mean square errors for a normal distribution."""
    array = np.random.default_rng(0).normal(size=n)
    slack = 0.1 if n == 3000 else 0.015
    assert mean_square_error("codebook", array, levels) == pytest.approx(distortion, rel=slack)


def test_few_different_values_are_kept():
    array = np.random.default_rng(0).choice([-0.3, 0.0, 0.7, 1.1], size=500)
    code = encode({"w": array}, 64, family="codebook")
    assert np.unique(decode(code)["w"]) == pytest.approx([-0.3, 0.0, 0.7, 1.1], abs=1e-3)
    assert code.ideal_bits < 500 * 2 + 63 + 100


def test_the_codebook_is_the_same_each_time():
    array = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    assert encode({"w": array}, 24, family="codebook").payload == encode({"w": array}, 24, family="codebook").payload


def test_the_ladder_of_levels():
    def ladder(size: int) -> list[float]:
        return Codebook().ladder(ParameterLayout(("w",), ((size,),))).tolist()

    assert ladder(13) == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 13]
    assert ladder(0) == ladder(1) == [1, 2]
    assert ladder(10**6)[-4:] == [320, 384, 448, 512]


@pytest.mark.parametrize("knob", [1.5, 2**14 + 1])
def test_levels_are_whole_numbers(knob):
    with pytest.raises(ValueError, match="expected a whole number from 1 to 16384"):
        encode({"w": np.ones(3)}, knob, family="codebook")


def test_what_is_pruned_by_hand():
    weights = {"w": np.array([0.1, -0.99, 1.01, -3.3, 0.0, 2.0])}
    scale = np.sqrt(np.square(weights["w"]).mean())
    (part,) = Pruned().quantise(weights, 1.0 / scale)
    assert part.step == pytest.approx(0.5)
    assert part.kept.tolist() == [0, 0, 1, 1, 0, 1]
    assert part.values.tolist() == [2, -7, 4]


def test_a_pruned_network_costs_little():
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(100, 100))
    sparse = np.where(rng.random((100, 100)) < 0.05, dense + np.sign(dense), 0.0)
    dense_bits, sparse_bits = (encode({"w": array}, 0.1, family="pruned").bits for array in (dense, sparse))
    assert (decode(encode({"w": sparse}, 0.1, family="pruned"))["w"] != 0).sum() == (sparse != 0).sum()
    # The support of 5 % takes 0.29 bits an element, what is left of it as much as of the dense one.
    assert sparse_bits < 0.3 * 10_000 + 0.06 * dense_bits + 500
    assert mean_square_error("pruned", sparse, 0.1) < 0.05 * (0.05**2 / 12) * np.square(sparse).mean() * 1.2
