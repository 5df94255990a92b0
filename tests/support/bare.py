"""Float64 reference: the loss of a module's own training_step over fixed batches, without any code of the toolkit.

`Bare` calls the step on a float64 copy of the module and differentiates it by torch's autograd alone. Every Hessian is
compared with differences of gradients, and every gradient with differences of losses, before it serves as a reference.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode

_STEP = 1e-5  # of a central difference, relative to a direction of unit length
_AGREE = 1e-4  # largest relative difference of a derivative and its central difference


def double(batch: Any) -> Any:
    """Copy a batch of any container, with its floating-point tensors in float64."""
    if isinstance(batch, torch.Tensor):
        return batch.double() if batch.is_floating_point() else batch.clone()
    if isinstance(batch, PackedSequence):
        return batch.to(torch.float64)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(double, batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(map(double, batch))
    if isinstance(batch, dict):
        return {key: double(value) for key, value in batch.items()}
    if callable(getattr(batch, "apply", None)):  # the graphs of torch_geometric
        return batch.clone().apply(double)
    if dataclasses.is_dataclass(batch) or hasattr(batch, "__dict__"):
        copied = copy.copy(batch)
        for name, value in vars(batch).items():
            if isinstance(value, (torch.Tensor, dict, list, tuple)):
                setattr(copied, name, double(value))
        return copied
    return batch


class InFloat64(TorchFunctionMode):
    """Keep a step in float64: casts to float32 become casts to float64, noise is drawn in the type of the module.

    Calls stay hidden from modes around this one, so that the toolkit cannot see the loss functions of a reference.

    Args:
        drawn: The floating-point type that the module trains in, and draws its noise in.
    """

    _NOISE = (torch.randn, torch.rand, torch.randn_like, torch.rand_like, torch.normal)

    def __init__(self, drawn: torch.dtype = torch.float32):
        super().__init__()
        self._drawn = drawn

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function with float64 in the place of float32."""
        kwargs = dict(kwargs or {})
        with torch._C.DisableTorchFunction():
            if func in self._NOISE:
                return func(*args, **(kwargs | {"dtype": self._drawn})).double()
            func = torch.Tensor.double if func is torch.Tensor.float else func
            args = tuple(torch.float64 if arg is torch.float32 else arg for arg in args)
            return func(*args, **{k: torch.float64 if v is torch.float32 else v for k, v in kwargs.items()})


class Hidden(TorchFunctionMode):
    """Hide calls from the modes around this one, and change nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function."""
        with torch._C.DisableTorchFunction():
            return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make new tensors of a type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def own_buffers(module: nn.Module) -> Iterator[None]:
    """Let a step in train mode move copies of the buffers: every batch is evaluated with the module's present ones."""
    kept = [(part, name, buffer) for part in module.modules() for name, buffer in part._buffers.items()]
    for part, name, buffer in kept:
        part._buffers[name] = None if buffer is None else buffer.detach().clone()
    try:
        yield
    finally:
        for part, name, buffer in kept:
            part._buffers[name] = buffer


def own_copy(module: nn.Module) -> nn.Module:
    """Copy a LightningModule without its Trainer."""
    trainer = getattr(module, "_trainer", None)
    if trainer is None:
        return copy.deepcopy(module)
    module._trainer = None
    try:
        return copy.deepcopy(module)
    finally:
        module._trainer = trainer


class Bare:
    """Mean loss of a module's own step over fixed batches, L = Σ_b s_b ℓ_b / Σ_b s_b, and its derivatives in float64.

    Args:
        module: A copy of the module that may be changed.
        batches: The batches that the step receives.
        shares: What the loss of each batch divides by, s_b; 0 for a batch that is left out.
        parameters: The parameters that L is a function of.
        train: Whether the module is in train mode.
        noise_seed: Batch number b is evaluated with the seed noise_seed + b where it is given.
        dtype: torch.float64; or None for the types that module and batches have.
    """

    def __init__(
        self,
        module: nn.Module,
        batches: Sequence[Any],
        shares: Sequence[float],
        parameters: Callable[[nn.Module], list[nn.Parameter]],
        train: bool = False,
        noise_seed: int | None = None,
        dtype: torch.dtype | None = torch.float64,
    ):
        self.wide = dtype is torch.float64
        trained_in_double = all(p.dtype == torch.float64 for p in module.parameters() if p.is_floating_point())
        self._drawn = torch.float64 if trained_in_double else torch.float32
        self.module = module.double() if self.wide else module
        self.parameters = parameters(module)
        for parameter in self.parameters:
            parameter.data = parameter.data.double() if self.wide else parameter.data
        self.batches = list(batches)
        self.shares = list(shares)
        self.train, self.noise_seed = train, noise_seed
        self.normalising: list[nn.Module] = []
        self._sizes = [parameter.numel() for parameter in self.parameters]

    def batch_loss(self, index: int, wide: bool | None = None) -> torch.Tensor:
        """Return the loss of one batch at the module's present weights, with its graph.

        Args:
            index: The number of the batch.
            wide: Whether the weights are in float64; by default as the reference was made.

        Returns:
            A scalar.
        """
        wide = self.wide if wide is None else wide
        self.module.train()
        if not self.train:
            for part in self.module.modules():
                part.training = part in self.normalising
        if self.noise_seed is not None:
            torch.manual_seed(self.noise_seed + index)
            np.random.seed(self.noise_seed + index)
            random.seed(self.noise_seed + index)
        made: Any = type(self.module)  # its own functions: those of a compiled module's copy belong to the original
        step = getattr(made, "landscape_loss", None)
        batch = double(self.batches[index]) if wide else copy.deepcopy(self.batches[index])
        with contextlib.ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(default_dtype(torch.float64 if wide else torch.get_default_dtype()))
            stack.enter_context(InFloat64(self._drawn) if wide else Hidden())
            stack.enter_context(own_buffers(self.module))
            found = step(self.module, batch) if step else made.training_step(self.module, batch, index)
        return found["loss"] if isinstance(found, Mapping) else found

    def _total(self) -> torch.Tensor:
        counted = [index for index, share in enumerate(self.shares) if share]
        return sum(self.shares[index] * self.batch_loss(index) for index in counted) / sum(self.shares)

    def vector(self) -> torch.Tensor:
        """Return the weights as one vector, shape (P,)."""
        return torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters])

    @contextlib.contextmanager
    def at(self, vector: torch.Tensor | None) -> Iterator[None]:
        """Move the weights to a vector, shape (P,), and back; buffers are put back too."""
        here, buffers = self.vector(), {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        try:
            self._move(here if vector is None else vector)
            yield
        finally:
            self._move(here)
            for name, buffer in self.module.named_buffers():
                buffer.data.copy_(buffers[name]) if name in buffers else None

    def _move(self, vector: torch.Tensor) -> None:
        for parameter, part in zip(self.parameters, vector.split(self._sizes), strict=True):
            parameter.data.copy_(part.reshape(parameter.shape))

    def loss(self, vector: torch.Tensor | None = None) -> float:
        """Return L."""
        with torch.random.fork_rng(), self.at(vector):
            return float(self._total().detach())

    def gradient(self, vector: torch.Tensor | None = None) -> torch.Tensor:
        """Return the gradient that autograd gives, shape (P,)."""
        with torch.random.fork_rng(), self.at(vector):
            return self._flat(torch.autograd.grad(self._total(), self.parameters, allow_unused=True)).detach()

    def recompute_batchnorm(self) -> None:
        """Give every batch normalisation the statistics of all batches: the mean, and the variance about it, N − 1."""
        layers = [part for part in self.module.modules() if isinstance(part, _BatchNorm)]
        if not layers:
            return
        seen: dict[nn.Module, list[torch.Tensor]] = {layer: [] for layer in layers}
        hooks = [
            layer.register_forward_pre_hook(lambda part, given: seen[part].append(given[0].detach()))
            for layer in layers
        ]
        try:
            with self._normalising(layers):
                self._total()
        finally:
            for hook in hooks:
                hook.remove()
        for layer in layers:
            values = torch.cat([part.transpose(0, 1).flatten(1) for part in seen[layer]], dim=1)
            layer.running_mean.copy_(values.mean(dim=1))
            layer.running_var.copy_(values.var(dim=1))

    @contextlib.contextmanager
    def _normalising(self, layers: list[nn.Module]) -> Iterator[None]:
        self.normalising = layers
        try:
            yield
        finally:
            self.normalising = []

    @functools.cached_property
    def surrogate(self) -> bool:
        """Whether the gradient is not the loss's, as with stop-gradients: their directional differences disagree."""
        gradient, generator = self.gradient(), torch.Generator().manual_seed(1)
        for direction in (torch.randn(len(gradient), generator=generator, dtype=torch.float64), gradient):
            direction = direction / direction.norm().clamp_min(1e-30)
            ahead, behind = (self.loss(self.vector() + sign * _STEP * direction) for sign in (1, -1))
            rise = float(gradient @ direction)
            if abs((ahead - behind) / (2 * _STEP) - rise) > _AGREE * float(gradient.norm()) + 1e-7:
                return True
        return False

    @functools.cached_property
    def hessian(self) -> torch.Tensor:
        """The dense Hessian, shape (P, P): by double backward where that agrees with differences of gradients."""
        with contextlib.suppress(RuntimeError, NotImplementedError):
            found = self._double_backward()
            direction = torch.randn(len(found), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
            difference = self._differenced(direction / direction.norm())
            gap = (found @ direction / direction.norm() - difference).norm()
            if gap <= _AGREE * found.norm() and (found - found.T).norm() <= _AGREE * found.norm():
                return (found + found.T) / 2
        columns = [self._differenced(column) for column in torch.eye(sum(self._sizes), dtype=torch.float64)]
        found = torch.stack(columns)
        return (found + found.T) / 2

    def product(self, vector: torch.Tensor) -> torch.Tensor:
        """Return the Hessian's product with a vector, shape (P,), from a new graph."""
        with torch.random.fork_rng(), self.at(None):
            gradient = self._flat(torch.autograd.grad(self._total(), self.parameters, create_graph=True))
            return self._flat(torch.autograd.grad(gradient @ vector, self.parameters, allow_unused=True)).detach()

    def _double_backward(self) -> torch.Tensor:
        with torch.random.fork_rng(), self.at(None):
            loss = self._total()
            first = torch.autograd.grad(loss, self.parameters, create_graph=True, allow_unused=True)
            gradient = self._flat(first)
            if not gradient.requires_grad:
                return gradient.new_zeros(len(gradient), len(gradient))
            rows = [
                self._flat(torch.autograd.grad(entry, self.parameters, retain_graph=True, allow_unused=True))
                for entry in gradient
            ]
            return torch.stack(rows).detach()

    def _differenced(self, direction: torch.Tensor) -> torch.Tensor:
        ahead, behind = (self.gradient(self.vector() + sign * _STEP * direction) for sign in (1, -1))
        return (ahead - behind) / (2 * _STEP)

    def _flat(self, parts: Sequence[torch.Tensor | None]) -> torch.Tensor:
        pairs = zip(parts, self.parameters, strict=True)
        return torch.cat([(torch.zeros_like(p) if part is None else part).reshape(-1) for part, p in pairs])
