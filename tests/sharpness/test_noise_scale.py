"""The gradient noise scale against populations whose noise and signal are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from landscape import MeasurementError, Objective
from landscape.sharpness import gradient_noise_scale
from landscape.sharpness._noise_scale import from_gradients


class Point(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(size, dtype=torch.float64))

    def forward(self, x):
        return x @ self.w


def linear(out, _):
    """The mean of w·x: the gradient of an example is x itself."""
    return out.mean()


def objective_of(x, sizes):
    batches = [(part, torch.zeros(len(part))) for part in x.split(sizes)]
    return Objective(Point(x.shape[1]), linear, batches)


@pytest.mark.parametrize("sizes", [[5, 5, 5, 5], [3, 9, 8]])
def test_gradients_of_examples_give_the_closed_form(sizes):
    x = torch.randn(sum(sizes), 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 1
    found = gradient_noise_scale(objective_of(x, sizes))
    means = torch.stack([part.mean(dim=0) for part in x.split(sizes)])
    weights = torch.tensor(sizes, dtype=torch.float64)
    noise = float((weights * ((means - x.mean(dim=0)) ** 2).sum(dim=1)).sum()) / (len(sizes) - 1)
    signal = float(x.mean(dim=0) @ x.mean(dim=0)) - noise / len(x)
    assert found.noise == pytest.approx(noise, rel=1e-10)
    assert found.signal == pytest.approx(signal, rel=1e-10)
    assert found.value == pytest.approx(noise / signal, rel=1e-10)


def test_groups_of_one_example_give_the_sample_covariance():
    x = torch.randn(24, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 1
    found = gradient_noise_scale(objective_of(x, [24]), group=1)
    assert found.n == 24
    assert found.noise == pytest.approx(float(torch.cov(x.T).trace()), rel=1e-10)


def test_noise_and_signal_are_unbiased_and_the_error_is_that_of_repeated_draws():
    generator = torch.Generator().manual_seed(0)
    mean, scale = torch.full((8,), 0.5, dtype=torch.float64), torch.linspace(0.5, 2, 8, dtype=torch.float64)
    found = []
    for _ in range(400):
        x = mean + scale * torch.randn(8, 32, 8, generator=generator, dtype=torch.float64)
        found.append(from_gradients(x.mean(dim=1), torch.full((8,), 32.0, dtype=torch.float64)))
    noise, signal = float((scale**2).sum()), float(mean @ mean)
    for values, exact in (([f.noise for f in found], noise), ([f.signal for f in found], signal)):
        assert abs(np.mean(values) - exact) < 4 * np.std(values) / math.sqrt(len(values))
    values = np.array([f.value for f in found])
    assert np.sqrt(np.mean([f.stderr**2 for f in found])) == pytest.approx(values.std(), rel=0.3)
    inside = [low <= noise / signal <= high for low, high in (f.interval() for f in found)]
    assert 0.88 < np.mean(inside) < 0.98
    assert inside == [abs(f.value - noise / signal) <= 1.959964 * f.stderr_sample for f in found]


def test_what_cannot_be_known_is_not_a_number():
    x = torch.cat([torch.ones(2, 2), -torch.ones(2, 2)]).double()
    found = gradient_noise_scale(objective_of(x, [2, 2]))
    assert found.signal < 0
    assert math.isnan(found.value)
    assert math.isnan(found.stderr)


def test_what_has_no_groups_or_no_examples_is_refused():
    x = torch.ones(4, 2, dtype=torch.float64)
    with pytest.raises(MeasurementError, match="at least two groups"):
        gradient_noise_scale(objective_of(x, [4]))
    pairs = [(part, torch.zeros(4)) for part in torch.randn(8, 2, dtype=torch.float64).split(4)]

    def contrast(out, _):  # the spread of a batch: no mean over its examples
        return torch.logsumexp(out, dim=0) + (out - out.mean()).pow(2).sum().sqrt()

    model = Point(2)
    nn.init.ones_(model.w)
    with pytest.warns(UserWarning, match="mean over the batches"):
        objective = Objective(model, contrast, pairs)
    with pytest.raises(MeasurementError, match="no mean over examples|not over examples"):
        gradient_noise_scale(objective)
