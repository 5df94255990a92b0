from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from landscape import MeasurementError, Objective
from landscape.curvature import hessian
from landscape.surface import (
    given_directions,
    hessian_directions,
    normalize,
    plane_directions,
    random_directions,
)


def convolutional() -> Objective:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4))
    x, y = torch.randn(8, 2, 3, 3), torch.randint(0, 4, (8,))
    return Objective(model, nn.CrossEntropyLoss(), [(x, y)])


def test_filters_have_the_lengths_of_the_weights():
    objective = convolutional()
    found = random_directions(objective, seed=3)
    weights = objective.layout.named(objective.vector())
    for vector in found.vectors:
        parts = objective.layout.named(vector)
        for name in ("0.weight", "3.weight"):
            torch.testing.assert_close(parts[name].flatten(1).norm(dim=1), weights[name].flatten(1).norm(dim=1))
        for name in ("0.bias", "1.weight", "1.bias", "3.bias"):
            assert not parts[name].any(), name
    assert abs(torch.nn.functional.cosine_similarity(*found.vectors, dim=0)) < 0.5


def test_layers_have_the_lengths_of_the_weights_and_biases_may_move():
    objective = convolutional()
    weights = objective.layout.named(objective.vector())
    parts = objective.layout.named(random_directions(objective, 1, normalization="layer", biases=True).vectors[0])
    for name, weight in weights.items():
        torch.testing.assert_close(parts[name].norm(), weight.norm(), rtol=1e-5, atol=1e-7)
    lengths = parts["0.weight"].flatten(1).norm(dim=1) / weights["0.weight"].flatten(1).norm(dim=1)
    assert lengths.std() > 1e-3


def test_none_leaves_directions_as_drawn_and_nothing_divides_by_zero():
    objective = convolutional()
    vectors = torch.randn(2, objective.n_parameters)
    assert torch.equal(normalize(vectors, objective.vector(), objective.layout, "none"), vectors)
    empty = torch.zeros(objective.n_parameters)
    assert not normalize(vectors, empty, objective.layout, "filter").any()
    assert not normalize(vectors * 0, objective.vector(), objective.layout, "filter").any()
    with pytest.raises(ValueError, match="filter, layer, none"):
        normalize(vectors, empty, objective.layout, "weight")


def test_a_seed_fixes_the_directions():
    objective = convolutional()
    first, again = random_directions(objective, seed=5), random_directions(objective, seed=5)
    assert torch.equal(first.vectors, again.vectors)
    assert torch.equal(random_directions(objective, 1, seed=5).vectors[0], first.vectors[0])
    assert not torch.equal(random_directions(objective, seed=6).vectors, first.vectors)
    assert first.seed == 5


def test_a_filter_normalised_direction_does_not_see_the_scale_of_layers():
    # ReLU layers ×5, /5 compute the same function; the surface along such directions is the same one.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False)).double()
    x, y = torch.randn(20, 4).double(), torch.randint(0, 3, (20,))
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    before = [float(objective.loss(random_directions(objective, 1).at(objective.vector(), t))) for t in (-1, 0.5, 1)]
    with torch.no_grad():
        model[0].weight *= 5
        model[2].weight /= 5
    after = [float(objective.loss(random_directions(objective, 1).at(objective.vector(), t))) for t in (-1, 0.5, 1)]
    np.testing.assert_allclose(after, before, rtol=1e-6)


def test_hessian_directions_are_eigenvectors(cases):
    model = cases.mlp().double()
    x, y = cases.data()
    objective = Objective(model, nn.CrossEntropyLoss(), [(x.double(), y)])
    found = hessian_directions(objective, which="BE")
    operator = hessian(objective)
    dense = torch.linalg.eigvalsh(operator @ torch.eye(objective.n_parameters, dtype=torch.float64))
    for vector, value in zip(found.vectors, (dense[-1], dense[0]), strict=True):
        torch.testing.assert_close(operator @ vector, value * vector, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found.vectors @ found.vectors.T, torch.eye(2, dtype=torch.float64))


def test_a_plane_holds_its_three_points():
    first, second, third = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    found = plane_directions(first, second, third)
    torch.testing.assert_close(found.vectors @ found.vectors.T, torch.eye(2), rtol=1e-5, atol=1e-6)
    for weights, (a, b) in zip((first, second, third), found.points, strict=True):
        torch.testing.assert_close(found.at(first, a, b), weights, rtol=1e-5, atol=1e-6)
    with pytest.raises(MeasurementError, match="one line"):
        plane_directions(first, second, first + 3 * (second - first))
    with pytest.raises(MeasurementError, match="one line"):
        plane_directions(first, first, third)


def test_at_is_a_true_displacement():
    directions = given_directions([torch.tensor([1.0, 2.0]), torch.tensor([0.0, -1.0])])
    center = torch.tensor([10.0, 20.0])
    assert directions.at(center, 2.0, 3.0).tolist() == [12.0, 21.0]
    assert center.tolist() == [10.0, 20.0]
