"""Mistaken arguments of objectives and measures are answered at once, with the cure."""

from __future__ import annotations

import functools
import importlib
import inspect

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from landscape import Objective
from landscape.curvature import hessian, top_eigenpairs
from landscape.sharpness import average_case

PACKAGES = ("averaging", "compression", "connectivity", "curvature", "description", "sharpness", "surface", "volume")


def measures(first: str) -> list[object]:
    found = []
    for package in PACKAGES:
        module = importlib.import_module(f"landscape.{package}")
        for name in module.__all__:
            public = getattr(module, name)
            if inspect.isfunction(public) and next(iter(inspect.signature(public).parameters), None) == first:
                found.append(pytest.param(public, id=f"{package}.{name}"))
    return found


def model_and_objective() -> tuple[nn.Module, Objective]:
    model = nn.Linear(3, 2)
    return model, Objective(model, nn.functional.cross_entropy, [(torch.ones(4, 3), torch.tensor([0, 1, 0, 1]))])


def test_the_walk_finds_the_measures():
    assert len(measures("objective")) > 25
    assert len(measures("operator")) > 5


@pytest.mark.parametrize("measure", measures("objective"))
def test_a_model_in_the_place_of_an_objective(measure):
    model, objective = model_and_objective()
    for wrong in (model, hessian(objective)):
        with pytest.raises(TypeError, match=rf"^{measure.__name__} was given a \w+.*; give it .*objective"):
            measure(wrong)
    with pytest.raises(TypeError, match="was given a Linear"):
        measure(objective=model)


@pytest.mark.parametrize("measure", measures("operator"))
def test_a_model_or_an_objective_in_the_place_of_an_operator(measure):
    for wrong in model_and_objective():
        with pytest.raises(TypeError, match=rf"^{measure.__name__} was given a \w+, but measures an operator; give it"):
            measure(wrong)


def data() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones(6, 3), torch.tensor([0, 1, 0, 1, 0, 1])


ce = nn.functional.cross_entropy
X, Y = data()
MISTAKES = {
    "a pair": (nn.Linear(3, 2), ce, (X, Y), r"one pair of tensors .*batches=\[\(x, y\)\]"),
    "a pair in a list": (nn.Linear(3, 2), ce, [X, Y], r"one pair of tensors .*batches=\[\(x, y\)\]"),
    "a data set": (nn.Linear(3, 2), ce, TensorDataset(X, Y), r"data set TensorDataset.*DataLoader\(dataset"),
    "items": (nn.Linear(3, 2), ce, list(TensorDataset(X, Y)), r"a single example; give batches: .*DataLoader"),
    "an array": (nn.Linear(3, 2), ce, X, r"one array of shape \(6, 3\); give a list of batches"),
    "a mapping": (nn.Linear(3, 2), ce, {"x": X}, "of type dict; give an iterable of batches"),
    "nothing": (nn.Linear(3, 2), ce, 3, "of type int; give an iterable of batches"),
    "targets": (nn.Linear(3, 2), ce, [(X, Y[:4])], "6 examples have 4 targets; give a target for each example"),
    "a loss class": (nn.Linear(3, 2), nn.CrossEntropyLoss, [(X, Y)], r"give an instance: CrossEntropyLoss\(\)"),
    "a name": (nn.Linear(3, 2), "cross_entropy", [(X, Y)], r"give the function, .*functional\.cross_entropy"),
    "another name": (nn.Linear(3, 2), "MSELoss", [(X, Y)], r"give the function, .*functional\.mse_loss"),
    "no loss": (nn.Linear(3, 2), 3.0, [(X, Y)], r"cannot be called; the order .*model, loss_fn, batches"),
    "one argument": (
        nn.Linear(3, 2),
        lambda output: output.sum(),
        [(X, Y)],
        r"called as loss_fn\(model\(input\), targ",
    ),
    "three": (nn.Linear(3, 2), lambda a, b, c: a.sum(), [(X, Y)], "give a function of output and target"),
    "a model class": (nn.Linear, ce, [(X, Y)], r"the class Linear; give an instance: Linear\(...\)"),
    "no model": (ce, nn.Linear(3, 2), [(X, Y)], "give a torch.nn.Module. The order of arguments"),
    "meta": (nn.Linear(3, 2, device="meta"), ce, [(X, Y)], r"weight of Linear is on the meta device.*to_empty"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_an_objective_of_mistaken_arguments(case):
    model, loss_fn, batches, words = MISTAKES[case]
    with pytest.raises(TypeError, match=words):
        Objective(model, loss_fn, batches)


def test_batches_of_many_forms_are_none_of_these_mistakes():
    model = nn.Linear(3, 2)
    square = nn.MSELoss()
    loader = DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=True)
    assert Objective(model, ce, loader).n_examples == 6
    assert Objective(model, ce, iter([(X, Y)])).n_examples == 6
    assert Objective(model, lambda output, target=None: output.mean(), [X, X]).n_examples == 12
    assert Objective(model, functools.partial(ce, label_smoothing=0.1), [[X, Y]]).n_examples == 6
    time_first = [(torch.ones(5, 4, 3), torch.ones(4, 2))]
    assert Objective(model, lambda output, target: square(output[-1], target), time_first).n_parameters == 8
    flattened = [(torch.ones(4, 5, 3), torch.zeros(20).long())]
    assert Objective(model, lambda output, target: ce(output.flatten(0, 1), target), flattened).n_parameters == 8
    grouped = [(torch.ones(8, 3), torch.zeros(4).long())]
    assert Objective(model, lambda output, target: ce(output[::2], target), grouped).n_parameters == 8


def test_lightning_modules_are_checked_too():
    with pytest.raises(TypeError, match="is of type int"):
        Objective.from_lightning(nn.Linear(3, 2), 3)
    with pytest.raises(TypeError, match="give an instance"):
        Objective.from_lightning(nn.Linear, [X])


@pytest.mark.parametrize("k", [2.5, True, "3"])
def test_a_count_that_is_no_whole_number(k):
    _, objective = model_and_objective()
    with pytest.raises(ValueError, match=f"k is {k!r}; it must be a whole number"):
        top_eigenpairs(hessian(objective), k=k)
    with pytest.raises(ValueError, match=f"draws is {k!r}; it must be a whole number"):
        average_case(objective, draws=k)


def test_a_mistyped_argument_of_a_measure():
    _, objective = model_and_objective()
    with pytest.raises(TypeError, match="average_case has no argument 'draw'; did you mean draws?"):
        average_case(objective, draw=4)
    with pytest.raises(TypeError, match="top_eigenpairs has no argument 'tolerance_'; there are k, which, tol"):
        top_eigenpairs(hessian(objective), tolerance_=4)
