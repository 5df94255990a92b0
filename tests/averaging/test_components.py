from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape.averaging import OnlinePCA


def composed(updates) -> np.ndarray:
    """All coordinates, turned into the last components."""
    rows = np.zeros((0, len(updates[0].shift)))
    for update in updates:
        rows = np.vstack([rows @ update.turn.T + update.shift, update.coordinates])
    return rows


def follow(vectors: np.ndarray, k: int) -> tuple[OnlinePCA, list]:
    pca = OnlinePCA(k)
    return pca, [pca.update(torch.from_numpy(vector)) for vector in vectors]


def test_is_the_batch_pca_where_the_rank_allows():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 5)) @ np.diag([5, 3, 2, 1, 0.5]) @ rng.normal(size=(5, 40)) + rng.normal(size=40)
    pca, updates = follow(vectors, 6)
    centred = vectors - vectors.mean(0)
    _, values, rows = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(pca.mean, vectors.mean(0), atol=1e-12)
    np.testing.assert_allclose(pca.variance[:5], values[:5] ** 2 / 29, rtol=1e-10)
    assert pca.variance[5] < 1e-20 * pca.variance[0]
    found = pca.components[:5].numpy()
    np.testing.assert_allclose(np.abs((found * rows[:5]).sum(1)), 1, rtol=1e-10)
    np.testing.assert_allclose(composed(updates), centred @ pca.components.numpy().T, atol=1e-9)
    # A residual is the root of a difference of squares, so rounding leaves √ε of the largest vector.
    assert max(update.residual for update in updates) < 1e-7 * np.linalg.norm(vectors, axis=1).max()


def test_residuals_are_distances_from_the_plane():
    vectors = np.random.default_rng(1).normal(size=(12, 50))
    pca, updates = follow(vectors, 3)
    part = pca.components.numpy()
    np.testing.assert_allclose(part @ part.T, np.eye(3), atol=1e-12)
    last = vectors[-1] - vectors.mean(0)
    np.testing.assert_allclose(updates[-1].coordinates, part @ last, rtol=1e-10)
    assert updates[-1].residual == pytest.approx(np.linalg.norm(last - part.T @ (part @ last)), rel=1e-10)


def test_a_training_s_main_directions_are_found_with_few_components():
    # A path with two strong directions in noise: what is dropped along the way does not turn the plane.
    t = np.linspace(0, 1, 60)[:, None]
    rng = np.random.default_rng(2)
    a, b = np.linalg.qr(rng.normal(size=(200, 2)))[0].T
    vectors = 10 * t * a + 3 * np.sin(3 * t) * b + 0.02 * rng.normal(size=(60, 200))
    pca, _ = follow(vectors, 5)
    rows = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)[2][:2]
    overlap = np.linalg.svd(pca.components[:2].numpy() @ rows.T)[1]
    assert overlap.min() > 0.9999


def test_the_same_vector_again_and_again():
    pca, updates = follow(np.ones((4, 7)), 2)
    assert pca.variance.tolist() == [0.0, 0.0]
    np.testing.assert_array_equal(composed(updates), 0)


def test_continues_from_its_state():
    vectors = np.random.default_rng(3).normal(size=(10, 8)).astype(np.float32)
    straight, all_updates = follow(vectors, 3)
    first, _ = follow(vectors[:6], 3)
    second = OnlinePCA(3)
    second.load_state_dict(first.state_dict())
    rest = [second.update(torch.from_numpy(vector)) for vector in vectors[6:]]
    assert torch.equal(second.components, straight.components)
    np.testing.assert_array_equal(rest[-1].coordinates, all_updates[-1].coordinates)


def test_no_component_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        OnlinePCA(0)
