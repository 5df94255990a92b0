"""How many examples a network gets wrong, and the refusal of what is no count of independent answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from landscape._errors import MeasurementError
from landscape._observe import LossObserver
from landscape.objective import Objective


@dataclasses.dataclass(frozen=True)
class Count:
    """Wrong answers.

    Attributes:
        wrong: How many.
        n: Of how many examples.
        classes: How many classes there are to choose from.
    """

    wrong: int
    n: int
    classes: int


def objective_of(model: nn.Module, batches: Iterable[Any], loss_fn: Callable[..., Any] | None) -> Objective:
    """Return the loss over the examples: a LightningModule's own step, or a loss function, by default cross-entropy."""
    if loss_fn is None and hasattr(model, "training_step"):
        return Objective.from_lightning(model, batches)
    # A class such as torch.nn.CrossEntropyLoss is made with its defaults.
    made = loss_fn() if isinstance(loss_fn, type) else loss_fn
    return Objective(model, F.cross_entropy if made is None else made, batches)


def count_wrong(
    objective: Objective, vector: torch.Tensor | None = None, buffers: dict[str, torch.Tensor] | None = None
) -> Count:
    """Count the wrong answers on all examples, one answer an example.

    Args:
        objective: The loss over the examples.
        vector: Flat parameters, shape (P,); by default the model's own.
        buffers: Buffers to substitute by name.

    Returns:
        The count.

    Raises:
        MeasurementError: The loss knows no classes, or there is not one answer for each example.
    """
    watcher = _Watcher()
    with objective.session(), torch.no_grad(), watcher:
        point = objective.vector() if vector is None else vector
        parameters = objective.layout.unflatten(point.to(objective.device, objective.dtype))
        for index in range(len(objective.batches)):
            objective.batch_loss(index, parameters, buffers)
    if not watcher.classifies:
        raise MeasurementError(
            "no loss that knows classes was seen, so there is no error rate to certify, and a squared error or another "
            "loss without an upper end has no such bound. Give a loss_fn such as cross_entropy; a loss with two ends "
            "goes to landscape.bounds.bounded_loss_bound"
        )
    if watcher.counted != objective.n_examples:
        raise MeasurementError(
            f"{watcher.counted} answers were seen for {objective.n_examples} examples; a certificate counts one answer "
            "an example, as several of one example (tokens, pixels, auxiliary losses, ignored targets) are not "
            "independent draws. Give a loss_fn of one answer an example"
        )
    return Count(round(watcher.wrong), watcher.counted, watcher.classes)


class _Watcher(LossObserver):
    """Notes how many classes there are as well."""

    classes = 2  # of a binary cross-entropy

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.cross_entropy, F.nll_loss):
            scores = args[0] if args else (kwargs or {})["input"]
            self.classes = int(scores.shape[1 if scores.ndim > 1 else 0])
        return super().__torch_function__(func, types, args, kwargs)
