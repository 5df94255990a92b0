"""How often a measure lets the host wait for the device: no more than its decisions need."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from torch import nn

from landscape import Objective
from landscape.compression import noise_radius
from landscape.curvature import diagonal, hessian, spectral_density, spectrum, top_eigenpairs, trace
from landscape.sharpness import average_case, pac_bayes, random_radius, worst_case
from landscape.volume import free_energy, learning_coefficient

# For what comes before the first product or probe and after the last one.
FEW = 6


def _objective(cases: ModuleType, model: nn.Module, device: Any) -> Objective:
    x, y = cases.data(60)
    batches = [(a.to(device), b.to(device)) for a, b in zip(x.split(30), y.split(30), strict=True)]
    found = Objective(model.float().to(device), nn.CrossEntropyLoss(), batches)
    hessian(found)  # the derivatives are checked once an objective
    return found


@pytest.fixture(scope="module")
def objective(cases, pretend) -> Objective:
    """The loss of a network of 55 parameters over two batches, in float32."""
    model = cases.trained(cases.mlp(width=4), nn.CrossEntropyLoss(), [cases.data(60)], steps=40)
    return _objective(cases, model, pretend)


@pytest.fixture(scope="module")
def linear(cases, pretend) -> Objective:
    """The loss of a linear model of 15 parameters over two batches, in float32."""
    return _objective(cases, cases.trained(nn.Linear(4, 3), nn.CrossEntropyLoss(), [cases.data(60)], steps=40), pretend)


@pytest.fixture
def count(accelerator: ModuleType) -> Callable[[Callable[[], Any]], tuple[int, Any]]:
    """Returns how often a measure waits, and its result."""

    def counted(measure: Callable[[], Any]) -> tuple[int, Any]:
        with accelerator.counted() as waits:
            found = measure()
        return sum(waits.values()), found

    return counted


def test_losses_and_gradients_do_not_wait(count, objective):
    assert count(objective.loss)[0] == 0
    assert count(objective.gradient)[0] == 0
    assert count(objective.evaluate)[0] == 1


def test_products_wait_once_each_at_most(count, objective):
    operator, rebuilt = hessian(objective), hessian(objective, strategy="rebuilt")
    vector = objective.vector()
    assert count(lambda: operator @ vector)[0] == 1
    assert count(lambda: rebuilt @ vector)[0] == 1


@pytest.mark.parametrize(
    "measure",
    [
        lambda operator: top_eigenpairs(operator, k=2, method="lanczos"),
        lambda operator: top_eigenpairs(operator, k=2, method="lanczos", memory="low"),
        lambda operator: spectrum(operator, k=2, probes=2, steps=12, max_matvecs=30),
        lambda operator: spectral_density(operator, probes=2, steps=8),
        lambda operator: trace(operator, "hutchinson", max_matvecs=12),
        lambda operator: trace(operator, "xtrace", max_matvecs=24),
        lambda operator: diagonal(operator, "bekas", max_matvecs=12),
    ],
    ids=["top_eigenpairs", "low memory", "spectrum", "spectral_density", "hutchinson", "xtrace", "bekas"],
)
def test_curvature_waits_once_a_product_at_most(count, objective, measure):
    operator = hessian(objective)
    waits, found = count(lambda: measure(operator))
    assert found.n_matvecs >= 10
    assert waits <= found.n_matvecs + FEW


def test_average_case_waits_for_all_its_probes_at_once(count, objective):
    few, many = (count(lambda draws=draws: average_case(objective, draws=draws))[0] for draws in (4, 12))
    assert few == many <= FEW


def test_noise_tolerances_wait_once_for_the_probes_of_a_size(count, objective):
    waits, found = count(lambda: pac_bayes(objective, draws=6, tol=0.3))
    assert waits <= found.n_evaluations / 6 + FEW
    waits, found = count(lambda: noise_radius(objective, [0.1], draws=6, tol=0.3))
    # A size takes one wait; so does asking for the size of the weights of each tensor, at the end.
    assert waits <= found.n_evaluations / 6 + FEW + 6 * len(found.names)


def test_searches_wait_once_an_evaluation_at_most(count, objective):
    # The next point of a ray depends on the loss at the last one, and so does the next step of an ascent.
    waits, found = count(lambda: random_radius(objective, draws=1, tol=0.5))
    assert waits <= 12 + FEW, found
    waits, _ = count(lambda: worst_case(objective, steps=8))
    assert waits <= 8 + FEW


@pytest.mark.parametrize("method", ["sgld", "mala"])
def test_chains_wait_once_in_ten_steps_at_most(count, linear, method):
    short, long = (
        count(
            lambda draws=draws: learning_coefficient(
                linear, chains=1, draws=draws, burn_in=4, step_size=1e-4, method=method
            )
        )[0]
        for draws in (28, 92)
    )
    assert 0 < long - short <= 64 / 10


def test_the_free_energy_waits_once_in_ten_steps_at_most(count, linear):
    waits, found = count(lambda: free_energy(linear, chains=1, draws=80, burn_in=40, points=2))
    assert len(found.at) == 2
    steps = 2 * (80 + 40 + 100)  # and the pilots', at least, at both points
    assert waits <= steps / 10 + 2 * FEW  # for curvature, which sets the step sizes
