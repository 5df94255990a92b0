"""Errors over examples: to first order each is what reweighting the batches does to the number, and intervals cover."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective, sharpness
from landscape.sharpness._noise import draw

SIZES = [12, 9, 15, 24]
UPDATE = -0.5
# name -> (settings under which a search is exact enough to be differentiated, relative accuracy)
SMOOTH: dict[str, tuple[dict[str, Any], float]] = {
    "gradient_norm": ({}, 1e-5),
    "sam": ({}, 0.1),  # the ascent's direction, which moves too, is held fixed
    "average_case": ({"draws": 4}, 1e-5),
    "worst_case": ({"rho": 0.05, "steps": 40}, 1e-2),
    "keskar": ({"iterations": 40}, 1e-3),
    "random_radius": ({"draws": 2, "tol": 1e-7}, 1e-4),
    "fisher_rao": ({"kind": "exact"}, 1e-5),
    "critical_sharpness": ({"tol": 1e-6, "max_evaluations": 60}, 1e-4),
    "directional_sharpness": ({}, 1e-5),
}


@pytest.fixture(scope="module")
def data(cases) -> tuple[nn.Module, list[Any]]:
    x, y = cases.data(sum(SIZES))
    model = cases.trained(cases.mlp(nn.Tanh).double(), nn.CrossEntropyLoss(), [(x.double(), y)], steps=30)
    return model, list(zip(x.double().split(SIZES), y.split(SIZES), strict=True))


def reweighted(model: nn.Module, batches: list[Any], chosen: int, share: float) -> Objective:
    """The objective with the weight of one batch raised by a share."""

    def weight(batch: Any) -> float:
        return len(batch[1]) * (1 + share * (len(batch[1]) == SIZES[chosen]))

    return Objective(model, nn.CrossEntropyLoss(), batches, batch_weight=weight)


def moved(data: Any, measure: Callable[[Objective], float]) -> float:
    """The error over examples of a number by difference quotients in the weights of the batches."""
    step, moves = 1e-3, []
    for chosen in range(len(SIZES)):
        up, down = (measure(reweighted(*data, chosen, side * step)) for side in (1, -1))
        moves.append((up - down) / (2 * step))
    # Raising all weights alike changes nothing.
    assert sum(moves) == pytest.approx(0, abs=1e-2 * max(np.abs(moves)))
    clusters = reweighted(*data, 0, 0.0).clusters
    assert clusters is not None
    return float(clusters.stderr(np.array(moves)))


@pytest.mark.parametrize("name", SMOOTH)
def test_the_error_is_what_reweighting_the_batches_does(data, name):
    settings, accuracy = SMOOTH[name]
    measure = functools.partial(getattr(sharpness, name), **settings)
    if "update" in measure.func.__wrapped__.__annotations__:
        measure = functools.partial(measure, update=UPDATE * reweighted(*data, 0, 0.0).gradient())
    found = measure(reweighted(*data, 0, 0.0))
    assert found.stderr_sample == pytest.approx(moved(data, lambda one: measure(one).value), rel=accuracy)


def test_the_numbers_along_a_step_have_errors_of_their_own(data):
    objective = reweighted(*data, 0, 0.0)
    step = UPDATE * objective.gradient()
    measure = functools.partial(sharpness.directional_sharpness, update=step, learning_rate=0.3, weight_decay=0.1)
    found = measure(objective)
    for name in ("slope", "critical"):
        expected = moved(data, lambda one, name=name: getattr(measure(one), name))
        assert getattr(found, f"{name}_stderr_sample") == pytest.approx(expected, rel=1e-5)
    assert found.forms.sum() == pytest.approx(float(step @ found.product))
    given = measure(objective, gradient=objective.gradient())  # whose groups are not known
    assert math.isnan(given.slope_stderr_sample)
    assert math.isnan(given.critical_stderr_sample)
    assert given.stderr_sample == found.stderr_sample
    decayed = sharpness.critical_sharpness(objective, step, 0.3, weight_decay=0.1, tol=1e-6, max_evaluations=60)
    expected = moved(
        data,
        lambda one: sharpness.critical_sharpness(one, step, 0.3, weight_decay=0.1, tol=1e-6, max_evaluations=60).value,
    )
    assert decayed.stderr_sample == pytest.approx(expected, rel=1e-4)


def test_subspaces_of_keskars_sharpness_share_the_examples(data):
    measure = functools.partial(sharpness.keskar, rho=1e-2, subspace=3, draws=2, iterations=40)
    expected = moved(data, lambda one: measure(one).value)
    found = measure(reweighted(*data, 0, 0.0))
    assert found.stderr_sample == pytest.approx(expected, rel=1e-3)
    assert found.stderr > 0


def test_the_noise_that_the_accuracy_stands_moves_with_the_errors(data):
    model, batches = data
    objective = Objective(model, nn.CrossEntropyLoss(), batches)
    found = sharpness.pac_bayes(objective, 0.2, draws=6, seed=4)
    weights, width = objective.vector(), 0.2

    def wrong(sigma: float) -> np.ndarray:
        """Mean number of wrong labels in each batch under the noise."""
        counts = []
        for index in range(6):
            moved = copy.deepcopy(model)
            nn.utils.vector_to_parameters(weights + sigma * draw(139, "l2", 4, index).double(), moved.parameters())
            counts.append([int((moved(x).argmax(1) != y).sum()) for x, y in batches])
        return np.mean(counts, axis=0)

    low, high = (wrong(found.sigma * math.exp(side * width)) for side in (-1, 1))
    slope = (high - low).sum() / sum(SIZES) / (2 * width)
    rises = ((low + high) / 2 - wrong(0.0)) / sum(SIZES)
    # d(σ⁻²) = −2σ⁻² d(ln σ), and ln σ moves by −(move of the rise)/slope.
    expected = 2 * found.value / slope * float(objective.clusters.stderr(rises))
    assert found.stderr_sample == pytest.approx(expected, rel=1e-9)


def test_the_fisher_rao_norm_of_the_labels_is_a_mean_of_squares_over_examples(data):
    model, batches = data
    objective = Objective(model, nn.CrossEntropyLoss(), batches)
    weights = objective.vector()
    squares = []
    for x, y in batches:
        for one, label in zip(x, y, strict=True):
            loss = nn.functional.cross_entropy(model(one[None]), label[None])
            gradient = torch.autograd.grad(loss, list(model.parameters()))
            squares.append(float(torch.cat([part.reshape(-1) for part in gradient]) @ weights) ** 2)
    parts = np.add.reduceat(squares, np.cumsum([0, *SIZES[:-1]])) / len(squares)
    found = sharpness.fisher_rao(objective)
    assert found.value**2 == pytest.approx(np.mean(squares))
    assert found.stderr_sample == pytest.approx(float(objective.clusters.stderr(parts)) / (2 * found.value))


# ---------------------------------------------------------------------- coverage

POPULATION, EACH, BATCHES = 8_000, 60, 8
# name -> (settings, number of draws of the examples)
COVERED: dict[str, tuple[dict[str, Any], int]] = {
    "gradient_norm": ({}, 200),
    "average_case": ({"draws": 2}, 200),
}
SLOW: dict[str, tuple[dict[str, Any], int]] = {
    "sam": ({}, 200),
    "fisher_rao": ({}, 200),
    "worst_case": ({"steps": 3}, 200),
    "directional_sharpness": ({}, 200),
    "keskar": ({}, 200),
    "pac_bayes": ({"draws": 4, "tol": 0.1}, 150),
    "random_radius": ({"draws": 4}, 250),
    "critical_sharpness": ({}, 300),
    "lambda_max_chc": ({}, 200),
    "trace_chc": ({}, 200),
}
EVERY = [
    *(pytest.param(name, *given, id=name) for name, given in COVERED.items()),
    *(pytest.param(name, *given, id=name, marks=pytest.mark.slow) for name, given in SLOW.items()),
]


@pytest.fixture(scope="module")
def population() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Logistic regression on features of different sizes, away from its minimum."""
    generator = torch.Generator().manual_seed(0)
    scales = 0.7 ** torch.arange(6, dtype=torch.float64)
    x = torch.randn(POPULATION, 6, generator=generator, dtype=torch.float64) * scales + 0.3
    truth = torch.tensor([2.0, -3.0, 1.0, 2.0, -1.0, 3.0], dtype=torch.float64)
    y = torch.bernoulli(torch.sigmoid(x @ truth), generator=generator).long()
    model = nn.Linear(6, 2).double()
    with torch.no_grad():
        model.weight.copy_(torch.stack([torch.zeros(6, dtype=torch.float64), 0.6 * truth]))
        model.weight[0] = torch.tensor([0.2, 0.4, -0.3, 0.1, 0.5, -0.2])
        model.bias.copy_(torch.tensor([0.1, -0.2]))
    return model, x, y


@pytest.mark.parametrize(("name", "settings", "draws"), EVERY)
def test_intervals_over_examples_cover_the_population(population, name, settings, draws):
    model, x, y = population
    measure = functools.partial(getattr(sharpness, name), **settings)
    whole = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    if "update" in measure.func.__wrapped__.__annotations__:
        measure = functools.partial(measure, update=-0.2 * whole.gradient())
    exact = measure(whole).value
    held = list(zip(x[: EACH * BATCHES].split(EACH), y[: EACH * BATCHES].split(EACH), strict=True))
    objective = Objective(model, nn.CrossEntropyLoss(), [(one.clone(), label.clone()) for one, label in held])
    generator = torch.Generator().manual_seed(5)
    hits = 0
    for _ in range(draws):
        # Other examples in the same batches, in place: the first look at them would cost more than the measure.
        for inputs, labels in objective.batches:
            chosen = torch.randint(POPULATION, (EACH,), generator=generator)
            inputs.copy_(x[chosen])
            labels.copy_(y[chosen])
        found = measure(objective)
        hits += abs(found.value - exact) <= 1.96 * found.stderr_sample
    assert 0.90 <= hits / draws <= 0.98
