"""Low rank: exact products in any order, the rule of the rank, and families that find low-rank matrices."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from landscape import MeasurementError
from landscape._layout import ParameterLayout
from landscape.compression import _low_rank as module
from landscape.compression import decode, encode
from landscape.compression._entropy import Decoder, Encoder
from landscape.compression._low_rank import LowRank, as_matrix, decomposition, read_low_rank, write_low_rank
from landscape.compression._low_rank_grid import LowRankGrid
from landscape.compression._svd import TruncatedSVD


def low_rank(rng: np.random.Generator, rows: int, columns: int, digits: list[int], largest: int) -> LowRank:
    return LowRank(
        rng.integers(-largest, largest, (rows, len(digits))),
        rng.integers(-largest, largest, (columns, len(digits))),
        np.array(digits, dtype=np.int64),
    )


def test_the_product_is_exact():
    rng = np.random.default_rng(0)
    part = low_rank(rng, 30, 20, [9, 9, 5, 0], 1000)
    left, right = part.left.astype(object), part.right.astype(object)
    exact = (left * [2 ** (9 - d) for d in (9, 9, 5, 0)]) @ right.T
    assert (part.product() * 2.0**9 == exact.astype(np.float64)).all()


@pytest.mark.parametrize("largest", [1000, 2**30, 2**51])
def test_the_product_does_not_depend_on_where_an_element_stands(largest):
    """A BLAS takes other paths at other places of a matrix; the sum of one element is one number."""
    part = low_rank(np.random.default_rng(1), 37, 53, [20, 11, 10, 3, 3, 0], largest)
    whole = part.product()
    for row, column in [(0, 0), (36, 52), (13, 7)]:
        single = LowRank(part.left[[row]], part.right[[column]], part.digits)
        assert single.product()[0, 0] == whole[row, column]
    assert (whole == LowRank(part.right, part.left, part.digits).product().T).all()


@pytest.mark.parametrize("shape", [(30, 20), (4, 50), (50, 2, 2)])
def test_round_trip(shape):
    rng = np.random.default_rng(2)
    part = low_rank(rng, shape[0], int(np.prod(shape[1:])), [9, 9, 4], 40)
    encoder = Encoder()
    write_low_rank(encoder, part)
    again = read_low_rank(Decoder(encoder.payload()), "w", shape)
    for field in ("left", "right", "digits"):
        assert (getattr(again, field) == getattr(part, field)).all()


def test_a_rank_above_the_sides_is_refused():
    encoder = Encoder()
    write_low_rank(encoder, low_rank(np.random.default_rng(0), 5, 5, [1] * 5, 3))
    with pytest.raises(MeasurementError, match="tensor 'w' of 5 by 4 elements has rank 5"):
        read_low_rank(Decoder(encoder.payload()), "w", (5, 4))


def test_directions_below_the_noise_are_left_out():
    # Singular values 80, 8 and 0.8 of a 100 by 100 matrix; noise of both factors 200 step^2 / 12.
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(100, 100)))[0] for _ in range(2))
    matrix = left[:, :3] * [80.0, 8.0, 0.8] @ right[:, :3].T
    scale = np.sqrt(np.square(matrix).mean())
    for step, rank in [(10.0, 1), (1.0, 2), (0.1, 3)]:
        (part,) = TruncatedSVD().quantise({"w": matrix}, step / scale)
        assert len(part.low_rank.digits) == rank
        error = np.square(part.restore() - matrix).sum()
        left_out = sum(value**2 for value in (80.0, 8.0, 0.8)[rank:])
        assert error == pytest.approx(rank * 200 * step**2 / 12 + left_out, rel=0.25)


def test_a_low_rank_matrix_costs_little():
    rng = np.random.default_rng(0)
    weights = {"w": (rng.normal(size=(120, 3)) @ rng.normal(size=(3, 100))).astype(np.float32)}
    lengths = {}
    for family in ("uniform-tensor", "svd", "low-rank-grid"):
        code = encode(weights, 0.1, family=family)
        lengths[family] = code.bits
        error = np.square(decode(code)["w"] - weights["w"]).mean() / np.square(weights["w"]).mean()
        assert error < 0.1**2 / 6
    assert lengths["svd"] < 0.2 * lengths["uniform-tensor"]
    assert lengths["low-rank-grid"] < 0.25 * lengths["uniform-tensor"]


def test_without_outstanding_directions_the_grid_is_all():
    weights = {"w": np.random.default_rng(0).normal(size=(80, 80))}
    (part,) = LowRankGrid().quantise(weights, 0.5)
    assert len(part.low_rank.digits) == 0
    one, other = (encode(weights, 0.5, family=family) for family in ("low-rank-grid", "uniform-tensor"))
    assert (decode(one)["w"] == decode(other)["w"]).all()
    assert one.ideal_bits - other.ideal_bits == 6  # the rank, 0


def test_a_few_outstanding_directions_are_taken_off_the_grid():
    rng = np.random.default_rng(0)
    spikes = 20 * rng.normal(size=(80, 2)) @ rng.normal(size=(2, 80)) / 9
    weights = {"w": rng.normal(size=(80, 80)) + spikes}
    (part,) = LowRankGrid().quantise(weights, 0.05)
    assert len(part.low_rank.digits) == 2
    error = part.restore() - weights["w"]
    assert np.square(error).mean() == pytest.approx(part.step**2 / 12, rel=0.05)
    one, other = (encode(weights, 0.05, family=family).bits for family in ("low-rank-grid", "uniform-tensor"))
    assert one < 0.9 * other


def test_a_decomposition_is_kept_for_as_long_as_its_array():
    array = np.random.default_rng(0).normal(size=(6, 5))
    first = decomposition(array)
    assert decomposition(array) is first
    array[0, 0] = 7.0
    changed = decomposition(array)
    assert changed is not first
    assert changed.left * changed.values @ changed.right.T == pytest.approx(as_matrix(array))
    key = id(array)
    assert key in module._known
    del array
    gc.collect()
    assert key not in module._known


def test_vectors_and_single_rows_are_on_the_grid():
    weights = {"row": np.ones((1, 9)), "column": np.ones((9, 1)), "vector": np.ones(4), "number": np.array(2.0)}
    layout = ParameterLayout.of(list(weights.items()))
    for family in (TruncatedSVD(), LowRankGrid()):
        parts = family.quantise(weights, float(family.ladder(layout)[-1]))
        assert [type(part).__name__ for part in parts] == ["GridTensor"] * 4
