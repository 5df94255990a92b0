"""Losses with two ends: smoothed bits per token, subsamples, and what has no bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landscape import MeasurementError
from landscape.bounds import (
    bits_per_token_bound,
    bounded_loss_bound,
    countable_bound,
    smoothed_bits,
    smoothed_range,
)

VOCABULARY = 50_257


def test_smoothed_bits_of_known_predictions():
    alpha = 0.1
    tokens = np.array([-np.inf, -math.log(VOCABULARY), 0.0, -1e4])
    expected = [math.log2(VOCABULARY / alpha), math.log2(VOCABULARY), -math.log2(1 - alpha + alpha / VOCABULARY)]
    found = smoothed_bits(tokens, VOCABULARY, alpha)
    np.testing.assert_allclose(found[:3], expected, rtol=1e-13)
    assert found[3] == pytest.approx(found[0], rel=1e-13)
    probability = 0.3
    plain = -math.log2((1 - alpha) * probability + alpha / VOCABULARY)
    assert smoothed_bits(math.log(probability), VOCABULARY, alpha) == pytest.approx(plain, rel=1e-13)


@settings(deadline=None)
@given(st.floats(1e-12, 1 - 1e-6), st.integers(2, 10**6), st.floats(-100, 0))
def test_range_of_smoothed_bits(alpha, vocabulary, log_probability):
    low, high = smoothed_range(vocabulary, alpha)
    assert low <= smoothed_bits(log_probability, vocabulary, alpha) <= high
    assert high - low == pytest.approx(math.log2(1 + (1 - alpha) * vocabulary / alpha), rel=1e-9)


def test_smoothed_predictions_are_a_distribution():
    logits = np.random.default_rng(0).normal(size=40)
    logs = logits - np.logaddexp.reduce(logits)
    assert np.exp2(-smoothed_bits(logs, 40, 0.2)).sum() == pytest.approx(1, rel=1e-13)


def test_formula_of_the_paper():
    loss, alpha, n, m, bits, delta = 6.0, 0.1, 8_000_000, 10_000, 5e5, 0.05
    spread = math.log2(1 + (1 - alpha) * VOCABULARY / alpha)
    settings = {"loss": loss, "vocabulary": VOCABULARY, "alpha": alpha, "n": n, "bits": bits, "delta": delta}
    whole = loss + spread * math.sqrt((bits * math.log(2) + math.log(1 / delta)) / (2 * n))
    assert bits_per_token_bound(**settings, method="hoeffding") == pytest.approx(whole, rel=1e-12)
    share = m / (n + m)
    part = (
        loss
        + spread * math.sqrt((bits * math.log(2) + math.log(1 / (share * delta))) / (2 * n))
        + spread * math.sqrt(math.log(1 / ((1 - share) * delta)) / (2 * m))
    )
    assert bits_per_token_bound(**settings, subsample=m, method="hoeffding") == pytest.approx(part, rel=1e-12)
    # The inverse of kl is tighter, and both are below what guessing takes.
    assert bits_per_token_bound(**settings, subsample=m) < part < math.log2(VOCABULARY)


def test_scale_of_bounded_losses():
    for method in ("kl", "hoeffding", "catoni"):
        unit = countable_bound(error=0.2, n=500, bits=40.0, delta=0.05, method=method)
        scaled = bounded_loss_bound(loss=-1.0, low=-3.0, high=7.0, n=500, bits=40.0, delta=0.05, method=method)
        assert scaled == pytest.approx(-3 + 10 * unit, rel=1e-9)
    assert bounded_loss_bound(loss=7.0, low=-3.0, high=7.0, n=500, bits=40.0, delta=0.05) == 7


def test_unbounded_losses_are_refused():
    for low, high in [(0.0, math.inf), (-math.inf, 1.0), (0.0, math.nan)]:
        with pytest.raises(MeasurementError, match="unbounded loss has no bound"):
            bounded_loss_bound(loss=0.5, low=low, high=high, n=100, bits=10.0, delta=0.05)
    with pytest.raises(ValueError, match="without smoothing there is no bound"):
        smoothed_range(VOCABULARY, 0.0)


def test_refusals_are_sentences():
    fine = {"loss": 6.0, "vocabulary": VOCABULARY, "alpha": 0.1, "n": 1000, "bits": 100.0, "delta": 0.05}
    for wrong, sentence in [
        ({"loss": 40.0}, "the loss is 40.0 bits a token"),
        ({"loss": math.nan}, "the loss is nan"),
        ({"subsample": 1001}, "more than the 1000"),
        ({"subsample": 0}, "subsample is 0"),
        ({"subsample_share": 0.5}, "without subsample"),
        ({"method": "exact"}, "expected one of hoeffding, kl"),
        ({"vocabulary": 1}, "vocabulary is 1"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            bits_per_token_bound(**(fine | wrong))
    with pytest.raises(ValueError, match="ends are"):
        bounded_loss_bound(loss=2.0, low=0.0, high=1.0, n=10, bits=0.0, delta=0.1)
    with pytest.raises(ValueError, match="counts wrong answers"):
        bounded_loss_bound(loss=0.5, low=0.0, high=1.0, n=10, bits=0.0, delta=0.1, method="exact")
    with pytest.raises(ValueError, match="above 0 or NaN"):
        smoothed_bits([0.5], 10, 0.1)
