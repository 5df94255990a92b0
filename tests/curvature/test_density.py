from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from landscape._errors import MeasurementError
from landscape.curvature import spectral_density
from landscape.curvature._dense import DenseOperator
from landscape.curvature._lanczos import rademacher


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


@pytest.mark.parametrize(("steps", "most"), [(10, 0.02), (30, 0.01)])
def test_wasserstein_distance_to_the_exact_spectrum(networks, steps, most):
    for network in networks.values():
        exact = network.eigenvalues
        reach = exact[-1] - exact[0]
        density = spectral_density(DenseOperator(network.matrix), probes=10, steps=steps)
        weights = density.weights / 10
        distance = wasserstein_distance(density.nodes.ravel(), exact, weights.ravel())
        # The probes' share of an eigenvalue scatters like its square root; the quadrature adds O(range / steps).
        assert distance <= most * reach
        shifted = wasserstein_distance(density.nodes.ravel() + 0.05 * reach, exact, weights.ravel())
        assert shifted > 3 * distance


def test_nothing_is_drawn_where_there_is_nothing(with_eigenvalues):
    values = np.concatenate([np.linspace(0, 1, 150), [10.0, 20.0]])
    density = spectral_density(with_eigenvalues(values), probes=4, steps=25)
    grid = np.linspace(-5, 25, 3001)
    drawn = density.density(grid)
    empty = np.abs(grid[:, None] - values).min(axis=1) > 0.3
    assert (drawn[empty] == 0).all()
    assert drawn[np.abs(grid - 10) < 0.005].min() > 0
    bulk = drawn[(grid > 0.15) & (grid < 0.85)]
    assert bulk.mean() == pytest.approx(150 / 152, rel=0.15)
    assert bulk.min() > 0.4  # no holes between the nodes


def test_widths_follow_the_resolution(with_eigenvalues):
    values = np.concatenate([np.linspace(0, 1, 150), [10.0, 20.0]])
    operator = with_eigenvalues(values)
    few, many = (spectral_density(operator, probes=3, steps=steps) for steps in (12, 40))
    for density in (few, many):
        widths = density.widths()
        assert widths.shape == density.nodes.shape
        np.testing.assert_allclose(widths[density.nodes > 5], 0.06, rtol=1e-2)
    bulk = [density.widths()[density.nodes < 2].mean() for density in (few, many)]
    assert bulk[1] < bulk[0]
    gaussian = many.density([0.5], sigma=0.1)
    assert gaussian == pytest.approx(150 / 152, rel=0.1)


@pytest.mark.parametrize("steps", [1, 5, 30])
def test_one_parameter_zero_and_rank_one(with_eigenvalues, steps):
    one = spectral_density(with_eigenvalues([3.0]), steps=steps)
    assert one.moment(1).value == pytest.approx(3)
    assert (one.moment(1).stderr, one.n_eff(1.0).value) == (0, 0.75)
    zero = spectral_density(with_eigenvalues(np.zeros(40)), steps=steps)
    assert (zero.moment(1).value, zero.moment(1).stderr, zero.n_eff(1.0).value) == (0, 0, 0)
    assert np.isfinite(zero.density(np.linspace(-1, 1, 11))).all()
    if steps > 1:
        rank_one = spectral_density(with_eigenvalues([2.0, *np.zeros(39)]), steps=steps, probes=8)
        n_eff = rank_one.n_eff(1.0)
        assert abs(n_eff.value - 2 / 3) <= 4 * n_eff.stderr
        assert n_eff.stderr < 1


def test_nan_is_refused():
    with pytest.raises(MeasurementError, match="not finite"):
        spectral_density(DenseOperator(torch.full((5, 5), torch.nan)))


def test_refusals(with_eigenvalues):
    with pytest.raises(ValueError, match="probes=0"):
        spectral_density(with_eigenvalues([1.0, 2.0]), probes=0)
