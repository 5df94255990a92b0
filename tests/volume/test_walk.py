"""The noise of large chains, and steps in place, against what they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import nn

from landscape import Objective
from landscape.volume import learning_coefficient
from landscape.volume._langevin import Proposal, run_chain
from landscape.volume._noise import Noise, stream
from landscape.volume._posterior import LocalPosterior


@pytest.mark.parametrize("size", [8, 7])
def test_numbers_that_stand_four_times_have_the_moments_of_independent_ones(size):
    noise = Noise(stream(0), torch.empty(size), times=4)
    drawn = torch.stack([noise.vector() for _ in range(8000)]).double().numpy()
    error = 1 / np.sqrt(len(drawn))
    assert np.abs(drawn.mean(axis=0)).max() < 4 * error
    # Entries of one vector that come from one number have a product of variance 3.
    np.testing.assert_allclose(drawn.T @ drawn / len(drawn), np.eye(size), atol=4 * np.sqrt(3) * error)
    np.testing.assert_allclose(drawn[1:].T @ drawn[:-1] / len(drawn), 0, atol=4 * error)
    assert all(kstest(drawn[:, place], "norm").pvalue > 1e-4 for place in range(size))


def test_only_large_vectors_repeat_numbers():
    small, large = (Noise(stream(0), torch.empty(size)).vector().abs() for size in (1000, 40000))
    assert len(small.unique()) > 990
    assert len(large.unique()) == pytest.approx(10000, abs=100)
    assert len(Noise(stream(0), torch.empty(40000), times=1).vector().abs().unique()) > 39000


def test_a_vector_is_its_parts():
    sum_of_parts = torch.zeros(30)
    for places, numbers, sign in Noise(stream(1), sum_of_parts, times=4).parts():
        sum_of_parts[places] += sign * numbers
    torch.testing.assert_close(sum_of_parts, Noise(stream(1), sum_of_parts, times=4).vector(), rtol=0, atol=0)


@pytest.mark.parametrize("scale", [None, torch.linspace(0.5, 2, 10, dtype=torch.float64)])
@pytest.mark.parametrize("gamma", [0.0, 3.0])
def test_steps_in_place_are_the_steps_that_are_looked_into(quadratic, scale, gamma):
    objective = quadratic(np.geomspace(0.1, 1, 20), batches=4, spread=1.0)
    with objective.session():
        posterior = LocalPosterior(objective, 100.0, gamma, "second")
        inside, outside = (
            run_chain(posterior, Proposal(0.002, scale), 50, (3, 0), probe_every=every) for every in (1000, 1)
        )
    np.testing.assert_allclose(inside.excess, outside.excess, rtol=1e-10, atol=1e-14)
    assert (inside.evaluations, outside.evaluations) == (51, 100)
    assert np.ptp(inside.excess) > 0


@pytest.mark.parametrize("stiffness", [0.2, 1.0])
def test_repeated_numbers_leave_a_quadratics_spread_as_it_is(quadratic, stiffness):
    """Σ ½/(1 − ε nβ h/4), which so many parameters show to a thousandth."""
    curvatures = np.repeat([0.5, 1.0], 10000)
    objective = quadratic(curvatures, batches=2)
    with objective.session():
        posterior = LocalPosterior(objective, 100.0, 0.0)
        run = run_chain(posterior, Proposal(stiffness / 100), 500, (0, 0))
    recorded = 100 * run.excess[200:]
    expected = (0.5 / (1 - stiffness * curvatures / 4)).sum()
    assert recorded.mean() == pytest.approx(expected, rel=0.003)
    assert expected > 1.03 * len(curvatures) / 2


class Quartic(nn.Module):
    """Σ w⁴/4 for every example."""

    def __init__(self, size: int):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w.square().square().sum() / 4 + 0 * x.sum()


def stationary_mean(nbeta: float, gamma: float, step: float) -> float:
    """Mean of w⁴/4 under the stationary law of the discrete chain, from its transition kernel on a grid."""
    grid = np.linspace(-3, 3, 601)
    ahead = grid - step / 2 * (nbeta * grid**3 + gamma * grid)
    kernel = np.exp(-((grid - ahead[:, None]) ** 2) / (2 * step))
    kernel /= kernel.sum(axis=1, keepdims=True)
    law = np.full(len(grid), 1 / len(grid))
    for _ in range(12):
        kernel = kernel @ kernel
    return float(law @ kernel @ grid**4 / 4)


@pytest.mark.slow
def test_repeated_numbers_are_honest_where_no_loss_is_quadratic():
    """Each parameter's own law is that of independent noise, so λ̂ is exact; the standard error sees the rest."""
    size, nbeta, gamma, step = 2**14, 10.0, 1.0, 0.04
    batches = [(torch.zeros(2, 1), torch.zeros(2)), (torch.zeros(3, 1), torch.zeros(3))]
    objective = Objective(Quartic(size), lambda out, y: out + 0 * y.sum(), batches)
    found = [
        learning_coefficient(objective, 2, 200, gamma, seed, nbeta=nbeta, step_size=step, burn_in=100)
        for seed in range(8)
    ]
    exact = nbeta * size * stationary_mean(nbeta, gamma, step)
    misses = np.array([(one.value - exact) / one.stderr for one in found])
    assert abs(misses.mean()) < 3 / np.sqrt(len(found))
    assert 0.5 < np.sqrt(np.square(misses).mean()) < 1.7
    assert max(one.stderr for one in found) < 0.005 * exact
