"""What holds for every sharpness measure, whatever it measures."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

from landscape import MeasurementError, Objective, sharpness
from landscape.sharpness import Ladder

# name -> (function, settings that draw, measure cheaply and cover a variant)
EVERY = {
    "sam": ("sam", {}),
    "sam linf": ("sam", {"norm": "linf"}),
    "m_sharpness": ("m_sharpness", {"m": 10}),
    "asam": ("asam", {}),
    "asam elementwise": ("asam", {"variant": "elementwise"}),
    "average_case": ("average_case", {}),
    "average_case plain linf": ("average_case", {"adaptive": False, "norm": "linf"}),
    "worst_case": ("worst_case", {}),
    "worst_case linf": ("worst_case", {"norm": "linf", "rho": 0.1}),
    "keskar": ("keskar", {}),
    "keskar subspace": ("keskar", {"subspace": 10, "draws": 3}),
    "pac_bayes": ("pac_bayes", {"draws": 6, "tol": 0.1}),
    "pac_bayes magnitude": ("pac_bayes", {"magnitude_aware": True, "draws": 6, "tol": 0.1}),
    "random_radius": ("random_radius", {"draws": 5}),
    "random_radius plain": ("random_radius", {"adaptive": False, "draws": 5}),
    "gradient_norm": ("gradient_norm", {}),
    "gradient_norm adaptive": ("gradient_norm", {"adaptive": True}),
    "fisher_rao": ("fisher_rao", {}),
    "lambda_max_chc": ("lambda_max_chc", {}),
    "trace_chc": ("trace_chc", {}),
    "relative_flatness": ("relative_flatness", {"layer": "2"}),
    "relative_flatness max": ("relative_flatness", {"layer": "2", "kind": "max"}),
}
RUNGS = {"pac_bayes": "drop", "random_radius": "threshold"}
ONE_NUMBER = {"gradient_norm", "fisher_rao", "lambda_max_chc", "trace_chc", "relative_flatness"}
LADDERS = [name for name, (function, _) in EVERY.items() if function not in ONE_NUMBER]
# A global: what the loss function itself holds would be put back with the rest.
CALLS = {"allowed": 0}


def measure(name, objective, **more):
    function, settings = EVERY[name]
    return getattr(sharpness, function)(objective, **(settings | more))


@pytest.fixture(scope="module")
def network(cases):
    x, y = cases.data(60)
    return cases.trained(cases.mlp(nn.ReLU), nn.CrossEntropyLoss(), [(x, y)], steps=60), [
        (x[:30], y[:30]),
        (x[30:], y[30:]),
    ]


@pytest.mark.parametrize("name", EVERY)
def test_one_seed_gives_one_number_and_nothing_is_left_displaced(network, name):
    model, batches = network
    model.train()
    model.zero_grad()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    objective = Objective(model, nn.CrossEntropyLoss(), batches)
    before = copy.deepcopy(model.state_dict())
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first = measure(name, objective)
    torch.manual_seed(99)
    np.random.seed(99)
    second = measure(name, objective)
    assert first == second
    assert np.isfinite(first.value)
    assert first.stderr >= 0
    torch.set_rng_state(states[0])
    third = measure(name, objective)
    assert first == third
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[2]
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert model[2].weight.grad is None
    assert model.training


@pytest.mark.parametrize(
    "name", ["average_case", "average_case plain linf", "keskar subspace", "random_radius", "pac_bayes"]
)
def test_another_seed_gives_another_number(network, name):
    model, batches = network
    objective = Objective(model, nn.CrossEntropyLoss(), batches)
    assert measure(name, objective, seed=1).value != measure(name, objective, seed=2).value


@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_left_displaced_by_a_failure(network, name):
    model, batches = network

    def failing(scores, target):
        CALLS["allowed"] -= 1
        if CALLS["allowed"] < 0:
            raise RuntimeError("out of luck")
        return nn.functional.cross_entropy(scores, target)

    CALLS["allowed"] = 10
    objective = Objective(model, failing, batches)
    CALLS["allowed"] = 1  # of two batches
    before = objective.vector()
    with pytest.raises(RuntimeError, match="out of luck"):
        measure(name, objective)
    assert torch.equal(objective.vector(), before)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", LADDERS)
def test_a_ladder_is_its_rungs(network, name):
    model, batches = network
    objective = Objective(model, nn.CrossEntropyLoss(), batches)
    setting = RUNGS.get(EVERY[name][0], "rho")
    values = [0.02, 0.05, 0.1]
    ladder = measure(name, objective, **{setting: values})
    assert isinstance(ladder, Ladder)
    assert ladder.name == setting
    assert ladder.at.tolist() == values
    for value, rung in zip(values, ladder, strict=True):
        single = measure(name, objective, **{setting: value})
        assert (rung.value, rung.stderr, rung.n, rung.seed) == (single.value, single.stderr, single.n, single.seed)
    assert ladder.value.tolist() == [rung.value for rung in ladder]
    assert measure(name, objective, **{setting: np.array([0.05])}).value.shape == (1,)
    with pytest.raises(ValueError, match=f"{setting} is empty"):
        measure(name, objective, **{setting: []})
    with pytest.raises(ValueError, match=f"{setting} is -1"):
        measure(name, objective, **{setting: [0.1, -1.0]})


def test_a_ladder_prints_and_turns_into_arrays(network):
    model, batches = network
    ladder = measure("average_case", Objective(model, nn.CrossEntropyLoss(), batches), rho=[0.1, 0.2], seed=5)
    fields = ladder.to_dict()
    assert fields["rho"].tolist() == [0.1, 0.2]
    assert fields["value"].shape == fields["stderr"].shape == (2,)
    assert (fields["n"], fields["seed"]) == (10, 5)
    assert str(ladder).splitlines()[1].startswith("rho = 0.2: ")
    assert len(ladder) == 2


@pytest.mark.parametrize("name", EVERY)
def test_a_loss_that_is_no_number_is_refused(cases, name):
    x, y = cases.data()
    with pytest.raises(MeasurementError, match="nan|not finite|NaN"):
        measure(name, Objective(cases.mlp(), nn.CrossEntropyLoss(), [(x * torch.nan, y)]))


@pytest.mark.parametrize("name", EVERY)
def test_a_pruned_network_has_finite_numbers(pruned, cases, name):
    objective = Objective(pruned, nn.CrossEntropyLoss(), [cases.data(60)])
    measured = measure(name, objective)
    # Noise may never cost a hardly trained network a tenth of its accuracy: that is said, not numbered.
    if EVERY[name][0] != "pac_bayes" or np.isfinite(measured.sigma):
        assert np.isfinite(measured.value)


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("asam elementwise", 2),
        ("average_case", None),
        ("worst_case", 2),
        ("worst_case linf", np.inf),
        ("random_radius", None),
    ],
)
def test_zeros_of_a_pruned_network_stay_and_the_rest_stays_in_the_ball(pruned, watched, cases, name, norm):
    model, visited = watched(pruned)
    objective = Objective(model, nn.CrossEntropyLoss(), [cases.data(60)])
    objective.derivatives.gradient(objective)  # looks around the weights, once, before the measure
    visited.clear()
    measure(name, objective, **({"rho": 0.1} if norm else {}))
    weights = objective.vector()
    deltas = torch.stack(visited) - weights
    assert deltas.any()
    assert not deltas[:, weights == 0].any()
    if norm:
        ratios = (deltas[:, weights != 0] / weights[weights != 0].abs()).double()
        assert float(torch.linalg.vector_norm(ratios, ord=norm, dim=1).max()) <= 0.1 * (1 + 1e-5)


ADAPTIVE = {
    "asam elementwise",
    "average_case",
    "worst_case",
    "worst_case linf",
    "random_radius",
    "gradient_norm adaptive",
    "fisher_rao",
    "lambda_max_chc",
    "trace_chc",
    "relative_flatness",
    "relative_flatness max",
}


def test_rescaled_layers_leave_the_adaptive_measures_alone(network):
    # docs/which-flatness.md has all of them under more changes; its own test is slow.
    model, batches = network
    rescaled = copy.deepcopy(model)
    with torch.no_grad():
        rescaled[0].weight *= 5
        rescaled[0].bias *= 5
        rescaled[2].weight /= 5
    before, after = (Objective(m, nn.CrossEntropyLoss(), batches) for m in (model, rescaled))
    for name in ADAPTIVE:
        assert measure(name, after).value == pytest.approx(measure(name, before).value, rel=1e-6), name
    for name in ("sam", "m_sharpness", "average_case plain linf", "keskar", "random_radius plain", "gradient_norm"):
        assert measure(name, after).value != pytest.approx(measure(name, before).value, rel=0.1), name


def test_measures_with_a_radius_are_called_alike(network):
    model, batches = network
    objective = Objective(model, nn.CrossEntropyLoss(), batches)
    for name in ("average_case", "worst_case", "sam", "keskar"):
        for adaptive in (True, False):
            found = getattr(sharpness, name)(objective, rho=0.01, adaptive=adaptive, norm="linf", seed=0)
            assert found.value > 0
            assert found.stderr >= 0
            if name != "keskar":  # a box, so it says that there is no ball in l2
                assert getattr(sharpness, name)(objective, 0.01, adaptive, "l2", seed=0).value > 0
