"""PAC-Bayes for Gaussian posteriors: the divergence, the forms, sampling, and the split."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from landscape import MeasurementError
from landscape.bounds import binary_kl, gaussian_kl, pac_bayes_bound, prior_split, sampled_risk_bound


def test_divergence_against_torch():
    rng = np.random.default_rng(0)
    mean, origin = rng.normal(size=(2, 300))
    std, prior = np.exp(rng.normal(size=(2, 300)))
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(
        normal(torch.tensor(mean), torch.tensor(std)), normal(torch.tensor(origin), torch.tensor(prior))
    ).sum()
    assert gaussian_kl(mean, std, origin, prior) == pytest.approx(float(expected), rel=1e-12)
    assert gaussian_kl(mean, 0.5, 0.0, 0.5) == pytest.approx(2 * (mean**2).sum(), rel=1e-12)


@settings(deadline=None)
@given(st.floats(-5, 5), st.floats(1e-3, 1e3), st.floats(-1e-9, 1e-9), st.floats(1e-9, 1e-3))
def test_divergence_is_rounded_up(mean, std, shift, relative):
    prior = std * (1 + relative)
    found = gaussian_kl([mean], std, mean + shift, prior)
    with mpmath.workdps(60):
        ratio = mpmath.mpf(std) / mpmath.mpf(prior)
        moved = (mpmath.mpf(mean) - mpmath.mpf(mean + shift)) / mpmath.mpf(prior)
        exact = (ratio**2 - 1 - 2 * mpmath.log(ratio) + moved**2) / 2
        assert exact <= found <= exact * (1 + mpmath.mpf(10) ** -9) + 1e-13


def test_tiny_and_huge_deviations():
    assert gaussian_kl(np.zeros(1), 1e-200, 0.0, 1.0) == pytest.approx(200 * math.log(10) - 0.5, rel=1e-12)
    assert gaussian_kl(np.zeros(1), 1e200, 0.0, 1e-200) == math.inf
    assert pac_bayes_bound(error=0.1, kl=math.inf, n=100, delta=0.05) == 1


def test_maurers_constant():
    # E e^(n kl(k/n‖p)) = Σ C(n, k) (k/n)^k (1 − k/n)^(n−k), whatever p.
    for n in range(1, 200):
        k = np.arange(n + 1)
        logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in k]
        with np.errstate(divide="ignore", invalid="ignore"):
            powers = np.where(k > 0, k * np.log(k / n), 0) + np.where(k < n, (n - k) * np.log(1 - k / n), 0)
        assert np.exp(logs + powers).sum() <= 2 * math.sqrt(n) * (1 + 1e-12)


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0, 1e6), st.integers(1, 10**9), st.floats(1e-300, 0.9))
def test_order_and_range(error, kl, n, delta):
    inverse, mcallester, quadratic = (
        pac_bayes_bound(error=error, kl=kl, n=n, delta=delta, method=method)
        for method in ("kl", "mcallester", "quadratic")
    )
    assert error <= inverse <= min(mcallester, quadratic) * (1 + 1e-14)
    assert max(mcallester, quadratic) <= 1


def test_formulas():
    error, kl, n, delta = 0.03, 400.0, 50_000, 0.025
    rate = (kl + math.log(2 * math.sqrt(n) / delta)) / n
    one = {
        m: pac_bayes_bound(error=error, kl=kl, n=n, delta=delta, method=m) for m in ("kl", "mcallester", "quadratic")
    }
    assert binary_kl(error, one["kl"]) == pytest.approx(rate, rel=1e-10)
    assert one["mcallester"] == pytest.approx(error + math.sqrt(rate / 2), rel=1e-12)
    # It solves R = R̂ + √(2 R c), c = rate / 2 · 2: the quadratic in √R.
    assert one["quadratic"] - math.sqrt(2 * rate * one["quadratic"]) == pytest.approx(error, rel=1e-10)
    eight = pac_bayes_bound(error=error, kl=kl, n=n, delta=delta, choices=[4, 2])
    assert eight == pytest.approx(pac_bayes_bound(error=error, kl=kl + 3 * math.log(2), n=n, delta=delta), rel=1e-12)


def test_sampling_takes_its_part_of_delta():
    risk = sampled_risk_bound(error=0.03, draws=1000, delta=0.01)
    assert binary_kl(0.03, risk) == pytest.approx(math.log(100) / 1000, rel=1e-10)
    both = pac_bayes_bound(error=0.03, kl=400.0, n=50_000, delta=0.05, draws=1000)
    assert both == pytest.approx(pac_bayes_bound(error=risk, kl=400.0, n=50_000, delta=0.04), rel=1e-12)
    assert both > pac_bayes_bound(error=0.03, kl=400.0, n=50_000, delta=0.05)
    named = pac_bayes_bound(error=0.03, kl=400.0, n=50_000, delta=0.05, draws=1000, draws_delta=0.01)
    assert named == both


def test_a_split_is_fixed_and_whole():
    split = prior_split(1001, share=0.3, seed=4)
    again = prior_split(1001, share=0.3, seed=4)
    assert (split.prior == again.prior).all()
    assert len(split.prior) == 300
    assert split.n == 701
    assert sorted([*split.prior, *split.bound]) == list(range(1001))
    assert (prior_split(1001, share=0.3, seed=5).prior != split.prior).any()


def test_a_split_counts_its_own_examples():
    split = prior_split(100, share=0.5, seed=0)
    wrong = np.zeros((20, 100))
    wrong[:, split.prior] = 1
    wrong[:, split.bound[:5]] = 1
    assert split.error(wrong[0]) == 0.1
    direct = pac_bayes_bound(error=0.1, kl=3.0, n=50, delta=0.05, draws=20)
    assert split.pac_bayes_bound(wrong, kl=3.0, delta=0.05) == direct
    exact = pac_bayes_bound(error=0.1, kl=3.0, n=50, delta=0.05)
    assert split.pac_bayes_bound(wrong[0], kl=3.0, delta=0.05) == exact


def test_refusals_are_sentences():
    fine = {"error": 0.1, "kl": 5.0, "n": 100, "delta": 0.05}
    for wrong, sentence in [
        ({"kl": -1.0}, "kl is -1.0"),
        ({"n": 0}, "n is 0"),
        ({"delta": 1.5}, "delta is 1.5"),
        ({"method": "exact"}, "expected one of mcallester"),
        ({"draws": 0}, "draws is 0"),
        ({"draws": 5, "draws_delta": 0.05}, "must be smaller"),
        ({"draws_delta": 0.01}, "without draws"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            pac_bayes_bound(**(fine | wrong))
    with pytest.raises(ValueError, match="not positive"):
        gaussian_kl(np.zeros(3), 0.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="shapes"):
        gaussian_kl(np.zeros(3), np.ones(2), 0.0, 1.0)
    with pytest.raises(MeasurementError, match="NaN"):
        gaussian_kl(np.array([np.nan]), 1.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="at least one"):
        prior_split(10, share=1.0)
    with pytest.raises(ValueError, match="each of 10 examples"):
        prior_split(10).error(np.zeros(9))
