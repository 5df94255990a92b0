from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape.curvature import spectral_density
from landscape.curvature._lanczos import rademacher
from landscape.curvature._operator import DenseOperator


def test_moments_are_within_their_standard_errors(network):
    size = len(network.eigenvalues)
    density = spectral_density(network.operator, probes=30, steps=6)
    for order in (1, 2, 3, 4):
        moment = density.moment(order)
        exact = (network.eigenvalues**order).sum() / size
        assert abs(moment.value - exact) <= 4 * moment.stderr
        assert moment.n == 30
    assert density.stderr == density.moment(1).stderr


def test_moments_cover_at_the_stated_rate(with_eigenvalues):
    exact = np.concatenate([np.exp(-np.arange(20) / 3.0), np.linspace(-0.1, 0.1, 80)])
    operator = with_eigenvalues(exact)
    misses = []
    for seed in range(60):
        moment = spectral_density(operator, seed=seed, probes=12, steps=3).moment(2)
        misses.append((moment.value - np.mean(exact**2)) / moment.stderr)
    assert np.mean(np.abs(misses) < 3) >= 0.95
    assert abs(np.mean(misses)) < 0.5


def test_quadrature_of_a_probe_is_exact_when_steps_reach_the_size(network):
    size = len(network.eigenvalues)
    values, vectors = np.linalg.eigh(network.matrix.numpy())
    density = spectral_density(network.operator, probes=2, steps=size + 10, seed=5)
    scale = np.abs(values).max()
    for probe in range(2):
        shares = (vectors.T @ rademacher(size, 5, probe).double().numpy()) ** 2 / size
        for function in (np.abs, lambda x: np.exp(x / scale), lambda x: np.maximum(x, 0) / (np.maximum(x, 0) + scale)):
            found = (density.weights[probe] * function(density.nodes[probe])).sum()
            assert found == pytest.approx((shares * function(values)).sum(), rel=1e-9)


def test_low_moments_of_a_probe_are_exact_from_few_steps(with_eigenvalues):
    operator = with_eigenvalues(np.linspace(-1, 2, 60))
    density = spectral_density(operator, probes=1, steps=4)
    probe = rademacher(60, 0, 0).double()
    power = probe
    for order in range(8):  # a Gauss rule of 4 nodes is exact up to degree 7
        found = (density.weights[0] * density.nodes[0] ** order).sum()
        assert found == pytest.approx(float(probe @ power) / 60, rel=1e-10)
        power = operator @ power
    assert np.isnan(density.moment(1).stderr)


def test_a_diagonal_gives_the_whole_spectrum_exactly():
    exact = np.linspace(-1, 3, 25)
    density = spectral_density(DenseOperator(torch.diag(torch.as_tensor(exact))), probes=3, steps=25)
    assert density.expectation(np.abs).value == pytest.approx(np.abs(exact).mean(), rel=1e-10)
    assert density.expectation(np.abs).stderr < 1e-12
    n_eff = density.n_eff(0.5)
    positive = exact[exact > 0]
    assert n_eff.value == pytest.approx((positive / (positive + 0.5)).sum(), rel=1e-10)


def test_n_eff_of_networks(networks):
    for name, network in networks.items():
        scale = network.eigenvalues[-1]
        density = spectral_density(DenseOperator(network.matrix), probes=20, steps=40)
        positive = np.maximum(network.eigenvalues, 0)
        for z in (1e-2 * scale, 1e-1 * scale, scale):
            estimate = density.n_eff(z)
            assert abs(estimate.value - (positive / (positive + z)).sum()) <= 4 * estimate.stderr + 1e-3, name
    with pytest.raises(ValueError, match="z is 0"):
        density.n_eff(0)


def test_weights_sum_to_one_and_padding_weighs_nothing(with_eigenvalues):
    density = spectral_density(with_eigenvalues([1.0, 1.0, 2.0, 2.0]), probes=3, steps=10)
    np.testing.assert_allclose(density.weights.sum(axis=1), 1, rtol=1e-12)
    assert density.nodes.shape == density.weights.shape


def test_smoothed_density_integrates_to_one(networks):
    density = spectral_density(networks["tanh"].operator, probes=4, steps=20)
    reach = 3 * np.abs(density.nodes).max()
    grid = np.linspace(-reach, reach, 20_001)
    assert np.trapezoid(density.density(grid), grid) == pytest.approx(1, rel=1e-6)
    assert (density.density_stderr(grid) >= 0).all()
    one = spectral_density(networks["tanh"].operator, probes=1, steps=20)
    assert np.isnan(one.density_stderr(grid[:3])).all()


def test_refusals(with_eigenvalues):
    with pytest.raises(ValueError, match="probes=0"):
        spectral_density(with_eigenvalues([1.0, 2.0]), probes=0)
