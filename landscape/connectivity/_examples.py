"""The share of every single example in a loss and an error rate, for standard errors over examples."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

from landscape._observe import LOSS_SIGNATURES
from landscape.objective import Objective

_CLASSES = (F.cross_entropy, F.nll_loss)
_BINARY = (F.binary_cross_entropy_with_logits, F.binary_cross_entropy)
_SUPPORTED = (*_CLASSES, *_BINARY, F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss)


class ExampleObserver(TorchFunctionMode):
    """Collects, from every call of a known loss function, sums over each example's targets.

    `calls` holds one array of shape (examples, 4) a call: the summed loss, what its mean divides by, the number of
    wrong targets, the number of counted ones (0 for a regression).
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[np.ndarray] = []
        self.unknown = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in LOSS_SIGNATURES:
            bound = LOSS_SIGNATURES[func].bind(*args, **kwargs)
            bound.apply_defaults()
            if func in _SUPPORTED and bound.arguments["input"].ndim > 0:
                with torch.no_grad():
                    self.calls.append(_shares(func, bound.arguments))
            else:
                self.unknown = True
        return func(*args, **kwargs)


def influence(objective: Objective, observer: ExampleObserver, loss: float, error: float) -> np.ndarray | None:
    """Return what each example adds to the loss and to the error rate, about their means.

    The loss is a ratio of sums, L = Σ u_i / Σ m_i, u_i the summed loss of example i's targets and m_i what the mean
    divides by. To first order it moves with example i by (u_i − L m_i) / mean(m); the standard error of L is the
    standard deviation of these over √n. Linear combinations of losses at several points have that of the combination.

    Args:
        objective: The objective that was evaluated once.
        observer: What was seen meanwhile.
        loss: Its loss.
        error: Its error rate.

    Returns:
        Shape (2, examples): for loss and error; NaN for an error that does not exist. None where the examples' shares
        are not known: a loss function that is none of torch's, several in one step, or further terms beside it.
    """
    if observer.unknown or [len(call) for call in observer.calls] != list(objective.batch_sizes):
        return None
    summed, divisor, wrong, counted = np.concatenate(observer.calls).T
    if not divisor.sum() > 0 or not np.isclose(summed.sum() / divisor.sum(), loss, rtol=1e-3, atol=1e-6):
        return None
    of_loss = (summed - loss * divisor) / divisor.mean()
    of_error = (wrong - error * counted) / counted.mean() if counted.any() else np.full(len(summed), np.nan)
    return np.stack([of_loss, of_error])


def _shares(func: Any, arguments: dict[str, Any]) -> np.ndarray:
    scores, target = arguments["input"], arguments["target"]
    # Not through the arguments' own reduction: each target by itself.
    values = func(**{**arguments, "size_average": None, "reduce": None, "reduction": "none"})
    wrong = counted = torch.zeros_like(values)
    divisor = torch.ones_like(values)
    if func in _CLASSES:
        axis = 1 if scores.ndim > 1 else 0
        labels = target.argmax(axis) if target.is_floating_point() else target
        kept = torch.ones_like(labels, dtype=torch.bool)
        if not target.is_floating_point():
            kept = labels != arguments["ignore_index"]
            weight = arguments["weight"]
            divisor = kept.double() if weight is None else weight[labels * kept] * kept
        wrong, counted = (scores.argmax(axis) != labels) & kept, kept
    elif func in _BINARY:
        threshold = 0.0 if func is F.binary_cross_entropy_with_logits else 0.5
        wrong, counted = (scores > threshold) != (target > 0.5), torch.ones_like(values)
    columns = [part.detach().double().reshape(len(values), -1).sum(1) for part in (values, divisor, wrong, counted)]
    return torch.stack(columns, 1).cpu().numpy()
