"""The quantisation law: exact for fine grids on quadratics, of the right size on a trained network."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from landscape import Objective
from landscape.compression import bits, quantisation_law


def many(seed: int = 0) -> dict[str, torch.Tensor]:
    """30,700 weights in tensors of different scales and laws."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(200, 100, generator=generator, dtype=torch.float64)
    b = 0.01 * torch.rand(700, generator=generator, dtype=torch.float64)
    c = 30 * torch.randn(100, 100, generator=generator, dtype=torch.float64)
    return {"a": a, "b": b, "c": c}


def test_a_quadratic_of_many_weights(quadratic):
    tensors = many()
    generator = torch.Generator().manual_seed(1)
    curvature = torch.cat(
        [
            torch.rand(w.numel(), generator=generator, dtype=torch.float64) / w.square().mean() * h
            for w, h in zip(tensors.values(), (1e-3, 1e-2, 3e-3), strict=True)
        ]
    )
    objective = quadratic(tensors, curvature)
    curve = bits(objective)
    law = quantisation_law(objective, curve)
    size = torch.cat([w.square().mean().sqrt().expand(w.numel()) for w in tensors.values()])
    exact = curvature * size**2
    shares = [float(part.sum()) for part in exact.split(objective.layout.sizes)]
    assert np.all(np.abs(law.tensor_curvature - shares) <= 3 * law.tensor_curvature_stderr + 1e-9 * np.array(shares))
    assert law.curvature == pytest.approx(float(exact.sum()), abs=3 * law.curvature_stderr)
    assert law.curvature_stderr < 0.02 * law.curvature
    fine = (law.rung_knob < 0.7) & (law.measured_rise > 0)
    assert fine.sum() >= 4
    # Var of ½ h e² with e uniform: (½ h)² Δ⁴ / 180.
    error = law.rung_knob**2 / 2 * math.sqrt(float(exact.square().sum()) / 180)
    foretold = law.rung_knob**2 * float(exact.sum()) / 24
    assert np.all(np.abs(law.measured_rise - foretold)[fine] < 4 * error[fine])
    assert np.all(error[fine] < 0.01 * foretold[fine])
    assert np.all(np.abs(law.predicted_rise - foretold) <= 3 * law.predicted_rise_stderr)
    assert law.measured_knob[:2] == pytest.approx(law.predicted_knob[:2], rel=0.05)
    assert law.measured_rise.tolist() == curve.rung_rise.tolist()


def test_the_law_is_the_sum_over_tensors(quadratic):
    tensors = {name: w[:3] for name, w in many().items()}
    size = sum(w.numel() for w in tensors.values())
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    matrix = root @ root.T / size
    law = quantisation_law(quadratic(tensors, matrix), tol=0.02, max_matvecs=400)
    blocks = matrix.diagonal().split([w.numel() for w in tensors.values()])
    exact = [float(w.square().mean() * block.sum()) for w, block in zip(tensors.values(), blocks, strict=True)]
    assert np.all(np.abs(law.tensor_curvature - exact) < 4 * law.tensor_curvature_stderr + 1e-9 * np.array(exact))
    assert law.curvature == pytest.approx(sum(law.tensor_curvature))
    assert law.curvature_stderr == pytest.approx(math.hypot(*law.tensor_curvature_stderr))
    assert law.predicted_rise == pytest.approx(law.curvature * law.rung_knob**2 / 24)
    assert law.predicted_knob == pytest.approx(np.sqrt(24 * law.tolerances / law.curvature))
    assert law.predicted_knob_stderr == pytest.approx(
        [(math.sqrt(24 * e / (law.curvature - 1e-4 * law.curvature_stderr)) - knob) * 1e4
         for e, knob in zip(law.tolerances, law.predicted_knob, strict=True)], rel=1e-3
    )  # fmt: skip
    assert law.n_matvecs > 0
    assert law.converged


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(images[:600] / 16), torch.tensor(labels[:600])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model, [(inputs, targets)]


def test_a_trained_network_within_a_factor(digits):
    # The law is known to hold to a factor of about two only; a wrong constant or power would be off by far more.
    law = quantisation_law(Objective(digits[0], nn.functional.cross_entropy, digits[1]))
    ratio = law.measured_knob / law.predicted_knob
    assert np.all((ratio > 0.25) & (ratio < 4))


def test_layer_rescaling_changes_neither_prediction_nor_measurement(digits):
    model, batches = digits
    rescaled = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in rescaled[0].parameters():
            parameter *= 5.0
        rescaled[2].weight /= 5.0
    one, other = (quantisation_law(Objective(m, nn.functional.cross_entropy, batches)) for m in (model, rescaled))
    assert other.tensor_curvature == pytest.approx(one.tensor_curvature, rel=1e-6)
    assert other.measured_rise == pytest.approx(one.measured_rise, rel=1e-6)


def test_tensors_of_zeros_and_curvature_that_is_not_positive(quadratic):
    law = quantisation_law(quadratic({"a": torch.zeros(40), "b": torch.ones(40)}, -torch.ones(80)))
    assert law.tensor_curvature == pytest.approx([0, -40])
    assert np.isnan([*law.predicted_knob, *law.predicted_knob_stderr]).all()
    assert np.all(law.predicted_rise < 0)


def test_what_is_refused(quadratic):
    objective = quadratic({"w": torch.ones(30)}, torch.ones(30))
    other = quadratic({"v": torch.ones(30)}, torch.ones(30))
    with pytest.raises(ValueError, match="the curve is of 30 parameters in 1 tensors, other ones than"):
        quantisation_law(objective, bits(other))
    with pytest.raises(ValueError, match="the law is of uniform grids, and the curve of the family 'zip'"):
        quantisation_law(objective, dataclasses.replace(bits(objective), family="zip"))
