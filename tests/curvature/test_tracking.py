from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape.curvature import top_eigenpairs, track
from landscape.curvature._operator import DenseOperator
from landscape.curvature._tracking import gradient_share, principal_angles

EXACT = np.concatenate([[10, 8, 7, 6, 5, 4.5, 4, 3.5, 3, 2.5, 2.2], np.linspace(-0.3, 0.5, 600)])


def turned(operator: DenseOperator, size: float, seed: int) -> DenseOperator:
    """The same spectrum with eigenvectors turned by about `size` radians in random planes."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(operator.shape, generator=generator, dtype=torch.float64)
    skew = size * (noise - noise.T) / np.sqrt(2 * len(noise))
    rotation = torch.linalg.matrix_exp(skew)
    return DenseOperator(rotation @ operator.matrix @ rotation.T)


def test_the_first_event_is_a_cold_start(with_eigenvalues):
    first = track(with_eigenvalues(EXACT), k=10)
    assert first.cold
    assert first.pairs.converged
    assert first.basis.shape == (611, 11)
    assert np.isnan(first.angles).all()
    assert np.isnan(first.gradient_share)
    np.testing.assert_allclose(first.pairs.values, EXACT[:10], rtol=1e-5)


def test_twelve_products_follow_ten_pairs_to_one_percent(with_eigenvalues):
    operator = with_eigenvalues(EXACT)
    event = track(operator, k=10)
    for step in range(5):
        operator = turned(operator, 0.1, step)
        event = track(operator, event, k=10)
        assert not event.cold
        assert event.n_matvecs == operator.n_matvecs == 12
        np.testing.assert_allclose(event.pairs.values, EXACT[:10], rtol=1e-2)
        assert 0.03 < event.angles.max() < 0.3
        overlaps = event.pairs.vectors.T @ event.pairs.vectors
        torch.testing.assert_close(overlaps, torch.eye(10, dtype=torch.float64), rtol=0, atol=1e-10)


def test_a_still_operator_is_followed_exactly(with_eigenvalues):
    operator = with_eigenvalues(EXACT)
    second = track(operator, track(operator, k=10), k=10)
    np.testing.assert_allclose(second.pairs.values, EXACT[:10], rtol=1e-6)
    assert second.pairs.converged
    assert second.angles.max() < 1e-2


def test_residuals_are_those_of_the_vectors(with_eigenvalues):
    operator = with_eigenvalues(EXACT)
    moved = turned(operator, 0.1, 0)
    event = track(moved, track(operator, k=10), k=10)
    vectors = event.pairs.vectors
    rayleigh = (vectors * (moved.matrix @ vectors)).sum(0)
    measured = torch.linalg.vector_norm(moved.matrix @ vectors - vectors * rayleigh, dim=0)
    np.testing.assert_allclose(event.pairs.residuals, measured.numpy(), rtol=1e-8)


def test_a_lost_subspace_is_found_again_by_a_cold_start(with_eigenvalues):
    event = track(with_eigenvalues(EXACT), k=10)
    elsewhere = with_eigenvalues(EXACT, seed=1)
    event = track(elsewhere, event, k=10)
    assert event.cold
    assert event.n_matvecs == elsewhere.n_matvecs > 12
    assert event.pairs.converged
    np.testing.assert_allclose(event.pairs.values, EXACT[:10], rtol=1e-5)
    assert event.angles.max() > 1.0


@pytest.mark.parametrize("size", [0.02, 0.1, 0.3])
def test_converged_is_not_said_of_values_that_are_wrong(with_eigenvalues, size):
    for seed in range(5):
        operator = with_eigenvalues(EXACT, seed=seed)
        event = track(turned(operator, size, seed), track(operator, k=10), k=10, fallback=10.0)
        miss = np.abs(event.pairs.values / EXACT[:10] - 1)
        assert (miss[event.pairs.converged_each] <= 1e-2).all()


def test_angles_and_the_share_of_the_gradient():
    axes = torch.eye(4, dtype=torch.float64)
    turned_plane = torch.stack([axes[0], (axes[1] + axes[2]) / np.sqrt(2)], dim=1)
    np.testing.assert_allclose(principal_angles(axes[:, :2], turned_plane), [0, np.pi / 4], atol=1e-7)
    assert gradient_share(axes[:, :2], torch.tensor([3.0, 0.0, 4.0, 0.0])) == pytest.approx(9 / 25)
    assert np.isnan(gradient_share(axes[:, :2], torch.zeros(4)))


def test_a_gradient_in_the_subspace(with_eigenvalues):
    operator = with_eigenvalues(EXACT)
    vectors = top_eigenpairs(operator, 10).vectors
    assert track(operator, k=10, gradient=vectors[:, 3]).gradient_share == pytest.approx(1, abs=1e-6)


def test_tiny_operators_and_strangers(with_eigenvalues):
    small = with_eigenvalues([3.0, 2.0, 1.0])
    event = track(small, track(small, k=2), k=2)
    assert event.cold
    np.testing.assert_allclose(event.pairs.values, [3, 2], rtol=1e-12)
    with pytest.raises(ValueError, match="the last event holds vectors of shape"):
        track(with_eigenvalues(EXACT), event, k=2)
