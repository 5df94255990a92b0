"""The preconditioner read from an optimizer's state is what the optimizer divides its next gradients by."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from landscape import MeasurementError, Objective
from landscape.sharpness import preconditioner
from landscape.sharpness._preconditioner import coupled_decay

RATE = 1e-3
# name -> (class, settings, factor from gradient to step where the first moment is the gradient alone)
OPTIMIZERS = {
    "adam": (torch.optim.Adam, {"betas": (0.0, 0.99)}),
    "adam, a large eps": (torch.optim.Adam, {"betas": (0.0, 0.9), "eps": 0.1}),
    "adam, amsgrad": (torch.optim.Adam, {"betas": (0.0, 0.5), "amsgrad": True}),
    "adam, foreach": (torch.optim.Adam, {"betas": (0.0, 0.99), "foreach": True}),
    "adam, fused": (torch.optim.Adam, {"betas": (0.0, 0.99), "fused": True}),
    "adamw": (torch.optim.AdamW, {"betas": (0.0, 0.99), "weight_decay": 0.0}),
    "adamw, amsgrad": (torch.optim.AdamW, {"betas": (0.0, 0.5), "weight_decay": 0.0, "amsgrad": True}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "rmsprop, centered": (torch.optim.RMSprop, {"centered": True, "alpha": 0.5}),
    "rmsprop, foreach": (torch.optim.RMSprop, {"foreach": True}),
    "adagrad": (torch.optim.Adagrad, {}),
    "adagrad, decaying rate": (torch.optim.Adagrad, {"lr_decay": 0.3, "initial_accumulator_value": 0.1}),
    "sgd": (torch.optim.SGD, {}),
}


@pytest.fixture
def training(cases):
    """A network in float64 and a function that gives it gradients."""
    x, y = cases.data(40)
    model = cases.mlp().double()
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])

    def backward(count: int) -> None:
        model.zero_grad()
        nn.functional.cross_entropy(model(x[:count].double()), y[:count]).backward()

    return model, objective, backward


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_momentum_a_step_is_the_gradient_over_the_preconditioner(training, name):
    model, objective, backward = training
    kind, settings = OPTIMIZERS[name]
    optimizer = kind(model.parameters(), lr=RATE, **settings)
    for count in (40, 11, 25):
        backward(count)
        before = objective.vector()
        optimizer.step()
    gradient = objective.flatten([parameter.grad for parameter in model.parameters()])
    step = objective.vector() - before
    torch.testing.assert_close(step, -RATE * gradient / preconditioner(objective, optimizer), rtol=1e-6, atol=1e-16)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_with_momentum_a_step_of_adam_is_the_first_moment_over_the_preconditioner(training, kind):
    model, objective, backward = training
    optimizer = kind(model.parameters(), lr=RATE, weight_decay=0.0)
    for count in (40, 11, 25):
        backward(count)
        before = objective.vector()
        optimizer.step()
    moment = objective.flatten([optimizer.state[parameter]["exp_avg"] for parameter in model.parameters()])
    step = objective.vector() - before
    torch.testing.assert_close(step, -RATE * moment / preconditioner(objective, optimizer), rtol=1e-6, atol=1e-16)


def test_a_capturable_state_reads_the_same(training):
    model, objective, backward = training
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    backward(40)
    optimizer.step()
    expected = preconditioner(objective, optimizer)
    for state in optimizer.state.values():
        state["step"] = state["step"].double()
    for group in optimizer.param_groups:
        group["capturable"], group["betas"] = True, tuple(torch.tensor(beta) for beta in group["betas"])
    torch.testing.assert_close(preconditioner(objective, optimizer), expected, rtol=1e-4, atol=0)  # betas in float32


def test_several_optimizers_each_have_their_parameters_and_the_rest_is_fixed(training):
    model, objective, backward = training
    first = torch.optim.Adam(model[0].parameters(), lr=RATE)
    second = torch.optim.SGD([model[2].weight], lr=RATE)
    backward(40)
    first.step()
    second.step()
    found = objective.layout.named(preconditioner(objective, [first, second]))
    whole = torch.optim.Adam(model.parameters(), lr=RATE)
    whole.step()
    expected = objective.layout.named(preconditioner(objective, whole))
    torch.testing.assert_close(found["0.weight"], expected["0.weight"])
    assert (found["2.weight"] == 1).all()
    assert torch.isinf(found["2.bias"]).all()
    assert torch.isinf(found["4.weight"]).all()


class OwnStep(torch.optim.Adam):
    def step(self, closure=None):
        return None


@pytest.mark.parametrize("kind", [torch.optim.LBFGS, torch.optim.NAdam, torch.optim.Adadelta, OwnStep])
def test_other_optimizers_are_refused_by_name(training, kind):
    model, objective, _ = training
    with pytest.raises(MeasurementError, match=f"the preconditioner of {kind.__name__} is not known.*AdamW, RMSprop"):
        preconditioner(objective, kind(model.parameters()))


def test_subclasses_with_the_step_of_their_parent_are_read(training):
    model, objective, backward = training
    backward(40)
    plain = torch.optim.Adam(model.parameters(), lr=RATE)
    renamed = type("Renamed", (torch.optim.Adam,), {})(copy.deepcopy(model).parameters(), lr=RATE)
    plain.step()
    assert torch.isinf(preconditioner(objective, renamed)).all()  # of another model's parameters
    assert torch.isfinite(preconditioner(objective, plain)).all()


def test_a_flattened_state_is_refused(training):
    model, objective, backward = training
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    backward(40)
    optimizer.step()
    state = optimizer.state[model[0].weight]
    state["exp_avg_sq"] = state["exp_avg_sq"].reshape(-1)
    with pytest.raises(MeasurementError, match=r"shape \(32,\) for 0.weight"):
        preconditioner(objective, optimizer)


def test_coupled_decay_counts_and_decoupled_does_not(training):
    model, objective, _ = training
    groups = [{"params": model[0].parameters(), "weight_decay": 0.1}, {"params": model[2].parameters()}]
    assert coupled_decay(objective, torch.optim.SGD(model.parameters(), lr=RATE, weight_decay=0.2)) == 0.2
    assert coupled_decay(objective, torch.optim.AdamW(model.parameters(), lr=RATE)) == 0.0
    assert coupled_decay(objective, torch.optim.Adam(model.parameters(), lr=RATE, weight_decay=0.3)) == 0.3
    found = coupled_decay(objective, torch.optim.Adam(groups, lr=RATE))
    assert isinstance(found, dict)
    assert {name: value for name, value in found.items() if value} == {"0.weight": 0.1, "0.bias": 0.1}
