from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from landscape._results import Estimate, Result


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
