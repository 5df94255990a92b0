"""Know torch's loss functions: their arguments, their reductions, and the divisor of their means.

A loss function here is one of `torch.nn.functional`, and its arguments are by name, defaults included.
"""

from __future__ import annotations

import contextlib
import fractions
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from landscape._loss_classes import (
    CLASSES,
    LINEAR_CROSS_ENTROPY,
    Arguments,
    ignore_index_of,
    kept_of,
    may_ignore,
    scores_of,
    target_shape,
)
from landscape._private import dispatched_arguments

# Functions that turn the natural parameters of a distribution into the input of a loss.
LINKS: dict[Any, tuple[Any, ...]] = {
    F.nll_loss: (F.log_softmax, torch.log_softmax, torch.Tensor.log_softmax, torch.special.log_softmax),
    F.binary_cross_entropy: (F.sigmoid, torch.sigmoid, torch.Tensor.sigmoid, torch.special.expit),
}


def _joint(*names: str, last: bool = True) -> Callable[[Arguments], torch.Size]:
    """Make a function that gives the joint shape of some arguments, with or without its last dimension."""

    def shape(arguments: Arguments) -> torch.Size:
        tensors = [value for name in names if isinstance(value := arguments[name], torch.Tensor)]
        # Not by torch.broadcast_shapes, which imports sympy for a second.
        whole = torch.broadcast_tensors(*tensors)[0].shape
        return whole if last else whole[:-1]

    return shape


def _cosine_shape(arguments: Arguments) -> torch.Size:
    rows = torch.broadcast_tensors(arguments["input1"], arguments["input2"])[0]
    return torch.broadcast_tensors(rows[..., 0], arguments["target"])[0].shape


def _distance_shape(arguments: Arguments) -> torch.Size | None:
    return None if arguments["distance_function"] else _joint("anchor", "positive", "negative", last=False)(arguments)


# The shape of each loss without reduction.
_SHAPES: dict[Any, Callable[[Arguments], torch.Size | None]] = {
    **dict.fromkeys(CLASSES, target_shape),
    F.binary_cross_entropy: _joint("input", "target"),
    F.binary_cross_entropy_with_logits: _joint("input", "target", "pos_weight"),
    F.cosine_embedding_loss: _cosine_shape,
    F.ctc_loss: lambda arguments: arguments["log_probs"].shape[1:-1],
    F.gaussian_nll_loss: _joint("input", "target"),
    F.hinge_embedding_loss: _joint("input", "target"),
    F.huber_loss: _joint("input", "target"),
    F.kl_div: _joint("input", "target"),
    F.l1_loss: _joint("input", "target"),
    F.margin_ranking_loss: _joint("input1", "input2", "target"),
    F.mse_loss: _joint("input", "target"),
    F.multi_margin_loss: _joint("target"),
    F.multilabel_margin_loss: _joint("input", last=False),
    F.multilabel_soft_margin_loss: _joint("input", "target", last=False),
    F.poisson_nll_loss: _joint("input", "target"),
    F.smooth_l1_loss: _joint("input", "target"),
    F.soft_margin_loss: _joint("input", "target"),
    F.triplet_margin_loss: _joint("anchor", "positive", "negative", last=False),
    F.triplet_margin_with_distance_loss: _distance_shape,
}
# Losses of elements that warn when they broadcast their input and target.
_WARNING = (F.huber_loss, F.l1_loss, F.mse_loss, F.smooth_l1_loss)
# Losses of elements whose mean divides by the sum of the weights.
_WEIGHTED = (F.l1_loss, F.mse_loss)


def _signature(function: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters), {p.name: p.default for p in parameters if p.default is not p.empty}


# By what is called: the function of torch.nn.functional, the names in order of position, the defaults.
KNOWN: dict[Any, tuple[Any, tuple[str, ...], dict[str, Any]]] = {
    function: (function, *_signature(function)) for function in _SHAPES
}
# The same losses under the names of torch itself. Their reduction is a number, 0 by default, which is "none".
for _alias, _names in (
    ("binary_cross_entropy_with_logits", "input target weight pos_weight reduction"),
    ("cosine_embedding_loss", "input1 input2 target margin reduction"),
    ("ctc_loss", "log_probs targets input_lengths target_lengths blank reduction zero_infinity"),
    ("hinge_embedding_loss", "input target margin reduction"),
    ("kl_div", "input target reduction log_target"),
    ("margin_ranking_loss", "input1 input2 target margin reduction"),
    ("poisson_nll_loss", "input target log_input full eps reduction"),
    ("triplet_margin_loss", "anchor positive negative margin p eps swap reduction"),
):
    _function = getattr(F, _alias)
    KNOWN.setdefault(getattr(torch, _alias), (_function, tuple(_names.split()), KNOWN[_function][2] | {"reduction": 0}))


def bound(called: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
    """Return a loss function and its arguments by name, defaults applied.

    Args:
        called: Any function.
        args: Its positional arguments.
        kwargs: Its other arguments.

    Returns:
        The function of `torch.nn.functional` and its arguments; None where the function is no known loss, or lacks an
        argument.
    """
    if called not in KNOWN:
        return None
    function, names, defaults = KNOWN[called]
    # Quicker than Signature.bind.
    arguments = defaults | dict(zip(names, args, strict=False)) | kwargs
    if isinstance(arguments["reduction"], int):
        arguments["reduction"] = ("none", "mean", "sum")[arguments["reduction"]]
    return (function, arguments) if len(arguments) == len(KNOWN[function][1]) else None


def with_lost_weight(called: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call in a torch function mode, with the weight that torch drops.

    Torch 2.13's `l1_loss` does not hand its weight to function modes, so the loss within any mode is another one. The
    weight is read from the frame of torch's dispatcher. Call this from `__torch_function__` itself.

    Args:
        called: The function.
        kwargs: Its arguments by name.

    Returns:
        The arguments by name; the same ones for every other function.
    """
    if called is not F.l1_loss or "weight" in kwargs or "weight" not in KNOWN[called][1]:
        return kwargs
    relevant = dispatched_arguments(2)
    return kwargs | {"weight": relevant[2]} if len(relevant) == 3 else kwargs


def has_numbers(tensor: torch.Tensor) -> bool:
    """Return whether the numbers in a tensor can be read, which they cannot within `torch.vmap`."""
    with contextlib.suppress(RuntimeError):
        tensor.data_ptr()  # plain tensors have one, and need no waiting for their device
        return True
    try:
        float(tensor.new_zeros(()))
    except RuntimeError:
        return False
    return True


def input_of(function: Any, arguments: Arguments) -> torch.Tensor:
    """Return the first tensor, in the order of the signature, that a loss is called on."""
    return next(arguments[name] for name in KNOWN[function][1] if isinstance(arguments[name], torch.Tensor))


def reduction_of(arguments: Arguments) -> str:
    """Return "mean", "sum" or "none", also where the reduction is said by the old size_average and reduce."""
    size_average, reduce = arguments.get("size_average"), arguments.get("reduce")
    if size_average is not None or reduce is not None:
        return "none" if reduce is False else "sum" if size_average is False else "mean"
    reduction = str(arguments["reduction"])
    if reduction == "batchmean":
        return "mean" if arguments["input"].ndim else "sum"
    return "mean" if reduction == "elementwise_mean" else reduction


def unreduced(function: Any, arguments: Arguments) -> torch.Tensor:
    """Evaluate a loss without its reduction, so that a mean is the sum of the elements over its divisor.

    The mean of `ctc_loss` divides each sequence's loss by the length of its target first; so do the elements.

    Args:
        function: The loss function.
        arguments: Its arguments.

    Returns:
        One value an element: a target, a number, a row or a sequence, as the loss has it.
    """
    given = dict(arguments) | {"reduction": "none"}
    given |= {name: None for name in ("size_average", "reduce") if name in given}
    if function in _WARNING and given["input"].shape != given["target"].shape:
        given["input"], given["target"] = torch.broadcast_tensors(given["input"], given["target"])
    values = function(**given)
    if function is F.ctc_loss and reduction_of(arguments) == "mean":
        lengths = torch.as_tensor(arguments["target_lengths"], device=values.device)
        values = values / lengths.reshape(values.shape).clamp(min=1)
    return values


def shares_of(function: Any, arguments: Arguments) -> tuple[torch.Size, torch.Tensor | fractions.Fraction] | None:
    """Return the shape of a loss without reduction, and what each element adds to the divisor of a mean.

    Args:
        function: The loss function.
        arguments: Its arguments.

    Returns:
        The shape, and a tensor of that shape or one number for all elements. None where torch does not say.
    """
    shape = _SHAPES[function](arguments)
    if shape is None:
        return None
    if may_ignore(function, arguments):
        kept, weight = kept_of(function, arguments), arguments["weight"]
        if weight is None:
            return shape, kept
        return shape, weight[torch.where(kept, arguments["target"], 0).long()] * kept
    if function in _WEIGHTED and arguments.get("weight") is not None:
        return shape, arguments["weight"].expand(shape)
    if function is F.kl_div and arguments["reduction"] == "batchmean" and len(shape):
        return shape, fractions.Fraction(shape[0], max(1, math.prod(shape)))
    return shape, fractions.Fraction(1)


def written_out(function: Any, arguments: Arguments) -> tuple[Any, Arguments]:
    """Return `linear_cross_entropy` as a `cross_entropy` of scores, and every other loss as it is."""
    if function is not LINEAR_CROSS_ENTROPY:
        return function, arguments
    names = ("target", "weight", "reduction", "label_smoothing")
    shared = {name: arguments[name] for name in names} | {"ignore_index": ignore_index_of(arguments)}
    return F.cross_entropy, KNOWN[F.cross_entropy][2] | {"input": scores_of(function, arguments)} | shared
