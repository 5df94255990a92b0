from __future__ import annotations

import io
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from landscape.averaging import RunningMean


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_equals_the_exact_mean(values):
    mean = RunningMean()
    for value in values:
        mean.update(torch.tensor([value], dtype=torch.float64))
    exact = float(sum(map(Fraction, values)) / len(values))
    assert mean.count == len(values)
    assert abs(float(mean.value) - exact) <= 1e-14 * max(map(abs, values)) * len(values)


def test_float32_snapshots_lose_no_digits():
    vectors = np.random.default_rng(0).normal(1000, 1e-3, (500, 4)).astype(np.float32)
    mean = RunningMean()
    for vector in vectors:
        mean.update(vector)
    np.testing.assert_allclose(mean.value, vectors.astype(np.float64).mean(0), rtol=1e-14)


def test_continues_from_its_state():
    vectors = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    straight, before, after = RunningMean(), RunningMean(), RunningMean()
    for vector in vectors:
        straight.update(vector)
    for vector in vectors[:4]:
        before.update(vector)
    file = io.BytesIO()
    torch.save(before.state_dict(), file)
    file.seek(0)
    after.load_state_dict(torch.load(file, weights_only=True))
    for vector in vectors[4:]:
        after.update(vector)
    assert after.count == 6
    assert torch.equal(after.value, straight.value)


def test_an_empty_mean_survives_its_state_too():
    fresh = RunningMean()
    fresh.load_state_dict(RunningMean().state_dict())
    assert fresh.count == 0
    with pytest.raises(ValueError, match="no mean"):
        _ = fresh.value
    fresh.update(torch.ones(2))
    assert fresh.value.tolist() == [1.0, 1.0]


def test_nothing_is_shared_with_the_caller():
    mean, vector = RunningMean(), torch.ones(2, dtype=torch.float64)
    mean.update(vector)
    state = mean.state_dict()
    vector.fill_(5)
    mean.value.fill_(7)
    mean.update(torch.full((2,), 3.0))
    assert mean.value.tolist() == [2.0, 2.0]
    assert state["mean"].tolist() == [1.0, 1.0]
    assert repr(mean) == "RunningMean(count=2, P=2)"


def test_nan_stays_nan():
    mean = RunningMean()
    mean.update(torch.tensor([1.0, float("nan")]))
    mean.update(torch.tensor([3.0, 1.0]))
    assert mean.value[0] == 2
    assert mean.value[1].isnan()


@pytest.mark.parametrize("shape", [(3,), (1, 2), ()])
def test_other_shapes_are_refused(shape):
    mean = RunningMean()
    mean.update(torch.ones(2))
    with pytest.raises(ValueError, match=r"expected shape \(2,\)"):
        mean.update(torch.ones(shape))
    assert mean.count == 1


def test_the_mean_with_one_more_vector_is_known_without_taking_it_in(monkeypatch):
    monkeypatch.setattr("landscape.averaging._mean.PIECE", 3)
    mean, vectors = RunningMean(), torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(mean.with_vector(vectors[0], torch.float64), vectors[0].double())
    for vector in vectors:
        foreseen = mean.with_vector(vector, torch.float64)
        mean.update(vector)
        assert torch.equal(foreseen, mean.value)
    assert mean.count == 3
    torch.testing.assert_close(mean.value, vectors.double().mean(0), rtol=1e-14, atol=0)
