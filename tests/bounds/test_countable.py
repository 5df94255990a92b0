"""What holds of countable bounds whatever the numbers: order, monotonicity, refusals, no underflow."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from landscape.bounds import binary_kl, charge_bits, countable_bound, kl_inverse, prefix_free_bits
from landscape.bounds._binomial import log_tail

METHODS = ["hoeffding", "kl", "exact", "catoni"]
counts = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
lengths = st.floats(0, 1e5)
deltas = st.floats(1e-300, 0.5)


def bound(wrong, n, bits, delta, method="kl", choices=1):
    return countable_bound(error=wrong / n, n=n, bits=bits, delta=delta, method=method, choices=choices)


@settings(deadline=None, max_examples=60)
@given(counts, lengths, deltas)
@example((3, 1000), 20.0, 0.05)
def test_order(count, bits, delta):
    hoeffding, kl, exact, catoni = (bound(*count, bits, delta, method) for method in METHODS)
    assert count[0] / count[1] <= exact <= kl <= hoeffding <= 1
    assert kl <= catoni <= 1


@settings(deadline=None, max_examples=40)
@given(counts, lengths, deltas, st.sampled_from(METHODS), st.floats(0, 100), st.integers(1, 10**6))
def test_monotone(count, bits, delta, method, more_bits, choices):
    here = bound(*count, bits, delta, method)
    # Catoni's parameter is found by a search, which may stop a little elsewhere.
    allowed = 1e-9 if method == "catoni" else 0
    assert bound(*count, bits + more_bits, delta, method) >= here - allowed
    assert bound(*count, bits, delta / 2, method) >= here - allowed
    assert bound(*count, bits, delta, method, choices) >= here - allowed
    assert bound(min(count[0] + 1, count[1]), count[1], bits, delta, method) >= here - allowed
    # The same rate on more examples says more.
    assert bound(3 * count[0], 3 * count[1], bits, delta, method) <= here + allowed


@settings(deadline=None, max_examples=200)
@given(st.floats(0, 1), st.floats(1e-12, 800))
@example(0.0, 1e-9)
@example(1e-9, 1e-9)
@example(0.999999, 1e-5)
@example(0.5, 40.0)
def test_inverse_of_kl_is_rounded_up(q, c):
    p = kl_inverse(q, c)
    with mpmath.workdps(60):
        exact_q, exact_p = mpmath.mpf(q), mpmath.mpf(p)
        if p < 1:
            first = exact_q * mpmath.log(exact_q / exact_p) if q > 0 else mpmath.mpf(0)
            kl = first + (1 - exact_q) * mpmath.log((1 - exact_q) / (1 - exact_p))
            assert kl >= c
            # And close: a millionth nearer to q would no longer be.
            nearer = exact_q + (exact_p - exact_q) * (1 - mpmath.mpf(10) ** -6)
            first = exact_q * mpmath.log(exact_q / nearer) if q > 0 else mpmath.mpf(0)
            kl = first + (1 - exact_q) * mpmath.log((1 - exact_q) / (1 - nearer))
            assert kl < c or p - q < 1e-9


def test_kl_of_coins():
    assert binary_kl(0.25, 0.5) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5), rel=1e-14)
    assert binary_kl(0.3, 0.3) == 0
    assert binary_kl(0.0, 1.0) == math.inf
    assert binary_kl(1.0, 0.0) == math.inf
    np.testing.assert_allclose(binary_kl([0.0, 1.0], [0.5, 0.5]), math.log(2), rtol=1e-15)
    p = kl_inverse(np.array([0.0, 0.2]), np.array([[0.1], [0.7]]))
    np.testing.assert_allclose(binary_kl([0.0, 0.2], p), [[0.1, 0.1], [0.7, 0.7]], rtol=1e-12)


def exact_log_tail(wrong, n, p):
    with mpmath.workdps(60):
        tail, p = mpmath.mpf(0), mpmath.mpf(p)
        term = mpmath.binomial(n, wrong) * p**wrong * (1 - p) ** (n - wrong)
        for index in range(wrong, -1, -1):
            tail += term
            term *= index * (1 - p) / ((n - index + 1) * p)
            if term < tail * mpmath.mpf(10) ** -40:
                break
        return mpmath.log(tail)


@pytest.mark.parametrize(
    ("wrong", "n", "p"),
    [(0, 5, 0.3), (3, 10, 0.3), (3, 10, 0.99), (9, 10, 0.95), (600, 60_000, 0.048), (600, 60_000, 0.0101),
     (999, 1000, 0.9995), (15, 31, 0.9), (16, 40, 0.41), (10**5, 10**9, 2e-4), (10**8, 10**9, 0.11)],
)  # fmt: skip
def test_binomial_tail_against_sixty_digits(wrong, n, p):
    reference = exact_log_tail(wrong, n, p)
    found = log_tail(wrong, n, p)
    assert reference <= found <= reference + 1e-9 + 1e-8 * abs(float(reference))


def test_exact_inversion_is_rounded_up_and_close():
    for wrong, n, bits, delta in [
        (0, 1, 0, 0.5),
        (7, 20, 3.5, 0.1),
        (600, 60_000, 2000, 0.05),
        (1, 10**6, 5000, 1e-300),
    ]:
        p, nats = bound(wrong, n, bits, delta, "exact"), bits * math.log(2) - math.log(delta)
        assert exact_log_tail(wrong, n, p) <= -nats
        assert exact_log_tail(wrong, n, p * (1 - 1e-9)) > -nats


@pytest.mark.parametrize("method", METHODS)
def test_nothing_underflows(method):
    # A tail that underflows to 0 would make any error rate look certain.
    big = countable_bound(error=0.1, n=10**9, bits=1e7, delta=1e-300, method=method)
    assert 0.13 < big < 0.16
    assert countable_bound(error=0.1, n=1000, bits=1e7, delta=1e-300, method=method) == 1
    assert countable_bound(error=0.0, n=1, bits=0, delta=1e-300, method=method) > 1 - 1e-9
    assert countable_bound(error=1.0, n=10**9, bits=0, delta=0.5, method=method) == 1
    assert countable_bound(error=0.5, n=100, bits=math.inf, delta=0.5, method=method) == 1


def test_choices_cost_their_logarithm():
    assert charge_bits() == charge_bits(1) == 0
    assert charge_bits(8, [4, 2]) == pytest.approx(6, rel=1e-14)
    assert charge_bits(2**5000) == pytest.approx(5000, rel=1e-14)
    for method in METHODS:
        charged = bound(5, 200, 30.0, 0.05, method, [8, 4])
        assert charged == pytest.approx(bound(5, 200, 35.0, 0.05, method), rel=1e-8)


def test_prefix_free_lengths_satisfy_kraft():
    lengths = np.arange(200_000)
    overhead = np.array([prefix_free_bits(int(length)) for length in lengths]) - lengths
    # 2^C messages of C bits; beyond, Σ 1/C² < 1/(C − 1).
    total = math.fsum(2.0**-overhead) + 1 / (lengths[-1] - 1)
    assert total <= 1
    assert math.fsum(2.0 ** -np.zeros(2)) == 2  # without the overhead two lengths alone are too many
    assert prefix_free_bits(1000) == pytest.approx(1000 + 2 * math.log2(1000), rel=1e-14)
    assert prefix_free_bits(0) == prefix_free_bits(1) == prefix_free_bits(2) == pytest.approx(4, rel=1e-14)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"error": 1.2}, "error is 1.2; it must lie between 0 and 1"),
        ({"error": -0.1}, "error is -0.1"),
        ({"error": math.nan}, "error is nan"),
        ({"n": 0}, "n is 0; a bound needs at least one example"),
        ({"n": 10.5}, "n is 10.5; it must be a whole number"),
        ({"bits": -1.0}, "bits is -1.0; it must be a number, 0 at least"),
        ({"bits": math.nan}, "bits is nan"),
        ({"delta": 0.0}, "delta is 0.0; it must lie strictly between 0 and 1"),
        ({"delta": 1.0}, "delta is 1.0"),
        ({"delta": math.nan}, "delta is nan"),
        ({"method": "vapnik"}, "expected one of hoeffding, kl, exact, catoni"),
        ({"method": "exact", "error": 0.105}, "not a multiple of 1/100"),
        ({"choices": 0}, "choices has 0"),
        ({"choices": 2.5}, "choices is 2.5; it must be a whole number"),
    ],
)
def test_refusals_are_sentences(wrong, sentence):
    arguments = {"error": 0.1, "n": 100, "bits": 50.0, "delta": 0.05} | wrong
    with pytest.raises(ValueError, match=sentence):
        countable_bound(**arguments)


def test_a_message_has_whole_bits():
    with pytest.raises(ValueError, match="whole number"):
        prefix_free_bits(12.5)
    with pytest.raises(ValueError, match="message"):
        prefix_free_bits(-1)
