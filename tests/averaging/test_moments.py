from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape.averaging import RunningMoments


def test_variance_at_a_relative_deviation_of_three_in_ten_thousand():
    # Mean square less squared mean, in float32, loses half of these to zero.
    vectors = (1 + 3e-4 * np.random.default_rng(0).normal(size=(200, 400))).astype(np.float32)
    moments = RunningMoments()
    for vector in vectors:
        moments.update(torch.from_numpy(vector))
    exact = vectors.astype(np.longdouble).var(axis=0).astype(np.float64)
    assert np.abs(moments.variance().numpy() / exact - 1).max() < 1e-9
    naive = (vectors**2).mean(axis=0) - vectors.mean(axis=0) ** 2
    assert np.abs(naive / exact - 1).max() > 1e-1


@pytest.mark.parametrize("correction", [0, 1])
def test_equals_numpy(correction):
    vectors = np.random.default_rng(1).normal(size=(7, 3)) * [1, 1e-6, 1e6] + [0, 1, -1e3]
    moments = RunningMoments()
    for vector in vectors:
        moments.update(vector)
    np.testing.assert_allclose(moments.mean, vectors.mean(0), rtol=1e-14)
    np.testing.assert_allclose(moments.variance(correction), vectors.var(0, ddof=correction), rtol=1e-9)


def test_one_vector_has_no_unbiased_variance():
    moments = RunningMoments()
    moments.update(torch.ones(2))
    assert moments.variance().tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="more than 1"):
        moments.variance(1)
