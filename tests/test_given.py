"""Every public measure tells a model, an objective and an operator apart."""

from __future__ import annotations

import importlib
import inspect

import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.curvature import hessian

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
