from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from landscape import Objective, _surroundings
from landscape._surroundings import Surroundings, dot, shift


@pytest.fixture
def around():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(50, 40, padding_idx=3), nn.Flatten(), nn.Linear(80, 60), nn.Linear(60, 4))
    batches = [(torch.randint(4, 50, (6, 2)), torch.arange(6) % 4)]
    objective = Objective(model, nn.CrossEntropyLoss(), batches, dtype=torch.float64)
    return objective, Surroundings(objective)


def test_noise_has_the_scale_of_each_tensor_and_is_the_same_each_time(around):
    objective, near = around
    once, again = list(near.noise(3)), list(near.noise(3))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    for tensor, weights in zip(once, objective.layout.unflatten(objective.vector()), strict=True):
        scale = float(weights.square().mean().sqrt())
        if tensor.numel() > 1000:
            assert float(tensor.square().mean().sqrt()) == pytest.approx(scale, rel=0.1)
    assert not once[0][3].any()  # the padding row
    flat = torch.cat([tensor.reshape(-1) for tensor in once])
    assert near.squared_length(3) == pytest.approx(float(flat @ flat), rel=1e-12)


def test_a_point_moves_and_comes_back(around):
    objective, near = around
    before = objective.vector()
    point = near.moved(0)
    assert torch.equal(objective.vector(), before)  # the module's own weights are not touched
    far = [tensor.clone() for tensor in point]
    shift(point, near.noise(1), 1e-6)
    assert not torch.equal(point[0], far[0])
    shift(point, near.noise(1), -1e-6)
    for tensor, own in zip(point, far, strict=True):
        torch.testing.assert_close(tensor, own, rtol=0, atol=1e-15)


def test_long_vectors_are_seen_with_their_length(around, monkeypatch):
    _, near = around
    errors = [tensor.clone() for tensor in near.noise(5)]
    whole = float(torch.linalg.vector_norm(near.seen(errors)))
    monkeypatch.setattr(_surroundings, "_WHOLE", 10)
    sketch = near.seen(errors)
    assert sketch.shape == (4 * len(errors),)
    # The squared length is a mean over 4 draws a tensor; here its relative standard deviation is below 0.4.
    assert 0.4 < float(torch.linalg.vector_norm(sketch)) / whole < 1.7
    # It is linear, so differences are seen like vectors.
    twice = near.seen([2 * tensor for tensor in errors])
    torch.testing.assert_close(twice, 2 * sketch, rtol=1e-12, atol=0)


def test_the_mean_of_many_sketches_is_the_squared_length(around, monkeypatch):
    _, near = around
    errors = [tensor.clone() for tensor in near.noise(6)]
    whole = float(near.seen(errors).square().sum())
    monkeypatch.setattr(_surroundings, "_WHOLE", 0)
    monkeypatch.setattr(_surroundings, "_SIGNS", 400)
    assert float(near.seen(errors).square().sum()) == pytest.approx(whole, rel=0.2)


def test_dot_is_taken_in_float64():
    one = [torch.full((10,), 1e4), torch.ones(2, 3)]
    assert float(dot(one, one)) == 10 * 1e8 + 6
    assert math.isnan(float(dot([torch.tensor([math.nan])], [torch.ones(1)])))
