"""Facts about torch's loss functions: their arguments, their classes, and the divisor of their means.

Every function here takes a loss function of `torch.nn.functional` and its arguments by name, defaults included.
"""

from __future__ import annotations

import fractions
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

Arguments = Mapping[str, Any]

# Newer than the oldest torch that is supported; None where it does not exist.
LINEAR_CROSS_ENTROPY: Any = getattr(F, "linear_cross_entropy", None)
CLASSES: tuple[Any, ...] = tuple(filter(None, (F.cross_entropy, F.nll_loss, LINEAR_CROSS_ENTROPY)))
# The input above which a binary loss predicts class 1.
THRESHOLDS: dict[Any, float] = {F.binary_cross_entropy_with_logits: 0.0, F.binary_cross_entropy: 0.5}
# Functions that turn the natural parameters of a distribution into the input of a loss.
LINKS: dict[Any, tuple[Any, ...]] = {
    F.nll_loss: (F.log_softmax, torch.log_softmax, torch.Tensor.log_softmax, torch.special.log_softmax),
    F.binary_cross_entropy: (F.sigmoid, torch.sigmoid, torch.Tensor.sigmoid, torch.special.expit),
}
_PREDICTED_AT_ONCE = 2**24  # scores that a fused loss holds at a time when its classes are predicted


def _joint(*names: str, last: bool = True) -> Callable[[Arguments], torch.Size]:
    """Make a function that gives the joint shape of some arguments, with or without its last dimension."""

    def shape(arguments: Arguments) -> torch.Size:
        tensors = [value for name in names if isinstance(value := arguments[name], torch.Tensor)]
        # Not by torch.broadcast_shapes, which imports sympy for a second.
        whole = torch.broadcast_tensors(*tensors)[0].shape
        return whole if last else whole[:-1]

    return shape


def _class_shape(arguments: Arguments) -> torch.Size:
    target = arguments["target"]
    if not target.is_floating_point():
        return target.shape
    axis = class_axis(target)
    return target.shape[:axis] + target.shape[axis + 1 :]


def _cosine_shape(arguments: Arguments) -> torch.Size:
    rows = torch.broadcast_tensors(arguments["input1"], arguments["input2"])[0]
    return torch.broadcast_tensors(rows[..., 0], arguments["target"])[0].shape


def _distance_shape(arguments: Arguments) -> torch.Size | None:
    return None if arguments["distance_function"] else _joint("anchor", "positive", "negative", last=False)(arguments)


# The shape of each loss without reduction.
_SHAPES: dict[Any, Callable[[Arguments], torch.Size | None]] = {
    **dict.fromkeys(CLASSES, _class_shape),
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
    relevant = sys._getframe(2).f_locals.get("relevant_args", ())
    return kwargs | {"weight": relevant[2]} if len(relevant) == 3 else kwargs


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


def class_axis(scores: torch.Tensor) -> int:
    """Return the dimension of scores along which torch's losses look for the classes."""
    return 1 if scores.ndim > 1 else 0


def class_axis_of(function: Any, arguments: Arguments) -> int | None:
    """Return the dimension of the scores along which the classes stand; None for a loss without such a dimension."""
    if function not in CLASSES:
        return None
    if function is LINEAR_CROSS_ENTROPY:
        return arguments["input"].ndim - 1
    return class_axis(arguments["input"])


def n_classes_of(function: Any, arguments: Arguments) -> int | None:
    """Return the number of classes, 2 for a binary loss; None for a loss without classes."""
    if function is LINEAR_CROSS_ENTROPY:
        return int(arguments["linear_weight"].shape[0])
    axis = class_axis_of(function, arguments)
    return (2 if function in THRESHOLDS else None) if axis is None else int(arguments["input"].shape[axis])


def ignore_index_of(arguments: Arguments) -> int:
    """Return the class index that a loss of classes ignores."""
    ignored = arguments["ignore_index"]
    return -100 if ignored is None else int(ignored)  # linear_cross_entropy says None


def scores_of(function: Any, arguments: Arguments) -> torch.Tensor:
    """Return what a loss of classes predicts from: its input, or the product inside `linear_cross_entropy`."""
    if function is not LINEAR_CROSS_ENTROPY:
        return arguments["input"]
    weight, bias = arguments["linear_weight"], arguments["linear_bias"]
    flat = F.linear(arguments["input"], weight.flatten(0, -2), None if bias is None else bias.flatten())
    return flat.unflatten(-1, weight.shape[:-1])


def predicted_of(function: Any, arguments: Arguments) -> torch.Tensor:
    """Return the predicted class of every target.

    Memory: the scores of `linear_cross_entropy` are made for a few rows at a time.
    """
    if function in THRESHOLDS:
        return arguments["input"] > THRESHOLDS[function]
    axis = class_axis_of(function, arguments)
    if function is not LINEAR_CROSS_ENTROPY or arguments["input"].ndim == 1:
        return scores_of(function, arguments).argmax(dim=axis)
    rows = max(1, _PREDICTED_AT_ONCE // max(1, arguments["linear_weight"][..., 0].numel()))
    parts = arguments["input"].split(rows)
    return torch.cat([scores_of(function, {**arguments, "input": part}).argmax(dim=axis) for part in parts])


def labels_of(function: Any, arguments: Arguments) -> torch.Tensor:
    """Return the true class of every target: the most probable one where targets are probabilities."""
    target = arguments["target"]
    if function in THRESHOLDS:
        return target > 0.5
    return target.argmax(dim=class_axis_of(function, arguments)) if target.is_floating_point() else target


def may_ignore(function: Any, arguments: Arguments) -> bool:
    """Return whether a loss could leave targets out: it has class indices."""
    return function in CLASSES and not arguments["target"].is_floating_point()


def kept_of(function: Any, arguments: Arguments) -> torch.Tensor:
    """Return which targets of a loss of classes count, a mask in their shape."""
    target = arguments["target"]
    if may_ignore(function, arguments):
        return target != ignore_index_of(arguments)
    shape = _class_shape(arguments) if function in CLASSES else target.shape
    return torch.ones((), dtype=torch.bool, device=target.device).expand(shape)


def written_out(function: Any, arguments: Arguments) -> tuple[Any, Arguments]:
    """Return `linear_cross_entropy` as a `cross_entropy` of scores, and every other loss as it is."""
    if function is not LINEAR_CROSS_ENTROPY:
        return function, arguments
    names = ("target", "weight", "reduction", "label_smoothing")
    shared = {name: arguments[name] for name in names} | {"ignore_index": ignore_index_of(arguments)}
    return F.cross_entropy, KNOWN[F.cross_entropy][2] | {"input": scores_of(function, arguments)} | shared
