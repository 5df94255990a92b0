"""Arrays of natural numbers: exact, prefix-free, near their entropy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from landscape import MeasurementError
from landscape.compression._entropy import Decoder, Encoder, Meter
from landscape.compression._lengths import kt_bits
from landscape.compression._naturals import naturals_bits, read_naturals, unzigzag, write_naturals, zigzag


def metered(values: np.ndarray) -> float:
    meter = Meter()
    write_naturals(meter, values)
    return meter.bits


@settings(deadline=None)
@given(
    hnp.arrays(np.int64, st.integers(0, 80), elements=st.integers(0, 2**52 - 1))
    | hnp.arrays(np.int64, st.integers(0, 80), elements=st.integers(0, 9))
)
def test_round_trip_and_closed_form(values):
    encoder = Encoder()
    write_naturals(encoder, values)
    assert read_naturals(Decoder(encoder.payload()), len(values)).tolist() == values.tolist()
    assert naturals_bits(values) == pytest.approx(metered(values), abs=1e-9)


def test_by_hand():
    # Lengths 0, 1, 2, 3, 3: which are above 0, of those above 1, above 2, above 3; then 1 + 2 + 2 digits.
    values = np.array([0, 1, 3, 4, 7])
    flags = kt_bits([1, 4]) + kt_bits([1, 3]) + kt_bits([1, 2]) + kt_bits([2, 0])
    assert metered(values) == pytest.approx(1 + flags + 5, rel=1e-12)
    # Forty times that: the median 120 has seven digits, of which the last five are written as they are.
    assert metered(40 * values) == pytest.approx(1 + 6 + 5 * 5 + metered(40 * values >> 5) - 1, rel=1e-12)


def test_many_small_ones_cost_about_their_entropy():
    values = np.random.default_rng(0).geometric(0.7, 5000) - 1
    entropy = -sum(p * math.log2(p) for p in (0.7 * 0.3**k for k in range(60)))
    elias = (2 * np.floor(np.log2(values + 1)) + 1).sum()
    assert 0.97 * 5000 * entropy < metered(values) < 1.06 * 5000 * entropy < 0.92 * elias


def test_zigzag_keeps_small_numbers_small():
    values = np.arange(-5, 6)
    assert sorted(zigzag(values)) == list(range(11))
    assert unzigzag(zigzag(values)).tolist() == values.tolist()


def test_integers_without_an_end_are_refused():
    encoder = Encoder()
    encoder.uniform(0, 1)
    for _ in range(60):
        encoder.adaptive(np.array([1]), 2)
    with pytest.raises(MeasurementError, match="integers of more than 52 binary digits"):
        read_naturals(Decoder(encoder.payload()), 1)
