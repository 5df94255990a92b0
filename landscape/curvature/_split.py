"""Cut the loss of a batch into model and loss function: loss = ℓ(z(w)), where z are the model's outputs.

Modules keep that cut to themselves. But the loss functions that a step calls can be watched, and their input is z. A
negative log-likelihood of a log-softmax is cut before that, and a binary cross-entropy before its sigmoid, so that z
are the natural parameters of the predictive distribution and curvature in z does not depend on how the code spells it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.overrides import TorchFunctionMode

from landscape._errors import MeasurementError
from landscape._graph import nodes, reaches
from landscape._observe import LOSS_SIGNATURES
from landscape._step import ModelStep
from landscape.objective import Objective

# Link functions that a loss is cut before, by the loss.
_LINKS: dict[Any, tuple[Any, ...]] = {
    F.nll_loss: (F.log_softmax, torch.log_softmax, torch.Tensor.log_softmax),
    F.binary_cross_entropy: (F.sigmoid, torch.sigmoid, torch.Tensor.sigmoid, torch.special.expit),
}
_ALL_LINKS = {link for links in _LINKS.values() for link in links}


@dataclasses.dataclass(frozen=True)
class Split:
    """The loss of a batch and the tensor between model and loss function.

    Attributes:
        loss: The loss with its graph.
        source: What the loss function is called on.
        outputs: The model's outputs z: the same, or what a link function (log-softmax, sigmoid) made it from.
        call: The loss function called on them; None where it is the whole `loss_fn` of the objective.
        arguments: Its arguments by name.
        result: What it returned.
    """

    loss: torch.Tensor
    source: torch.Tensor
    outputs: torch.Tensor
    call: Callable[..., Any] | None
    arguments: dict[str, Any]
    result: torch.Tensor

    @property
    def name(self) -> str:
        """What the outputs are the input of."""
        return "the loss function" if self.call is None else self.call.__name__


def split(objective: Objective, evaluate: Callable[[], torch.Tensor]) -> Split | None:
    """Evaluate the loss of a batch and find the model's outputs in its graph.

    Args:
        objective: Whose loss it is.
        evaluate: Evaluates it, with gradients.

    Returns:
        The parts; None where the loss does not depend on the parameters.

    Raises:
        MeasurementError: Not exactly one loss function was called, or the loss depends on the parameters besides.
    """
    with _Watch() as watch, _model_outputs(objective) as outputs:
        loss = evaluate()
    if not loss.requires_grad:
        return None
    inside = set(nodes([loss]))
    calls = [seen for seen in watch.calls if seen.result.grad_fn in inside and seen.source.requires_grad]
    whole = [z for z in outputs if isinstance(z, torch.Tensor) and z.requires_grad]
    if len(calls) == 1:
        seen = calls[0]
        parts = Split(loss, seen.source, watch.before_link(seen), seen.function, seen.arguments, seen.result)
    elif len(outputs) == len(whole) == 1:
        parts = Split(loss, whole[0], whole[0], None, {}, loss)
    else:
        raise MeasurementError(_found(objective, [seen.function.__name__ for seen in calls]))
    return parts


def require_composite(objective: Objective, parts: Split, at: torch.Tensor, parameters: list[torch.Tensor]) -> None:
    """Refuse a loss that depends on the parameters by another way than through the outputs.

    Args:
        objective: Whose loss it is.
        parts: Its parts.
        at: The tensor where it is cut, `source` or `outputs`.
        parameters: The parameters.

    Raises:
        MeasurementError: It does.
    """
    boundary = [] if at.grad_fn is None else [at.grad_fn]
    if reaches([parts.loss], parameters, boundary):
        raise MeasurementError(
            f"the loss of {type(objective.module).__name__} depends on its parameters not only through the input of "
            f"{parts.name} (a penalty on weights, or a second output), so its Gauss-Newton part is not defined; leave "
            "the penalty out of the measured loss and add it with weight_decay(...)"
        )


def _found(objective: Objective, names: list[str]) -> str:
    name = type(objective.module).__name__
    if names:
        return (
            f"the loss of {name} calls several loss functions ({', '.join(names)}), so there is no single output to "
            "take the Gauss-Newton matrix at; measure one of them, with a method landscape_loss(self, batch) that "
            "returns it, and add the operators"
        )
    return (
        f"the loss of {name} calls no loss function of torch.nn.functional that could be watched, so its outputs are "
        "not known; use one (cross_entropy, mse_loss, ...), or Objective(model, loss_fn, batches) with a model that "
        "returns one tensor"
    )


@contextlib.contextmanager
def _model_outputs(objective: Objective) -> Iterator[list[Any]]:
    """Collect what the model of `Objective(model, loss_fn, batches)` returns; nothing for a training step."""
    outputs: list[Any] = []

    def collect(module: nn.Module, args: Any, output: Any) -> None:
        outputs.append(output)

    with contextlib.ExitStack() as stack:
        if isinstance(objective._step, ModelStep):
            stack.callback(objective.module.register_forward_hook(collect).remove)
        yield outputs


@dataclasses.dataclass(frozen=True)
class _Seen:
    function: Callable[..., Any]
    arguments: dict[str, Any]
    source: torch.Tensor
    result: torch.Tensor


class _Watch(TorchFunctionMode):
    """Collects the calls of loss functions and of the links before them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Seen] = []
        self._links: dict[Any, tuple[Any, torch.Tensor]] = {}  # backward node -> link, its input

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in LOSS_SIGNATURES:
            bound = LOSS_SIGNATURES[func].bind(*args, **kwargs)
            bound.apply_defaults()
            source = next(value for value in bound.arguments.values() if isinstance(value, torch.Tensor))
            self.calls.append(_Seen(func, bound.arguments, source, result))
        elif func in _ALL_LINKS and result.requires_grad:
            self._links[result.grad_fn] = (func, args[0] if args else kwargs["input"])
        return result

    def before_link(self, seen: _Seen) -> torch.Tensor:
        """Find the input of the link function that leads to a call by nothing but operations on one tensor."""
        node = seen.source.grad_fn
        while node is not None:
            link, tensor = self._links.get(node, (None, seen.source))
            if link in _LINKS.get(seen.function, ()):
                return tensor
            following = [parent for parent, _ in node.next_functions if parent is not None]
            node = following[0] if len(following) == 1 else None
        return seen.source
