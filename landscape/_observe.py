"""Watch the loss functions that a training step calls, to learn its denominator and the error rate behind the loss.

A step returns one number. Whether it is a mean over examples, over unmasked tokens or over class weights is known only
to the loss function inside it; so is what counts as a wrong prediction. A torch function mode sees those calls in any
unmodified module.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

_CLASSES = (F.cross_entropy, F.nll_loss)
_BINARY_THRESHOLD = {F.binary_cross_entropy_with_logits: 0.0, F.binary_cross_entropy: 0.5}
# Their mean divides by the number of elements of the input.
_ELEMENTWISE = (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss)
# Of these it is only known whether they average or sum.
_OTHER = (
    F.cosine_embedding_loss,
    F.ctc_loss,
    F.gaussian_nll_loss,
    F.hinge_embedding_loss,
    F.kl_div,
    F.margin_ranking_loss,
    F.multi_margin_loss,
    F.multilabel_margin_loss,
    F.multilabel_soft_margin_loss,
    F.poisson_nll_loss,
    F.soft_margin_loss,
    F.triplet_margin_loss,
    F.triplet_margin_with_distance_loss,
)
_KNOWN: tuple[Any, ...] = (*_CLASSES, *_BINARY_THRESHOLD, *_ELEMENTWISE, *_OTHER)
KNOWING_CLASSES = (*_CLASSES, *_BINARY_THRESHOLD)
_KNOWING_CLASSES = {function.__name__ for function in KNOWING_CLASSES}
LOSS_SIGNATURES = {function: inspect.signature(function) for function in _KNOWN}
_ARGUMENTS = {
    function: (
        tuple(signature.parameters),
        {p.name: p.default for p in signature.parameters.values() if p.default is not p.empty},
    )
    for function, signature in LOSS_SIGNATURES.items()
}


@dataclasses.dataclass(frozen=True)
class LossCall:
    """One call of a loss function.

    Attributes:
        name: Name of the function.
        reduction: "mean", "sum" or "none".
        denominator: What a mean divides by: the number of targets, or the sum of their weights; None where unknown.
        wrong: Number of targets whose predicted class differs.
        counted: Number of classified targets that are not ignored; 0 for a regression loss.
    """

    name: str
    reduction: str
    denominator: float | None
    wrong: float
    counted: int


class LossObserver(TorchFunctionMode):
    """Collects a `LossCall` for every known loss function evaluated while the mode is active."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[LossCall] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in LOSS_SIGNATURES:
            # Quicker than Signature.bind; a call that does not fit the signature fails by itself below.
            names, defaults = _ARGUMENTS[func]
            arguments = defaults | dict(zip(names, args, strict=False)) | kwargs
            if len(arguments) == len(names):
                with torch.no_grad():
                    self.calls.append(_call(func, arguments))
        # The mode is off inside this handler, so the nll_loss within a cross_entropy is not counted twice.
        return func(*args, **kwargs)

    @property
    def wrong(self) -> float:
        """Wrong targets over all classification losses."""
        return sum(call.wrong for call in self.calls)

    @property
    def counted(self) -> int:
        """Classified targets over all calls; 0 where the loss knows no classes."""
        return sum(call.counted for call in self.calls)

    @property
    def classifies(self) -> bool:
        """Whether any call is of a loss that knows classes."""
        return any(call.name in _KNOWING_CLASSES for call in self.calls)


def batch_weight(calls: list[LossCall], examples: int, summed: bool = False) -> tuple[float, float]:
    """Return (share, scale): the weight of a batch in the mean over all batches, and a factor on its loss.

    A loss with a mean over its own denominator (unmasked targets, class weights) weighs with that denominator. A summed
    loss is divided first: by the unignored targets (or their weights) where it classifies, by the examples elsewhere.
    Where no known loss was seen, or several that disagree, examples count.

    Args:
        calls: The loss calls observed on this batch.
        examples: Its number of examples.
        summed: Whether the loss is known from elsewhere to be a sum over examples.

    Returns:
        The share (not normalised) and the scale.
    """
    reductions = {call.reduction for call in calls}
    denominators = {call.denominator for call in calls if call.reduction != "none"}
    denominator = denominators.pop() if len(denominators) == 1 else None
    own = float(examples) if denominator is None else denominator
    if reductions == {"sum"} or (summed and not calls):
        classified = all(call.name in {function.__name__ for function in _CLASSES} for call in calls)
        own = own if classified else float(examples)
        return own, 1.0 / own if own else 0.0
    return own, 1.0


def _call(func: Any, arguments: dict[str, Any]) -> LossCall:
    if func in _CLASSES:
        return _classes(func, arguments)
    if func in _BINARY_THRESHOLD:
        return _binary(func, arguments)
    denominator = float(arguments["input"].numel()) if func in _ELEMENTWISE else None
    return LossCall(func.__name__, _reduction(arguments), denominator, 0.0, 0)


def _classes(func: Any, arguments: dict[str, Any]) -> LossCall:
    scores, target, weight = arguments["input"], arguments["target"], arguments["weight"]
    axis = 1 if scores.ndim > 1 else 0
    predicted = scores.argmax(dim=axis)
    if target.is_floating_point():  # class probabilities: nothing is ignored, and the mean divides by their number
        wrong = predicted != target.argmax(dim=axis)
        return LossCall(func.__name__, _reduction(arguments), float(wrong.numel()), float(wrong.sum()), wrong.numel())
    kept = target != arguments["ignore_index"]
    counted = int(kept.sum())
    denominator = float(weight[target[kept]].double().sum()) if weight is not None else float(counted)
    wrong = float(((predicted != target) & kept).sum())
    return LossCall(func.__name__, _reduction(arguments), denominator, wrong, counted)


def _binary(func: Any, arguments: dict[str, Any]) -> LossCall:
    scores, target = arguments["input"], arguments["target"]
    wrong = (scores > _BINARY_THRESHOLD[func]) != (target > 0.5)
    # These divide by the number of targets whatever their weights.
    count = wrong.numel()
    return LossCall(func.__name__, _reduction(arguments), float(count), float(wrong.sum()), count)


def _reduction(arguments: dict[str, Any]) -> str:
    return str(arguments["reduction"])
