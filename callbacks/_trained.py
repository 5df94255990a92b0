"""Which parameters train now, and whether the module knows all that its optimizers move."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.parameter import is_lazy

from landscape._errors import MeasurementError
from landscape._layout import ParameterLayout


def require_registered(trainer: Any, module: torch.nn.Module) -> None:
    """Refuse a training whose optimizers move tensors that are no parameters of the module.

    Raises:
        MeasurementError: There is one: weights, gradient and curvature would lack it.
    """
    own = {id(parameter) for parameter in module.parameters()}
    for optimizer in trainer.optimizers:
        for tensor in (t for group in optimizer.param_groups for t in group["params"]):
            if id(tensor) not in own:
                raise MeasurementError(
                    f"the optimizer trains a tensor of shape {tuple(tensor.shape)} that is no registered parameter of "
                    f"{type(module).__name__} (it is held in a list, a dict or a variable), so weights and curvature "
                    "would lack it; register it, for example in an nn.ParameterList"
                )


def trainable_layout(module: torch.nn.Module) -> ParameterLayout:
    """Return the parameters that train now by their plain names; lazy ones have no shape yet and are left out."""
    named = module.named_parameters()
    return ParameterLayout.of([(n, p) for n, p in named if p.requires_grad and not is_lazy(p)]).plain()


def trainable_columns(module: torch.nn.Module) -> dict[str, Any]:
    """Return the columns of a row that say which parameters train: their number, and a fingerprint."""
    layout = trainable_layout(module)
    return {"n_parameters": layout.total, "trainable": layout.fingerprint}
