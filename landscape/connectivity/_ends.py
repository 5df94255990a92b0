"""Two trained models as the ends of a path: the same architecture, as flat vectors and buffers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from landscape.objective import Objective


def end_vector(objective: Objective, model: nn.Module) -> torch.Tensor:
    """Return the parameters of a model in the order of the objective's, shape (P,), a copy."""
    parameters = dict(model.named_parameters())
    return objective.flatten([parameters[name] for name in objective.layout.names])


def end_buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of the buffers of a model by name."""
    return {name: buffer.detach().clone() for name, buffer in model.named_buffers()}


def check_same_architecture(model_a: nn.Module, model_b: nn.Module) -> None:
    """Refuse two models that no path can join.

    Raises:
        ValueError: Names or shapes of parameters or buffers differ, or a frozen parameter has different values.
    """
    parameters_a, parameters_b = dict(model_a.named_parameters()), dict(model_b.named_parameters())
    _compare("parameter", parameters_a, parameters_b)
    _compare("buffer", dict(model_a.named_buffers()), dict(model_b.named_buffers()))
    for name, parameter in parameters_a.items():
        other = parameters_b[name].detach().to(parameter)
        if not parameter.requires_grad and not torch.equal(parameter.detach(), other):
            raise ValueError(
                f"the parameter {name!r} is frozen in model_a and has other values in model_b, so a path through the "
                "trainable parameters does not reach model_b; unfreeze it in model_a, or give both the same values"
            )


def _compare(what: str, tensors_a: Mapping[str, torch.Tensor], tensors_b: Mapping[str, torch.Tensor]) -> None:
    advice = "a path needs two models of one architecture, with the same names and shapes"
    for name in (*tensors_a, *tensors_b):
        if name not in tensors_a or name not in tensors_b:
            owner, other = ("model_a", "model_b") if name in tensors_a else ("model_b", "model_a")
            raise ValueError(f"{owner} has a {what} {name!r} that {other} has not; {advice}")
        shape_a, shape_b = tuple(tensors_a[name].shape), tuple(tensors_b[name].shape)
        if shape_a != shape_b:
            raise ValueError(f"the {what} {name!r} has shape {shape_a} in model_a and {shape_b} in model_b; {advice}")
