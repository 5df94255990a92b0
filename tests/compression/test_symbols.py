"""The choice between the adaptive and the static model, and the static model's counts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landscape import MeasurementError
from landscape.compression._entropy import Decoder, Encoder, Meter
from landscape.compression._lengths import kt_bits, static_bits
from landscape.compression._naturals import write_naturals
from landscape.compression._symbols import choose, read_symbols, write_symbols


def bell(n: int, sigma: float, seed: int = 0) -> np.ndarray:
    values = np.rint(np.random.default_rng(seed).normal(0, sigma, n)).astype(np.int64)
    return values - values.min()


def entropy_bits(counts: np.ndarray) -> float:
    counts = counts[counts > 0]
    return float(counts.sum() * np.log2(counts.sum()) - counts @ np.log2(counts))


def coded(symbols: np.ndarray, size: int, shift: int = 0) -> tuple[bytes, float]:
    encoder, meter = Encoder(), Meter()
    for sink in (encoder, meter):
        write_symbols(sink, symbols, np.bincount(symbols >> shift, minlength=size), shift=shift)
    return encoder.payload(), meter.bits


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(0, 400), st.integers(0, 3), st.floats(0.1, 20), st.integers(0, 2**32 - 1))
def test_round_trip(size, count, shift, sigma, seed):
    symbols = np.minimum(bell(count, sigma, seed) if count else np.zeros(0, np.int64), (size << shift) - 1)
    payload, bits = coded(symbols, size, shift)
    assert read_symbols(Decoder(payload), count, size, shift=shift).tolist() == symbols.tolist()
    assert bits - 8 <= 8 * len(payload) <= bits + 24


@pytest.mark.parametrize(("n", "sigma"), [(300, 1), (3000, 5), (20_000, 20), (200_000, 40), (200_000, 0.3)])
def test_the_closed_form_is_the_length_that_is_written(n, sigma):
    symbols = bell(n, sigma)
    counts = np.bincount(symbols)
    payload, bits = coded(symbols, len(counts))
    assert bits == pytest.approx(choose(counts).bits, rel=1e-12)
    assert entropy_bits(counts) <= bits <= 8 * len(payload) <= 1.001 * bits + 64


def test_the_shorter_model_is_taken():
    few, many = np.bincount(bell(300, 1)), np.bincount(bell(20_000, 20))
    assert not choose(few).static
    assert choose(few).bits == 1 + kt_bits(few)
    assert choose(many).static
    assert choose(many).bits < kt_bits(many)
    # Half a logarithm of the length for each symbol, against a bit or two.
    assert kt_bits(many) - entropy_bits(many) > 1.5 * (choose(many).bits - entropy_bits(many))


def test_counts_rounded_by_their_roots_cost_less_than_a_bit_a_symbol():
    counts = np.bincount(bell(50_000, 12))
    roots = np.maximum(np.rint(np.sqrt(counts / 3)), counts > 0)
    assert 0 < static_bits(counts, roots**2) - entropy_bits(counts) < len(counts)


@pytest.mark.parametrize("n", [2**16, 10**6])
def test_a_long_sequence_is_static_within_the_hair(n):
    for symbols in (bell(n, 1), bell(n, 50), (np.arange(n) < 3).astype(np.int64), np.arange(n) % 2):
        counts = np.bincount(symbols)
        assert choose(counts).static
        assert choose(counts).bits <= 1 + kt_bits(counts) + 64


@pytest.mark.parametrize("n", [3000, 12_000, 100_000])
def test_the_order_of_the_symbols_does_not_matter(n):
    """Channels of zeros beside others, sorted, striped: within 2 % and 64 bits of a length that knows no order."""
    rng = np.random.default_rng(0)
    halves = np.where(np.arange(n) < n // 2, 0, rng.integers(0, 3, n))
    for symbols in (halves, np.sort(bell(n, 3)), np.arange(n) // 50 % 2, np.arange(n) % 7):
        payload, bits = coded(symbols, int(symbols.max()) + 1)
        assert bits - 64 < 8 * len(payload) < 1.02 * bits + 64
        encoder = Encoder()
        encoder.adaptive(symbols, int(symbols.max()) + 1)
        assert 8 * len(encoder.payload()) < 1.02 * kt_bits(np.bincount(symbols)) + 64


def test_kraft_over_all_short_sequences():
    for size, length in [(2, 7), (3, 5), (5, 3)]:
        payloads, ideal = [], 0.0
        for symbols in itertools.product(range(size), repeat=length):
            payload, bits = coded(np.array(symbols), size)
            payloads.append(payload)
            ideal += 2.0**-bits
        assert ideal <= 1
        assert math.fsum(2.0 ** (-8 * len(payload)) for payload in payloads) <= 1
        assert len(set(payloads)) == len(payloads)
        assert not any(second.startswith(first) for first, second in itertools.pairwise(sorted(payloads)))


@pytest.mark.parametrize("differences", [[0, 0, 0], [1, 2, 0], [2**50, 0, 0]])
def test_impossible_counts_are_refused(differences):
    # All zero; down to -1 + ...: zigzag 1 is -1; and far beyond any tensor.
    encoder = Encoder()
    encoder.uniform(1, 1)
    encoder.uniform(0, 1)
    write_naturals(encoder, np.array(differences))
    with pytest.raises(MeasurementError, match="counts of symbols that are negative, all zero or beyond any tensor"):
        read_symbols(Decoder(encoder.payload()), 10, 3)
