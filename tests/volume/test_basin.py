"""The volume of a quadratic's basin against its closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import gammaln
from torch import nn

from landscape import Objective
from landscape._sampling_error import Clusters
from landscape.volume import BasinVolume, basin_volume

CURVATURES = np.geomspace(1e-6, 1, 40)


def closed_form(curvatures, threshold):
    size = len(curvatures)
    ball = size / 2 * math.log(math.pi) - gammaln(size / 2 + 1)
    return ball + size / 2 * math.log(2 * threshold) - np.log(curvatures).sum() / 2


@pytest.mark.parametrize("preconditioner", ["hessian", "diagonal"])
@pytest.mark.parametrize("threshold", [0.01, 1.0])
def test_it_is_the_closed_form_at_condition_a_million(quadratic, preconditioner, threshold):
    found = basin_volume(quadratic(CURVATURES), threshold, rays=4, preconditioner=preconditioner)
    assert found.log_volume == pytest.approx(closed_form(CURVATURES, threshold), abs=0.01)
    assert found.spread < 0.01
    assert found.n_parameters == 40


def test_it_is_the_closed_form_in_turned_coordinates(regression):
    """Squared errors of a linear map: H = XᵀX/n is not diagonal."""
    objective, x, _ = regression
    found = basin_volume(objective, 0.1, rays=4)
    assert found.preconditioner == "hessian"
    assert found.log_volume == pytest.approx(closed_form(np.linalg.eigvalsh(x.T @ x / len(x)), 0.1), abs=0.01)


def test_rays_without_a_preconditioner_miss_by_far_and_say_so(quadratic):
    found = basin_volume(quadratic(CURVATURES), 0.1, rays=20, preconditioner="none")
    assert found.log_volume < closed_form(CURVATURES, 0.1) - 20
    assert found.spread > 3


def test_a_basin_that_is_not_a_quadratic(deep_linear):
    """Of ½(ba − 1)² the estimate is the area of what can be seen from (1, 1) without crossing the rim."""
    found = basin_volume(deep_linear(1, 1, 1, 1), 0.1, rays=200, tol=1e-3)
    angles = (np.arange(20000) + 0.5) * 2 * np.pi / 20000
    steps = np.linspace(0, 30, 30001)[1:]
    area = 0.0
    for angle in angles[::40]:
        rise = ((1 + steps * np.cos(angle)) * (1 + steps * np.sin(angle)) - 1) ** 2 / 2
        out = np.argmax(rise > 0.1) if (rise > 0.1).any() else len(steps) - 1
        area += steps[out] ** 2 / 2 * (2 * np.pi / 500)
    assert abs(found.log_volume - math.log(area)) < 3 * found.stderr + 0.05


def test_the_error_over_examples_is_what_reweighting_the_batches_does():
    generator = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(60, size, generator=generator, dtype=torch.float64) for size in (4, 1))
    model = nn.Linear(4, 1, bias=False).double()
    y = model(x).detach() + 0.3 * noise
    sizes = [10, 20, 30]
    batches = list(zip(x.split(sizes), y.split(sizes), strict=True))

    def measure(chosen: int, share: float) -> tuple[BasinVolume, Clusters]:
        def weight(batch):
            return len(batch[1]) * (1 + share * (len(batch[1]) == sizes[chosen]))

        objective = Objective(model, nn.MSELoss(), batches, batch_weight=weight)
        return basin_volume(objective, 0.5, rays=4, preconditioner="none", tol=1e-8), objective.clusters

    moves = [(measure(b, 1e-3)[0].log_volume - measure(b, -1e-3)[0].log_volume) / 2e-3 for b in range(3)]
    found, clusters = measure(0, 0.0)
    assert found.stderr_sample == pytest.approx(float(clusters.stderr(np.array(moves))), rel=1e-4)


def test_a_flat_direction_is_an_infinite_volume(quadratic):
    found = basin_volume(quadratic([0.0, 0.0]), 0.1, rays=2)
    assert found.log_volume == math.inf
    assert math.isnan(found.stderr)


def test_arguments(quadratic):
    objective = quadratic([1.0, 2.0])
    for given, message in (
        ({"threshold": 0.0}, "threshold is 0.0"),
        ({"rays": 1}, "rays is 1; at least 2 are needed"),
        ({"tol": 1.0}, "tol is 1.0"),
        ({"preconditioner": "adam"}, "preconditioner is 'adam'"),
    ):
        with pytest.raises(ValueError, match=message):
            basin_volume(objective, **given)
