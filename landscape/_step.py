"""One call of a model's loss on one batch: a loss function of its outputs, or a LightningModule's own step."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from landscape._errors import MeasurementError


class ModelStep:
    """`loss_fn(model(input), target)`.

    Attributes:
        pairs: Whether batches of two entries are pairs of input and target, and not lists of two examples.
    """

    pairs = True

    def __init__(self, model: nn.Module, loss_fn: Callable[..., Any]):
        self._model = model
        self._loss_fn = loss_fn
        # A loss that holds the model itself (a penalty on its weights) sees the substituted tensors, so those stay out.
        taken = {id(tensor) for tensor in _tensors(model).values()}
        own = _tensors(loss_fn) if isinstance(loss_fn, nn.Module) else {}
        self._own = {name: tensor for name, tensor in own.items() if id(tensor) not in taken}
        self.objects = (loss_fn, getattr(loss_fn, "__self__", None))
        self.description = getattr(loss_fn, "__name__", type(loss_fn).__name__)

    def __call__(
        self,
        batch: Any,
        index: int,
        like: torch.Tensor,
        watcher: contextlib.AbstractContextManager[Any] | None = None,
    ) -> torch.Tensor:
        """Evaluate on a batch with the tensors that the model holds at present.

        Args:
            batch: The batch.
            index: Its number.
            like: Tensor whose type and device are those of the measurement.
            watcher: A context to call the loss function in, the model outside it.

        Returns:
            The loss.

        Raises:
            SkippedBatch: It is None.
            MeasurementError: It is not a scalar tensor.
        """
        loss_fn = self._in_type_of(like) if self._own else self._loss_fn
        if self.pairs and isinstance(batch, (tuple, list)) and len(batch) == 2:
            output, target = self._model(batch[0]), batch[1]
        else:
            output, target = self._model(batch), batch
        if watcher is None:
            loss = loss_fn(output, target)
        else:
            with watcher:
                loss = loss_fn(output, target)
        return _scalar(loss, f"the loss function {self.description}")

    def _in_type_of(self, reference: torch.Tensor) -> Callable[..., Any]:
        """The loss, with its own tensors (class weights) in the measuring type and on its device."""
        cast = {
            name: tensor.detach().to(reference.device, reference.dtype if tensor.is_floating_point() else tensor.dtype)
            for name, tensor in self._own.items()
        }
        return functools.partial(_apply, self._loss_fn, cast)


class TrainingStep:
    """A LightningModule's own `training_step`, or its `landscape_loss(batch)` where it defines one."""

    pairs = False
    objects: tuple[Any, ...] = ()

    def __init__(self, module: nn.Module):
        name = type(module).__name__
        if callable(getattr(module, "landscape_loss", None)):
            self.description = f"{name}.landscape_loss"
            self._arguments = 1
        elif not _defines_step(module):
            raise MeasurementError(
                f"{name} has no training_step; give a LightningModule, or use Objective(model, loss_fn, batches)"
            )
        elif not getattr(module, "automatic_optimization", True):
            raise MeasurementError(
                f"{name} uses manual optimisation, so its training_step takes optimizer steps instead of returning one "
                "loss. Add a method landscape_loss(self, batch) that returns the loss to measure, or use "
                "Objective(model, loss_fn, batches)"
            )
        else:
            self.description = f"{name}.training_step"
            self._arguments = self._count_arguments(module)
        self._module: Any = module

    def __call__(
        self,
        batch: Any,
        index: int,
        like: torch.Tensor,
        watcher: contextlib.AbstractContextManager[Any] | None = None,
    ) -> torch.Tensor:
        """Evaluate on a batch as `ModelStep` does; a watcher sees the whole step."""
        with watcher or contextlib.nullcontext():
            if self.description.endswith("landscape_loss"):
                output = self._module.landscape_loss(batch)
            else:
                output = self._module.training_step(*(batch, index, 0)[: self._arguments])
        return _scalar(output["loss"] if isinstance(output, Mapping) and "loss" in output else output, self.description)

    def _count_arguments(self, module: Any) -> int:
        parameters = inspect.signature(module.training_step).parameters.values()
        if "dataloader_iter" in {parameter.name for parameter in parameters}:
            raise MeasurementError(
                f"{self.description} pulls its batches from a dataloader_iter, so it cannot be run on held batches; "
                "add a method landscape_loss(self, batch) that returns the loss to measure"
            )
        if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
            return 2
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        return min(3, sum(parameter.kind in positional for parameter in parameters))


def _defines_step(module: nn.Module) -> bool:
    """Whether there is a training_step of its own: LightningModule's placeholder does not count."""
    step = getattr(module, "training_step", None)
    return callable(step) and getattr(step, "__qualname__", "") != "LightningModule.training_step"


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return dict(itertools.chain(module.named_parameters(), module.named_buffers()))


def _apply(module: Any, tensors: dict[str, torch.Tensor], *args: Any) -> Any:
    return functional_call(module, tensors, args)


class SkippedBatch(MeasurementError):
    """A step returned None for a batch: Lightning skips it, and it takes no part in the loss."""


def _scalar(loss: Any, source: str) -> torch.Tensor:
    if loss is None:
        raise SkippedBatch(f"{source} returned None (a skipped batch), so there is no loss to measure")
    if not isinstance(loss, torch.Tensor):
        raise MeasurementError(
            f"{source} returned {type(loss).__name__}; a scalar tensor (or a dict with 'loss') is needed"
        )
    if loss.numel() != 1:
        raise MeasurementError(
            f"{source} returned a loss of shape {tuple(loss.shape)}, not a scalar; reduce it to its mean "
            "(reduction='mean')"
        )
    return loss.reshape(())
