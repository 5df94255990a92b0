"""The coder against sequential products, closed forms and enumeration."""

from __future__ import annotations

import contextlib
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landscape import MeasurementError
from landscape.compression._entropy import Decoder, Encoder, Meter
from landscape.compression._lengths import PIECE, frequencies, kt_bits


def gaussian_symbols(n: int, sigma: float, seed: int) -> np.ndarray:
    values = np.rint(np.random.default_rng(seed).normal(0, sigma, n)).astype(np.int64)
    return values - values.min()


def entropy_bits(symbols: np.ndarray) -> float:
    counts = np.unique(symbols, return_counts=True)[1]
    return float(-(counts * np.log2(counts / len(symbols))).sum())


def sequential_kt_probability(symbols: tuple[int, ...], size: int) -> Fraction:
    probability, counts = Fraction(1), [0] * size
    for n, symbol in enumerate(symbols):
        probability *= Fraction(2 * counts[symbol] + 1, 2 * n + size)
        counts[symbol] += 1
    return probability


@pytest.mark.parametrize(
    ("symbols", "size"), [((0, 1, 1, 2, 1, 0), 3), ((4,) * 9, 5), ((0, 1) * 10, 2), (tuple(range(7)), 100), ((), 4)]
)
def test_closed_form_is_the_sequential_product(symbols, size):
    expected = -math.log2(sequential_kt_probability(symbols, size))
    assert kt_bits(np.bincount(np.array(symbols, dtype=int), minlength=size)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", [0, 5, PIECE, PIECE + 1, 3 * PIECE + 777])
@pytest.mark.parametrize("size", [1, 2, 10, 64, 65, 500])
def test_frequencies_are_counts(n, size):
    symbols = np.random.default_rng(n).integers(0, size, n)
    for first in (0, -37, 10**12):
        assert (frequencies(symbols + first, size, first) == np.bincount(symbols, minlength=size)).all()


def test_closed_form_of_a_constant_binary_sequence():
    # prod (k - 1/2) / k = C(2n, n) / 4^n
    assert kt_bits([20, 0]) == pytest.approx(-math.log2(math.comb(40, 20) / 4**20), rel=1e-12)
    assert kt_bits([20]) == 0.0
    assert kt_bits([0, 0, 0]) == 0.0


@pytest.mark.parametrize(("size", "length"), [(2, 8), (3, 6), (5, 4)])
def test_kraft_the_lengths_of_all_sequences_are_a_distribution(size, length):
    lengths = [kt_bits(np.bincount(s, minlength=size)) for s in itertools.product(range(size), repeat=length)]
    assert math.fsum(2.0**-bits for bits in lengths) == pytest.approx(1.0, rel=1e-12)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60))
def test_length_is_at_least_the_empirical_entropy(symbols):
    assert kt_bits(np.bincount(symbols, minlength=10)) >= entropy_bits(np.array(symbols)) - 1e-9


def test_adaptive_code_beats_a_two_part_code_on_a_short_sequence():
    # The two-part code sends the counts: a composition of n into K parts, log2 C(n + K - 1, K - 1) bits.
    adaptive, two_part = [], []
    for seed in range(20):
        symbols = gaussian_symbols(250, 2.2, seed)
        counts = np.bincount(symbols)
        table = math.log2(math.comb(250 + len(counts) - 1, len(counts) - 1))
        adaptive.append(kt_bits(counts))
        two_part.append(entropy_bits(symbols) + table)
    assert 780 < np.mean(adaptive) < 860
    assert np.mean(two_part) - np.mean(adaptive) > 25


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 300), st.integers(0, 2**32 - 1))
def test_round_trip_whatever_bytes_follow(size, count, seed):
    rng = np.random.default_rng(seed)
    symbols = rng.integers(0, size, count)
    widths = rng.integers(0, 64, 3)
    values = [int(rng.integers(0, 2**62)) >> max(62 - int(width), 0) for width in widths]
    encoder = Encoder()
    encoder.uniform(values[0], int(widths[0]))
    encoder.adaptive(symbols, size)
    encoder.uniform([values[1]] * 3, int(widths[1]))
    encoder.uniform(values[2], int(widths[2]))
    for tail in (b"", b"\0" * 9, b"\xff" * 9, rng.bytes(9)):
        decoder = Decoder(encoder.payload() + tail)
        assert decoder.uniform(1, int(widths[0])).tolist() == [values[0]]
        assert decoder.adaptive(count, size).tolist() == symbols.tolist()
        assert decoder.uniform(3, int(widths[1])).tolist() == [values[1]] * 3
        assert decoder.uniform(1, int(widths[2])).tolist() == [values[2]]


def test_round_trip_where_the_end_carries_into_earlier_bytes():
    # Long runs of one bits put the interval next to a multiple of a high power of two.
    rng = np.random.default_rng(0)
    for _ in range(2000):
        values = np.where(rng.random(int(rng.integers(1, 40))) < 0.9, 2**16 - 1, rng.integers(0, 2**16))
        symbols = rng.choice([0, 0, 0, 2], int(rng.integers(0, 30)))
        encoder = Encoder()
        encoder.uniform(values, 16)
        encoder.adaptive(symbols, 3)
        for tail in (b"", b"\xff" * 12):
            decoder = Decoder(encoder.payload() + tail)
            assert decoder.uniform(len(values), 16).tolist() == values.tolist()
            assert decoder.adaptive(len(symbols), 3).tolist() == symbols.tolist()


def test_payloads_of_all_messages_are_prefix_free():
    payloads = set()
    for symbols in itertools.product(range(3), repeat=6):
        encoder = Encoder()
        encoder.adaptive(np.array(symbols), 3)
        payloads.add(encoder.payload())
    assert len(payloads) == 3**6
    assert math.fsum(2.0 ** (-8 * len(payload)) for payload in payloads) <= 1
    assert not any(a != b and b.startswith(a) for a in payloads for b in payloads)


def test_nothing_takes_no_bytes():
    encoder, meter = Encoder(), Meter()
    for sink in (encoder, meter):
        sink.adaptive(np.zeros(5, dtype=np.int64), 1)
        sink.uniform([0, 0], 0)
    assert encoder.payload() == b""
    assert meter.bits == 0


@pytest.mark.parametrize(("n", "sigma"), [(10_000, 2.0), (20_000, 40.0), (100_000, 0.3), (300_000, 900.0)])
def test_real_length_is_close_to_the_ideal_length(n, sigma):
    symbols = gaussian_symbols(n, sigma, seed=1)
    size = int(symbols.max()) + 1
    encoder, meter = Encoder(), Meter()
    encoder.adaptive(symbols, size)
    meter.adaptive(symbols, size)
    real = 8 * len(encoder.payload())
    assert entropy_bits(symbols) < meter.bits
    assert meter.bits - 64 < real < 1.002 * meter.bits + 64
    assert (Decoder(encoder.payload()).adaptive(n, size) == symbols).all()


def test_a_short_message_costs_at_most_two_bytes_over_the_ideal_length():
    for seed in range(200):
        symbols = gaussian_symbols(30, 2.0, seed)  # short enough for the counts to be renewed at each symbol
        size = int(symbols.max()) + 1
        encoder = Encoder()
        encoder.adaptive(symbols, size)
        assert 0 <= 8 * len(encoder.payload()) - kt_bits(np.bincount(symbols)) < 16


def test_static_symbols_from_any_first_one():
    symbols = gaussian_symbols(2 * PIECE + 5, 4.0, seed=2)
    weights = np.bincount(symbols)
    for first in (0, -3, 10**10):
        encoder, meter = Encoder(), Meter()
        for sink in (encoder, meter):
            sink.static(symbols + first, weights, first)
        assert meter.bits == pytest.approx(entropy_bits(symbols), rel=1e-12)
        assert meter.bits < 8 * len(encoder.payload()) < 1.001 * meter.bits + 64
        assert (Decoder(encoder.payload()).static(len(symbols), weights) == symbols).all()


def test_any_bytes_decode_or_are_refused_in_a_sentence():
    rng = np.random.default_rng(0)
    for _ in range(300):
        decoder = Decoder(rng.bytes(int(rng.integers(0, 20))))
        with contextlib.suppress(MeasurementError):
            assert decoder.adaptive(100, 3).max() < 3
            assert decoder.uniform(100, 20).max() < 2**20
    decoder = Decoder(b"\xff" * 12)
    with pytest.raises(MeasurementError, match="the compressed stream is damaged"):
        decoder.adaptive(1000, 3)
