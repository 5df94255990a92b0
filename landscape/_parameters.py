"""Which tensors of a module span its landscape, in which type they are measured, and what stands for them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from landscape._errors import MeasurementError
from landscape._layout import ParameterLayout
from landscape._substitution import Places


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


class MeasuredTensors:
    """A module's tensors in the type that they are measured in: trainable ones as a vector, the others by name.

    Attributes:
        layout: Names and shapes of the trainable parameters.
        device: Where the first of them is.
        dtype: The measuring type.
        raised: Whether some parameter is measured in another type than its own.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype | None):
        named = trainable(module)
        self._module = module
        self._places = Places(module)
        self._parameters = [parameter for _, parameter in named]
        span = {name for name, _ in named}
        self._frozen = [(name, parameter) for name, parameter in module.named_parameters() if name not in span]
        self.layout = ParameterLayout.of(named)
        self.device = self._parameters[0].device
        self.dtype = dtype or measuring_dtype(self._parameters)
        floating = [p.dtype for p in module.parameters() if p.is_floating_point()]
        self.raised = any(own != self.dtype for own in floating)

    def flatten(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Join tensors of the parameters' shapes into one flat vector (a copy), shape (P,)."""
        return torch.cat([self._strided(tensor.detach()).reshape(-1) for tensor in tensors])

    def vector(self) -> torch.Tensor:
        """Return a copy of the present trainable parameters, shape (P,)."""
        return self.flatten(self._parameters)

    def parameters(self, vector: torch.Tensor | None, grad: bool = False) -> list[torch.Tensor]:
        """Return what stands for the trainable parameters: parts of a vector, or their present values for None."""
        if vector is None:
            tensors = [parameter.detach().to(self.dtype) for parameter in self._parameters]
        else:
            tensors = self.layout.unflatten(torch.as_tensor(vector).detach().to(self.device, self.dtype))
        return [tensor.detach().requires_grad_() for tensor in tensors] if grad else tensors

    def substituted(
        self, parameters: Sequence[torch.Tensor], given: Mapping[str, torch.Tensor]
    ) -> contextlib.AbstractContextManager[None]:
        """Evaluate the module with these parameters, and with a private copy of every buffer.

        Args:
            parameters: What stands for the trainable parameters, in order.
            given: Buffers by name that stand for the module's own.

        Returns:
            A context; on leaving it the module holds its own tensors.

        Raises:
            ValueError: A buffer is given that the module does not have.
        """
        tensors = dict(zip(self.layout.names, parameters, strict=True))
        for name, parameter in self._frozen:
            tensors[name] = self._cast(parameter.detach())
        buffers = self._places.buffers()
        if given and (unknown := sorted(set(given) - set(buffers))):
            raise ValueError(f"{type(self._module).__name__} has no buffers named {', '.join(unknown)}")
        for name, buffer in buffers.items():
            tensors[name] = self._cast(given.get(name, buffer)).clone()
        return self._places.filled(tensors)

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.to(self.device)
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def _strided(self, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor if tensor.layout == torch.strided else tensor.to_dense()
        return (
            tensor
            if tensor.dtype == self.dtype and tensor.device == self.device
            else tensor.to(self.device, self.dtype)
        )
