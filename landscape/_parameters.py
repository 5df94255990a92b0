"""Choose the tensors that span a module's landscape, the type they are measured in, and what is put in their places."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from landscape._errors import MeasurementError
from landscape._layout import ParameterLayout
from landscape._selection import select
from landscape._substitution import Places

_LARGE = 1 << 20  # parameters from which a copy of them all is avoided


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


def _chosen(named: list[tuple[str, nn.Parameter]], part: Sequence[str] | None) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters of a part of the model; all for None."""
    if part is None:
        return named
    # Shapes play no role in the choice; lazy parameters have none yet.
    return [named[index] for index in select(ParameterLayout(tuple(name for name, _ in named), ()), part)]


class MeasuredTensors:
    """A module's tensors in the type that they are measured in: trainable ones as a vector, the others by name.

    Which parameters train is decided here, at construction; `current` says whether that still holds. Their values are
    those that the module holds at each call. Of a part of a model, all other parameters are constants, as frozen ones
    are: no derivative is taken by them, so autograd keeps no graph below the first parameter of the part.

    Args:
        module: The module.
        dtype: The measuring type; by default that of `measuring_dtype`.
        others: Further objects that the loss uses, searched for references to the module's tensors.
        part: Names and patterns of the parameters to measure; None for all that train.

    Attributes:
        layout: Names and shapes of the measured parameters.
        n_trainable: Number of parameters that train, outside of the part too.
        device: Where the first of them is.
        dtype: The measuring type.
        raised: Whether some parameter is measured in another type than its own.
    """

    def __init__(
        self,
        module: nn.Module,
        dtype: torch.dtype | None,
        others: Iterable[Any] = (),
        part: Sequence[str] | None = None,
    ):
        training = trainable(module)
        named = _chosen(training, part)
        self.n_trainable = sum(parameter.numel() for _, parameter in training)
        self._module = module
        self._part = part
        self._places = Places(module, others)
        self._trainable = [(name, parameter, parameter.dtype) for name, parameter in named]
        span = {name for name, _ in named}
        self._constant = [name for name, _ in module.named_parameters() if name not in span]
        self.layout = ParameterLayout.of(named)
        self.device = named[0][1].device
        self.dtype = dtype or measuring_dtype([parameter for _, parameter in named])
        floating = [p.dtype for p in module.parameters() if p.is_floating_point()]
        self.raised = any(own != self.dtype for own in floating)

    def current(self) -> bool:
        """Return whether the same parameters still train, and look again for places that hold the module's tensors.

        Names, shapes, element types and the tensors themselves are compared. A frozen parameter that began to train,
        a trained one that was frozen, and one that was renamed or replaced all count as a change. Outside of a part
        that is measured, changes do not matter.
        """
        now = [(name, p) for name, p in self._module.named_parameters() if p.requires_grad]
        if self._part is not None:
            try:
                now = _chosen(now, self._part)
            except ValueError:  # nothing of the part trains any more
                return False
        if len(now) != len(self._trainable) or any(
            name != before or parameter is not own or parameter.dtype != dtype
            for (name, parameter), (before, own, dtype) in zip(now, self._trainable, strict=True)
        ):
            return False
        if ParameterLayout.of(now) != self.layout or now[0][1].device != self.device:
            return False
        self._places.search()
        return True

    def flatten(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Join tensors of the parameters' shapes into one flat vector (a copy), shape (P,)."""
        return torch.cat([self._strided(tensor.detach()).reshape(-1) for tensor in tensors])

    def add(self, total: torch.Tensor, tensors: Sequence[torch.Tensor]) -> None:
        """Add tensors of the parameters' shapes to a flat vector, shape (P,), in place."""
        if len(total) < _LARGE:  # one call is faster than one for each tensor
            total += self.flatten(tensors)
            return
        for part, tensor in zip(self.layout.unflatten(total), tensors, strict=True):
            part += self._strided(tensor.detach())

    def vector(self) -> torch.Tensor:
        """Return a copy of the present trainable parameters, shape (P,)."""
        return self.flatten(self._own())

    def parameters(self, vector: torch.Tensor | None, grad: bool = False) -> list[torch.Tensor]:
        """Return what stands for the trainable parameters: parts of a vector, or their present values for None."""
        if vector is None:
            tensors = [parameter.detach().to(self.dtype) for parameter in self._own()]
        else:
            tensors = self.layout.unflatten(torch.as_tensor(vector).detach().to(self.device, self.dtype))
        return [tensor.detach().requires_grad_() for tensor in tensors] if grad else tensors

    def substituted(
        self, parameters: Sequence[torch.Tensor], given: Mapping[str, torch.Tensor], inner: bool = False
    ) -> contextlib.AbstractContextManager[None]:
        """Evaluate the module with these parameters, and with a private copy of every buffer.

        Args:
            parameters: What stands for the trainable parameters, in order.
            given: Buffers by name that stand for the module's own.
            inner: Whether the step differentiates by parameters itself: then those outside of a part require gradients.

        Returns:
            A context; on leaving it the module holds its own tensors.

        Raises:
            ValueError: A buffer is given that the module does not have.
        """
        tensors = dict(zip(self.layout.names, parameters, strict=True))
        if self._constant:
            present = self._places.tensors()
            for name in self._constant:
                if name in present:
                    constant = self._cast(present[name].detach())
                    tensors[name] = constant.requires_grad_() if inner and present[name].requires_grad else constant
        buffers = self._places.buffers()
        if given and (unknown := sorted(set(given) - set(buffers))):
            raise ValueError(f"{type(self._module).__name__} has no buffers named {', '.join(unknown)}")
        for name, buffer in buffers.items():
            tensors[name] = self._cast(given.get(name, buffer)).clone()
        return self._places.filled(tensors)

    def _own(self) -> list[torch.Tensor]:
        """Return the trainable parameters that the module holds now."""
        present = self._places.tensors()
        try:
            tensors = [present[name] for name in self.layout.names]
        except KeyError as error:
            raise MeasurementError(
                f"{type(self._module).__name__} no longer holds a parameter named {error.args[0]!r}, which trained "
                "when the objective was made; make a new objective of the changed module"
            ) from None
        for name, tensor, shape in zip(self.layout.names, tensors, self.layout.shapes, strict=True):
            if tensor.shape != shape:
                raise MeasurementError(
                    f"the parameter {name!r} has shape {tuple(tensor.shape)} and had {shape} when the objective was "
                    "made; make a new objective of the changed module"
                )
        return tensors

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
