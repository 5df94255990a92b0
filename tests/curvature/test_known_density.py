"""The spectral density where outer eigenpairs are known beforehand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from landscape.curvature import negative_share, spectral_density, spectral_entropy, top_eigenpairs
from landscape.curvature._dense import DenseOperator
from landscape.curvature._outside import Outside

OUTLIERS = np.concatenate([np.linspace(4, 12, 10), np.linspace(-0.05, 0.2, 140)])


@pytest.fixture(scope="module")
def outliers(with_eigenvalues):
    return with_eigenvalues(OUTLIERS)


@pytest.fixture(scope="module")
def known(outliers):
    return (top_eigenpairs(outliers, 10, method="lanczos"),)


def test_known_eigenvalues_are_points_of_mass_one_of_all(outliers, known):
    density = spectral_density(outliers, probes=3, steps=12, known=known)
    assert density.n_known == 10
    np.testing.assert_allclose(density.nodes[:, :10], np.tile(OUTLIERS[9::-1], (3, 1)), rtol=1e-9)
    np.testing.assert_array_equal(density.weights[:, :10], 1 / 150)
    np.testing.assert_allclose(density.weights.sum(axis=1), 1, rtol=1e-12)
    assert np.abs(density.nodes[:, 10:]).max() <= 0.2 + 1e-9  # nothing of them is left
    assert density.n_matvecs == 36
    grid = np.linspace(-1, 13, 14_001)
    assert np.trapezoid(density.density(grid), grid) == pytest.approx(1, rel=1e-3)
    assert (density.density(np.array([1.0, 3.0, 5.5, 11.5, 12.5])) == 0).all()
    assert density.density_stderr([12.0])[0] < 1e-12 < density.density([12.0])[0]


def test_errors_of_moments_are_those_of_the_rest(outliers, known):
    for order, factor in ((1, 5), (2, 100), (4, 10_000)):
        exact = np.mean(OUTLIERS**order)
        plain, deflated = (
            spectral_density(outliers, probes=4, steps=20, known=pairs).moment(order) for pairs in ((), known)
        )
        assert deflated.stderr < plain.stderr / factor
        assert abs(deflated.value - exact) <= 4 * deflated.stderr


def test_a_trained_network(networks):
    network = networks["relu trained"]
    operator = DenseOperator(network.matrix)
    ends = tuple(top_eigenpairs(operator, 8, which, method="dense") for which in ("LA", "SA"))
    eigenvalues, magnitudes = network.eigenvalues, np.abs(network.eigenvalues)
    plain, density = (spectral_density(operator, probes=6, steps=40, known=pairs) for pairs in ((), ends))
    for order in (1, 2, 3):
        assert density.moment(order).stderr < plain.moment(order).stderr / 2
        assert abs(density.moment(order).value - (eigenvalues**order).mean()) <= 4 * density.moment(order).stderr
    share = negative_share(density)
    assert abs(share.value - magnitudes[eigenvalues < 0].sum() / magnitudes.sum()) <= 4 * share.stderr
    p = magnitudes / magnitudes.sum()
    entropy = spectral_entropy(density)
    assert abs(entropy.value + (p * np.log(p)).sum()) <= 4 * entropy.stderr
    assert entropy.stderr < spectral_entropy(plain).stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["outliers", "network"])
@pytest.mark.parametrize(("probes", "steps"), [(2, 30), (4, 15)])
def test_they_cover_at_the_stated_rate(outliers, networks, name, probes, steps):
    operator = outliers if name == "outliers" else DenseOperator(networks["tanh trained"].matrix)
    eigenvalues = np.linalg.eigvalsh(operator.matrix.numpy())
    known = (top_eigenpairs(operator, 10, method="dense"),)
    densities = [spectral_density(operator, seed, probes, steps, known) for seed in range(300)]
    for order in (1, 2, 4):
        found = [density.moment(order) for density in densities]
        rate = np.mean([abs(e.value - (eigenvalues**order).mean()) <= 1.96 * e.stderr for e in found])
        assert 0.91 <= rate <= 0.99, (order, rate)


@pytest.mark.parametrize("size", [1, 2, 9])
def test_all_or_all_but_one_known(with_eigenvalues, size):
    exact = np.linspace(-1, 2, size)
    operator = with_eigenvalues(exact)
    for count in {size, max(size - 1, 1)}:
        pairs = top_eigenpairs(operator, count)
        density = spectral_density(operator, probes=2, steps=5, known=(pairs,))
        for function in (np.abs, np.exp, lambda x: x**3):
            estimate = density.expectation(function)
            assert estimate.value == pytest.approx(function(exact).mean(), rel=1e-9, abs=1e-12)
            assert estimate.stderr < 1e-9
        assert np.isfinite(density.density(np.linspace(-2, 3, 11))).all()


def test_what_two_searches_found_counts_once(with_eigenvalues):
    exact = np.linspace(-1, 2, 30)
    operator = with_eigenvalues(exact)
    ends = (top_eigenpairs(operator, 20), top_eigenpairs(operator, 20, "SA"))
    outside = Outside(operator, ends)
    assert outside.rest == 0
    np.testing.assert_allclose(np.sort(outside.values), exact, atol=1e-12)
    assert spectral_density(operator, known=ends).moment(2).value == pytest.approx((exact**2).mean())


def test_pairs_that_are_not_converged_are_left_alone(outliers, known):
    unsure = dataclasses.replace(known[0], converged_each=np.zeros(10, dtype=bool))
    plain, found = (spectral_density(outliers, steps=10, known=pairs) for pairs in ((), (unsure,)))
    np.testing.assert_array_equal(found.nodes, plain.nodes)
    half = dataclasses.replace(known[0], converged_each=np.arange(10) < 4)
    assert spectral_density(outliers, steps=10, known=(half,)).n_known == 4


def test_what_residuals_leave_open_is_in_the_error(outliers, known):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(known[0].vectors.shape, generator=generator, dtype=torch.float64)
    vectors = torch.linalg.qr(known[0].vectors + 2e-3 * noise)[0]
    image = outliers.matrix @ vectors
    values = (vectors * image).sum(0)
    residuals = torch.linalg.vector_norm(image - vectors * values, dim=0).numpy()
    crude = dataclasses.replace(known[0], vectors=vectors, values=values.numpy(), residuals=residuals)
    density = spectral_density(outliers, probes=4, steps=20, known=(crude,))
    assert density.shifts.max() > 1e-4
    for function in (np.square, lambda x: np.maximum(x, 0) / (np.maximum(x, 0) + 5)):
        estimate, exact = density.expectation(function), function(OUTLIERS).mean()
        sure = spectral_density(outliers, probes=4, steps=20, known=known).expectation(function)
        assert abs(estimate.value - exact) <= 1.96 * estimate.stderr
        assert estimate.stderr > sure.stderr
