from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from landscape._results import Estimate, Result, with_error


def test_estimate_from_samples():
    samples = np.random.default_rng(0).standard_normal(50)
    estimate = Estimate.from_samples(samples, seed=3)
    assert estimate.value == pytest.approx(samples.mean())
    assert estimate.stderr == pytest.approx(samples.std(ddof=1) / np.sqrt(50))
    assert (estimate.n, estimate.seed) == (50, 3)
    assert float(estimate) == estimate.value
    assert "n=50" in str(estimate)


def test_one_sample_leaves_the_error_unknown_and_an_exact_number_has_none():
    assert np.isnan(Estimate.from_samples([1.0], 0).stderr)
    assert Estimate.exact(2) == Estimate(2.0, 0.0, 1, None)


def test_results_turn_into_plain_values():
    @dataclasses.dataclass(frozen=True)
    class Example(Result):
        tensor: torch.Tensor
        number: float

    plain = Example(torch.ones(2, requires_grad=True), 1.5).to_dict()
    assert isinstance(plain["tensor"], np.ndarray)
    assert plain["number"] == 1.5


def test_interval_is_students():
    samples = np.random.default_rng(0).standard_normal(5)
    estimate = Estimate.from_samples(samples, seed=0)
    low, high = estimate.interval(0.95)
    assert (high - low) / 2 == pytest.approx(2.776445 * estimate.stderr, rel=1e-6)  # 4 degrees of freedom
    assert (low + high) / 2 == pytest.approx(estimate.value)
    assert Estimate(1.0, 0.5, 100, 0).interval(0.95) == pytest.approx((1 - 0.979982, 1 + 0.979982), rel=1e-5)
    assert Estimate.exact(3).interval() == (3, 3)
    assert np.isnan(Estimate.from_samples([1.0], 0).interval()).all()
    with pytest.raises(ValueError, match="confidence is 95"):
        estimate.interval(95)


def test_a_widened_error_gives_the_same_95_percent_interval_either_way():
    estimate = Estimate.student(2.0, 0.1, n=4, seed=0, dof=3)
    assert estimate.stderr == pytest.approx(0.1 * 3.182446 / 1.959964, rel=1e-6)
    assert estimate.interval(0.95) == pytest.approx((2 - 1.959964 * estimate.stderr, 2 + 1.959964 * estimate.stderr))
    assert estimate.interval(0.99)[1] == pytest.approx(2 + 0.1 * 5.840909, rel=1e-6)
    doubled = estimate.scaled(-2.0, offset=1.0)
    assert (doubled.value, doubled.stderr, doubled.spread) == pytest.approx((-3, 2 * estimate.stderr, 0.2))
    joined = estimate.joined(0.3)
    assert joined.spread == pytest.approx(np.hypot(0.1, 0.3))
    assert joined.stderr == pytest.approx(np.hypot(estimate.stderr, 0.3))


def test_numbers_are_written_to_the_digits_of_their_errors():
    assert with_error(1.07132, 0.0213) == "1.071 ± 0.021"
    assert with_error(123.4, 25.0) == "123 ± 25"
    assert with_error(0.31649, 0.0) == "0.316"
    assert with_error(0.31649, float("nan")) == "0.316"
    assert with_error(float("nan"), 1.0) == "nan"
