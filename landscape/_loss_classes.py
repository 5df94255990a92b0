"""Know what torch's classification losses predict: scores, classes, labels and ignored targets.

A loss function here is one of `torch.nn.functional`, and its arguments are by name, defaults included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

Arguments = Mapping[str, Any]

# Newer than the oldest torch that is supported; None where it does not exist.
LINEAR_CROSS_ENTROPY: Any = getattr(F, "linear_cross_entropy", None)
CLASSES: tuple[Any, ...] = tuple(filter(None, (F.cross_entropy, F.nll_loss, LINEAR_CROSS_ENTROPY)))
# The input above which a binary loss predicts class 1.
THRESHOLDS: dict[Any, float] = {F.binary_cross_entropy_with_logits: 0.0, F.binary_cross_entropy: 0.5}
_PREDICTED_AT_ONCE = 2**24  # scores of linear_cross_entropy in memory while classes are predicted


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


def probabilities_of(function: Any, arguments: Arguments) -> torch.Tensor:
    """Return the predicted probabilities, float64: of all classes, or of class 1 where there are two."""
    scores = scores_of(function, arguments).double()
    if function in THRESHOLDS:
        return scores if function is F.binary_cross_entropy else scores.sigmoid()
    return scores.exp() if function is F.nll_loss else scores.softmax(class_axis(scores))


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
    shape = target_shape(arguments) if function in CLASSES else target.shape
    return torch.ones((), dtype=torch.bool, device=target.device).expand(shape)


def target_shape(arguments: Arguments) -> torch.Size:
    """Return the shape of the targets without a dimension of class probabilities."""
    target = arguments["target"]
    if not target.is_floating_point():
        return target.shape
    axis = class_axis(target)
    return target.shape[:axis] + target.shape[axis + 1 :]
