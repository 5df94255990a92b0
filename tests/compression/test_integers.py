"""Integer arrays through the stream: wide ranges, outliers, and damaged headers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from landscape import MeasurementError
from landscape.compression._entropy import Decoder, Encoder, Meter
from landscape.compression._integers import LARGEST_INTEGER, read_integers, write_integers
from landscape.compression._lengths import kt_bits
from landscape.compression._naturals import read_natural, write_natural
from landscape.compression._symbols import MAX_ALPHABET


def ideal(integers: np.ndarray) -> float:
    meter = Meter()
    write_integers(meter, integers)
    return meter.bits


@given(st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 20), max_size=8))
def test_naturals_round_trip(values):
    encoder, meter = Encoder(), Meter()
    for value in values:
        write_natural(encoder, value)
        write_natural(meter, value)
    decoder = Decoder(encoder.payload())
    assert [read_natural(decoder) for _ in values] == values
    assert meter.bits == sum(6 + max(value.bit_length() - 1, 0) for value in values)


@settings(deadline=None)
@given(
    hnp.arrays(np.int64, st.integers(1, 200), elements=st.integers(-LARGEST_INTEGER, LARGEST_INTEGER))
    | hnp.arrays(np.int64, st.integers(1, 200), elements=st.integers(-20, 3))
)
def test_integers_round_trip(integers):
    encoder = Encoder()
    write_integers(encoder, integers)
    decoder = Decoder(encoder.payload())
    assert (read_integers(decoder, len(integers)) == integers).all()


@pytest.mark.parametrize("scale", [3, 300, 10**5, 10**9, 2**51])
def test_real_length_is_close_to_the_ideal_length(scale):
    integers = np.rint(np.random.default_rng(0).normal(0, scale / 8, 20_000)).astype(np.int64)
    encoder = Encoder()
    write_integers(encoder, integers)
    assert ideal(integers) - 64 < 8 * len(encoder.payload()) < 1.02 * ideal(integers) + 64
    assert (read_integers(Decoder(encoder.payload()), len(integers)) == integers).all()


def test_a_wide_range_does_not_pay_for_its_alphabet():
    # Hardly a value comes twice, so nothing is learned of single ones; of their high parts, the bell is.
    integers = np.rint(np.random.default_rng(0).normal(0, 1000, 400)).astype(np.int64)
    learned = kt_bits(np.bincount(integers - integers.min()))
    differential = 400 * np.log2(1000 * np.sqrt(2 * np.pi * np.e))
    assert differential < ideal(integers) < differential + 100 < learned


def test_an_outlier_beyond_the_largest_alphabet_is_coded():
    integers = np.zeros(1000, dtype=np.int64)
    integers[17] = 1000 * MAX_ALPHABET
    encoder = Encoder()
    write_integers(encoder, integers)
    assert (read_integers(Decoder(encoder.payload()), 1000) == integers).all()


def test_header_is_counted_to_the_bit():
    # Alphabet {-1, 0}: shift 6 bits, zigzag(-1) = 1 in 6, size - 1 = 1 in 6, the model 1, then the symbols.
    integers = np.array([-1, 0, -1, -1])
    assert ideal(integers) == pytest.approx(19 + kt_bits([3, 1]))


def test_an_impossible_alphabet_is_refused():
    encoder = Encoder()
    encoder.uniform(0, 6)
    write_natural(encoder, 0)
    write_natural(encoder, MAX_ALPHABET)
    with pytest.raises(MeasurementError, match=f"announces {MAX_ALPHABET + 1} symbols"):
        read_integers(Decoder(encoder.payload()), 10)
    encoder = Encoder()
    encoder.uniform(63, 6)
    write_natural(encoder, 12)
    write_natural(encoder, 5)
    with pytest.raises(MeasurementError, match="damaged"):
        read_integers(Decoder(encoder.payload()), 10)
