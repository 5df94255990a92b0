"""Subspaces are the same everywhere: against a plain reference, in any order, and by pinned numbers."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from landscape._layout import ParameterLayout
from landscape.certificates._projection import Projection

LAYOUT = ParameterLayout(("weight", "bias", "kernel", "scalar"), ((4, 9), (4,), (2, 3, 2, 2), ()))
FACTORS = np.repeat([1 / 3, 1 / 2, 1 / math.sqrt(12), 1.0], [36, 4, 24, 1])


def raw_bits(seed: int, count: int) -> list[int]:
    words = np.random.Philox(key=seed).random_raw(-(-count // 64)).tolist()
    return [(word >> place) & 1 for word in words for place in range(64)][:count]


def test_the_generator_is_philox_as_published():
    # Random123's known answer for counter and key 0; numpy counts once before it answers, so it begins at -1.
    assert np.random.Philox(key=0, counter=2**256 - 1).random_raw(4).tolist() == [
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    ]


def test_a_dense_subspace_is_its_signs():
    projection = Projection(LAYOUT, 7, seed=5, taps=None)
    signs = 2 * np.array(raw_bits(5, 65 * 7)).reshape(65, 7) - 1
    assert np.array_equal(projection.signs, signs)
    theta = np.array([3, -2, 0, 1, -1, 2, -3])
    start = np.linspace(-1, 1, 65)
    expected = start + FACTORS / math.sqrt(7) * 0.375 * (signs @ theta)
    np.testing.assert_array_equal(projection.weights(start, theta, 0.375), expected)


def test_a_sparse_subspace_hears_so_many_coordinates():
    projection = Projection(LAYOUT, 50, seed=2, taps=3)
    matrix = np.zeros((65, 50), dtype=int)
    for signs, heard in zip(projection.signs, projection.heard, strict=True):
        for row in range(65):
            matrix[row, heard[row]] += signs[row]
    theta = np.arange(50) % 7 - 3
    expected = FACTORS / math.sqrt(3) * 0.5 * (matrix @ theta)
    np.testing.assert_array_equal(projection.weights(np.zeros(65), theta, 0.5), expected)
    assert projection.heard.min() >= 0
    assert projection.heard.max() < 50
    # The order in which signs and places are first asked for does not matter.
    other = Projection(LAYOUT, 50, seed=2, taps=3)
    assert np.array_equal(other.heard, projection.heard)
    assert np.array_equal(other.signs, projection.signs)


def test_without_a_dimension_every_weight_is_a_coordinate():
    projection = Projection(LAYOUT, None, seed=2, taps=None)
    theta = np.arange(65) - 30
    np.testing.assert_array_equal(projection.weights(np.zeros(65), theta, 2.0), FACTORS * 2.0 * theta)


def test_places_and_signs_are_even():
    projection = Projection(ParameterLayout(("w",), ((100_000,),)), 10, seed=0, taps=2)
    counts = np.bincount(projection.heard.ravel(), minlength=10)
    assert abs(counts / 20_000 - 1).max() < 0.03  # 4 standard deviations
    assert abs(projection.signs.mean()) < 0.01


@pytest.mark.parametrize(
    ("dimension", "taps", "digest"),
    [(16, None, "6ccc324717917517"), (16, 4, "057353b29dd98b41")],
)
def test_a_seed_gives_the_same_weights_for_ever(dimension, taps, digest):
    projection = Projection(LAYOUT, dimension, seed=12345, taps=taps)
    theta = np.arange(16) % 7 - 3
    weights = projection.weights(np.arange(65) / 64, theta, 0.0703125)
    assert hashlib.sha256(weights.astype("<f8").tobytes()).hexdigest()[:16] == digest
