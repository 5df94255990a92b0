from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from landscape import MeasurementError
from landscape.averaging import multiswag, swag

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(12, 6)) @ np.diag([3.0, 1.0, 0.5, 1.0, 0.1, 2.0]) + RNG.normal(size=6)


def covariance(weights: np.ndarray, rank: int) -> np.ndarray:
    """The paper's, from its definition."""
    mean = weights.mean(axis=0)
    diagonal = np.diag(((weights - mean) ** 2).mean(axis=0))
    if not rank:
        return diagonal
    low = (weights - mean)[-rank:]
    return 0.5 * (diagonal + low.T @ low / (len(low) - 1))


def test_moments_are_those_of_the_rows(make_run):
    found = swag(make_run(WEIGHTS, dtype="f8"), rank=5)
    np.testing.assert_allclose(found.mean, WEIGHTS.mean(0), rtol=1e-13)
    np.testing.assert_allclose(found.variance, WEIGHTS.var(0), rtol=1e-12)
    np.testing.assert_allclose(found.deviations, (WEIGHTS - WEIGHTS.mean(0))[-5:], rtol=1e-12)
    assert found.n == 12
    assert repr(found) == "Swag(P=6, n=12, rank=5)"


@pytest.mark.parametrize(("rank", "scale"), [(5, 1.0), (0, 1.0), (2, 1.0), (20, 0.25)])
def test_samples_have_the_stated_covariance(make_run, rank, scale):
    found = swag(make_run(WEIGHTS, dtype="f8"), rank=rank)
    draws = torch.stack([found.vector(seed, scale) for seed in range(300)]).numpy()
    expected = scale * covariance(WEIGHTS, rank)
    whitened = np.linalg.solve(np.linalg.cholesky(expected), (draws - WEIGHTS.mean(0)).T).T
    # Standard normals in 6 dimensions: every squared length, their sum, and the mean have exact distributions. One in
    # ten thousand draws of 300 falls outside; twice the covariance is 15 standard deviations off.
    total = (whitened**2).sum()
    low, high = scipy.stats.chi2(1800).ppf([5e-5, 1 - 5e-5])
    assert low < total < high
    assert 300 * (whitened.mean(0) ** 2).sum() < scipy.stats.chi2(6).ppf(1 - 1e-4)
    gram = whitened.T @ whitened / 300
    off = gram[np.triu_indices(6, 1)]
    assert np.abs(off).max() < scipy.stats.norm.ppf(1 - 1e-4 / 30) / np.sqrt(300)
    assert scipy.stats.kstest(whitened.ravel(), "norm").pvalue > 1e-4


def test_a_full_rank_is_the_covariance_of_the_rows(make_run):
    found = swag(make_run(WEIGHTS, dtype="f8"), rank=12)
    low = found.deviations.numpy()
    np.testing.assert_allclose(low.T @ low / 11, np.cov(WEIGHTS.T), rtol=1e-10, atol=1e-12)


def test_samples_are_seeded_and_named(make_run):
    found = swag(make_run(WEIGHTS))
    first, again, other = (found.sample(seed)["weight"] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.dtype == torch.float32
    assert torch.equal(found.sample(3, scale=0.0)["weight"], found.mean.float())


def test_a_window_is_respected(make_run):
    found = swag(make_run(WEIGHTS, dtype="f8"), start=30, stop=100, every=2, rank=2)
    np.testing.assert_allclose(found.mean, WEIGHTS[2:10:2].mean(0), rtol=1e-13)
    np.testing.assert_allclose(found.deviations, (WEIGHTS[2:10:2] - WEIGHTS[2:10:2].mean(0))[-2:], rtol=1e-11)


def test_what_cannot_be_is_told(make_run):
    path = make_run(WEIGHTS)
    with pytest.raises(ValueError, match="at least 2"):
        swag(path, rank=1)
    with pytest.raises(MeasurementError, match="no variance"):
        swag(path, start=120)
    with pytest.raises(ValueError, match="at least 0"):
        swag(path).vector(0, scale=-1.0)


def test_a_mixture_takes_its_members_in_turn(make_run):
    paths = [make_run(WEIGHTS + 100 * index, f"run{index}", "f8") for index in range(3)]
    mixture = multiswag(paths)
    means = np.array([mixture.sample(seed)["weight"].mean() for seed in range(9)])
    np.testing.assert_allclose(np.round(means / 100), [0, 1, 2] * 3)
    single = swag(paths[1])
    assert torch.equal(mixture.sample(7)["weight"], single.sample(2)["weight"])


def test_a_mixture_of_two_architectures_is_refused(make_run):
    with pytest.raises(MeasurementError, match="architecture"):
        multiswag([make_run(WEIGHTS, "a"), make_run(WEIGHTS[:, :4], "b")])
    with pytest.raises(ValueError, match="no runs"):
        multiswag([])
