"""Cut the loss of a batch into model and loss function: loss = ℓ(z(w)), where z are the model's outputs.

A training step does not show that cut, but the loss functions that it calls can be watched, and their input is z. A
negative log-likelihood of a log-softmax is cut before the log-softmax, and a binary cross-entropy before its sigmoid:
z are then the natural parameters of the predictive distribution, however the code spells it. A `linear_cross_entropy`
is evaluated as the `cross_entropy` of its scores.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from landscape._errors import MeasurementError
from landscape._graph import nodes, reaches
from landscape._loss_functions import LINKS, written_out
from landscape._step import ModelStep
from landscape.losses import LossCall, LossWatcher, OtherCall
from landscape.objective import Objective

_ALL_LINKS = {link for links in LINKS.values() for link in links}


@dataclasses.dataclass(frozen=True)
class Split:
    """The loss of a batch and the tensor between model and loss function.

    Attributes:
        loss: The loss with its graph.
        source: What the loss function is called on.
        outputs: The model's outputs z: the same, or what a link function (log-softmax, sigmoid) made it from.
        call: The call of a loss function on them; None where it is the whole `loss_fn` of the objective.
    """

    loss: torch.Tensor
    source: torch.Tensor
    outputs: torch.Tensor
    call: LossCall | None

    @property
    def name(self) -> str:
        """What the outputs are the input of."""
        return "the loss function" if self.call is None else self.call.name


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
    with LossWatcher(before=written_out, others=_ALL_LINKS) as watcher, _model_outputs(objective) as outputs:
        loss = evaluate()
    if not loss.requires_grad:
        return None
    inside = set(nodes([loss]))
    calls = [
        call for call in watcher.calls if call.readable and call.result.grad_fn in inside and call.input.requires_grad
    ]
    whole = [z for z in outputs if isinstance(z, torch.Tensor) and z.requires_grad]
    if len(calls) == 1:
        parts = Split(loss, calls[0].input, _before_link(calls[0], watcher.other_calls), calls[0])
    elif len(outputs) == len(whole) == 1:
        parts = Split(loss, whole[0], whole[0], None)
    else:
        raise MeasurementError(_found(objective, [call.name for call in calls]))
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


def _before_link(call: LossCall, others: list[OtherCall]) -> torch.Tensor:
    """Find the input of the link function that leads to a call by nothing but operations on one tensor."""
    links = {other.result.grad_fn: other for other in others if other.result.requires_grad}
    node = call.input.grad_fn
    while node is not None:
        link = links.get(node)
        if link is not None and link.function in LINKS.get(call.function, ()):
            return link.input
        following = [parent for parent, _ in node.next_functions if parent is not None]
        node = following[0] if len(following) == 1 else None
    return call.input
