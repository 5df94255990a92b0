from __future__ import annotations

import numpy as np
import pytest

from landscape._sampling_error import Clusters, of_contributions

UNEVEN = [7, 13, 20, 5, 15, 30, 10, 4]


def test_equal_groups_have_the_error_of_a_mean():
    values = np.random.default_rng(0).normal(size=(6, 3))
    clusters = Clusters.of([1 / 6] * 6, [32] * 6, False)
    assert clusters is not None
    np.testing.assert_allclose(clusters.spread(values / 6), values.std(axis=0, ddof=1) / np.sqrt(6))
    np.testing.assert_allclose(clusters.stderr(values / 6), 2.5705818 / 1.9599640 * clusters.spread(values / 6))
    assert clusters.widening == pytest.approx(2.5705818 / 1.9599640)


def covered(sizes: list[int], draw, repeats: int) -> float:
    """The share of intervals that hold the true mean, 1; `draw` gives values and weights, shape (repeats, examples)."""
    values, weights = draw(np.random.default_rng(1), (repeats, sum(sizes)))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    total = weights.sum(axis=1, keepdims=True)
    contributions = np.add.reduceat(values * weights, starts, axis=1) / total
    batch_weights = np.add.reduceat(weights, starts, axis=1) / total
    hits = 0
    for each, own in zip(contributions, batch_weights, strict=True):
        clusters = Clusters.of(own, sizes, False)
        assert clusters is not None
        hits += abs(each.sum() - 1) <= 1.96 * clusters.stderr(clusters.add_up(each))
    return hits / repeats


def normal(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return 1 + rng.normal(size=shape), np.ones(shape)


def masked(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Means over targets: an example with more of them has other values too."""
    counts = rng.integers(1, 6, size=shape).astype(float)
    return 1 + (counts - 11 / 3) / 2 + rng.normal(size=shape), counts


@pytest.mark.parametrize("draw", [normal, masked])
@pytest.mark.parametrize("sizes", [[25, 25], [30] * 4, UNEVEN, [8] * 40], ids=["two", "four", "uneven", "forty"])
def test_intervals_cover(draw, sizes):
    assert 0.93 <= covered(sizes, draw, repeats=1000) <= 0.97


def test_neighbours_form_groups_of_about_equal_size():
    sizes = [8] * 37 + [3]
    clusters = Clusters.of(np.array(sizes) / sum(sizes), sizes, False)
    assert clusters is not None
    assert clusters.count == 16
    assert (np.diff(clusters.group) >= 0).all()
    assert clusters.shares.max() / clusters.shares.min() <= 2
    np.testing.assert_allclose(clusters.weights.sum(), 1)
    np.testing.assert_allclose(clusters.add_up(np.array(sizes)) / sum(sizes), clusters.shares)


def test_batches_without_weight_take_no_part():
    clusters = Clusters.of([0.5, 0.0, 0.5], [4, 0, 4], False)
    assert clusters is not None
    assert clusters.group.tolist() == [0, -1, 1]
    assert clusters.add_up(np.array([1.0, np.nan, 2.0])).tolist() == [1, 2]


def test_a_mean_over_batches_counts_batches():
    clusters = Clusters.of([0.5, 0.5], [100, 1], True)
    assert clusters is not None
    assert clusters.shares.tolist() == [0.5, 0.5]


def test_one_batch_says_nothing():
    for weights, sizes in (([1.0], [64]), ([1.0, 0.0], [64, 0])):
        assert Clusters.of(weights, sizes, False) is None
    assert np.isnan(of_contributions(None, np.ones(3)))
    assert np.isnan(of_contributions(Clusters.of([0.5, 0.5], [1, 1], False), None))
