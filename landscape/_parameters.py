"""Which parameters of a module span its landscape, and in which type they are measured."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from landscape._errors import MeasurementError


def trainable(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """List names and tensors of the trainable parameters, tied ones once.

    Returns:
        (name, parameter) pairs in the module's order.

    Raises:
        MeasurementError: There are none, or one is complex or has no shape yet.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if not named:
        raise MeasurementError(
            f"{type(module).__name__} has no trainable parameter, so its loss has no landscape; unfreeze some"
        )
    for name, parameter in named:
        if nn.parameter.is_lazy(parameter):
            raise MeasurementError(
                f"parameter {name} has no shape yet; run one batch through the model before measuring"
            )
        if parameter.is_complex():
            raise MeasurementError(
                f"parameter {name} is complex; keep its real and imaginary parts as two real parameters "
                "(torch.view_as_complex joins them in the forward pass)"
            )
    return named


def measuring_dtype(parameters: Sequence[torch.Tensor]) -> torch.dtype:
    """Return the widest floating-point type among the parameters, float32 at least."""
    dtype = torch.float32
    for parameter in parameters:
        dtype = torch.promote_types(dtype, parameter.dtype)
    return dtype
