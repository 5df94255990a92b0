"""Read what each label costs under a model, −ln p(y | x), from the loss function that the model's own step calls."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from landscape._errors import MeasurementError
from landscape._loss_classes import class_axis
from landscape._loss_functions import has_numbers
from landscape._step import TrainingStep
from landscape.isolation import isolated
from landscape.losses import LossCall, LossWatcher

_ADVICE = "give `nats`, a function (model, batch) -> −ln p of each label, and `classes`"


@dataclasses.dataclass(frozen=True)
class Labels:
    """What the labels of some examples cost.

    Attributes:
        nats: −ln p of each label, float64, shape (labels,).
        classes: How many values a label can have.
    """

    nats: torch.Tensor
    classes: int

    def bits(self, smoothing: float = 0.0) -> float:
        """Return Σ −log2((1 − ε) p + ε / classes), ε the smoothing; infinite where ε is 0 and a probability is."""
        nats = self.nats
        if smoothing > 0:
            floor = nats.new_tensor(smoothing / self.classes).log()
            nats = -torch.logaddexp(nats.new_tensor(1 - smoothing).log() - nats, floor)
        return float(nats.sum()) / _LN2


_LN2 = 0.6931471805599453


def class_labels(scores: torch.Tensor, target: torch.Tensor, ignore_index: int = -100) -> Labels:
    """Return what class labels cost under softmax(scores); log-probabilities are scores that are normalised already.

    Args:
        scores: Shape (classes,), (examples, classes) or (examples, classes, ...).
        target: Class indices, in the shape of the scores without the classes.
        ignore_index: The target that is no label.

    Returns:
        The cost of each label, in order, ignored ones left out.

    Raises:
        MeasurementError: The targets are no class indices, or there are more of them than classes.
    """
    kept, axis = _require_labels(scores, target, ignore_index), class_axis(scores)
    logs = scores.detach().double().log_softmax(axis).movedim(axis, -1).reshape(-1, scores.shape[axis])
    labels = target.detach().reshape(-1)[kept].to(torch.int64)
    return Labels(-logs[kept].gather(1, labels[:, None])[:, 0], scores.shape[axis])


def _require_labels(scores: torch.Tensor, target: torch.Tensor, ignore_index: int) -> torch.Tensor:
    """Refuse targets that are no labels for the scores; return which of the flat targets are labels."""
    if target.is_floating_point():
        raise MeasurementError(
            f"the targets are {target.dtype} probabilities, and a code is of labels; give class indices"
        )
    if scores.ndim == 0:
        raise MeasurementError("the model gives one number for all examples; expected scores, one a class")
    axis = class_axis(scores)
    classes = scores.shape[axis]
    if target.shape != scores.shape[:axis] + scores.shape[axis + 1 :]:
        raise MeasurementError(
            f"found scores of shape {tuple(scores.shape)} for targets of shape {tuple(target.shape)}; expected "
            "(examples, classes) for (examples,), as in cross_entropy"
        )
    labels = target.detach().reshape(-1)
    kept = labels != ignore_index
    labels = labels[kept]
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= classes):
        raise MeasurementError(
            f"found labels from {int(labels.min())} to {int(labels.max())} and scores of {classes} classes; expected "
            f"labels from 0 to {classes - 1}"
        )
    return kept


def binary_labels(scores: torch.Tensor, target: torch.Tensor, logits: bool) -> Labels:
    """Return what labels 0 and 1 cost under their logits, or under the probability of a 1; each element is a label.

    Args:
        scores: Logits or probabilities.
        target: Zeros and ones, in the same shape.
        logits: Which of them the scores are.

    Returns:
        The cost of each label.

    Raises:
        MeasurementError: A target is neither 0 nor 1.
    """
    labels, scores = target.detach().double().reshape(-1), scores.detach().double().reshape(-1)
    if not bool(((labels == 0) | (labels == 1)).all()):
        raise MeasurementError("the targets of a binary cross-entropy are not all 0 or 1, and a code is of labels")
    if logits:
        return Labels(F.softplus((1 - 2 * labels) * scores), 2)
    return Labels(-torch.where(labels == 1, scores, 1 - scores).log(), 2)


def watch_labels() -> LossWatcher[tuple[str, Labels | None]]:
    """Make a watcher that collects the name of every loss called within, and the labels of one that classifies."""
    return LossWatcher(_read, before=_with_valid_labels)


def _with_valid_labels(function: Any, arguments: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """Refuse labels that do not fit before torch does, whose sentence says less."""
    if function in (F.cross_entropy, F.nll_loss) and has_numbers(arguments["target"]):
        _require_labels(arguments["input"], arguments["target"], arguments["ignore_index"])
    return function, arguments


def _read(call: LossCall) -> tuple[str, Labels | None]:
    """Return the name of a loss, and the labels of one that classifies."""
    if not call.readable:
        return f"{call.name} within torch.vmap", None
    labels = None
    if call.class_axis is not None:
        labels = class_labels(call.scores, call.target, call.ignore_index)
    elif call.classifies:
        labels = binary_labels(call.scores, call.target, call.function is F.binary_cross_entropy_with_logits)
    return call.name, labels


def _only(calls: Sequence[tuple[str, Labels | None]], source: str) -> Labels:
    """Return the labels of the one loss that was called.

    Raises:
        MeasurementError: No classification loss was called, or several losses.
    """
    if len(calls) == 1 and calls[0][1] is not None:
        return calls[0][1]
    found = ", ".join(name for name, _ in calls) or "no loss function of torch"
    raise MeasurementError(
        f"{source} called {found}; expected one cross_entropy, nll_loss or binary_cross_entropy, which says what "
        f"each label costs: {_ADVICE}"
    )


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Evaluate a model in eval mode, without graph and without a trace; of what is no module only the graph is off."""
    if not isinstance(model, nn.Module):
        with torch.no_grad():
            yield
        return
    with isolated(model), torch.no_grad():
        for part in model.modules():
            part.training = False
        yield


def step_loss(module: Any, batch: Any) -> float:
    """Return the loss of a LightningModule's own step on a batch, in eval mode and without a trace."""
    with evaluating(module):
        return float(TrainingStep(module)(batch, 0, torch.zeros(())))


def model_labels(model: Any, batch: Any) -> Labels:
    """Return what the labels of a batch cost under a model.

    Args:
        model: A module with a `training_step`, whose own loss is watched, or anything that gives scores when it is
            called with the inputs.
        batch: A batch; for the latter a pair of inputs and class indices.

    Returns:
        The labels.

    Raises:
        MeasurementError: It is not to be seen what they cost.
    """
    with evaluating(model):
        if hasattr(model, "training_step"):
            step = TrainingStep(model)
            with watch_labels() as watcher:
                step(batch, 0, torch.zeros(()))
            return _only(watcher.calls, step.description)
        if not (isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[1], torch.Tensor)):
            raise MeasurementError(
                f"the examples are a {type(batch).__name__} and no pair of inputs and class indices, so it is not "
                f"known what their labels are: {_ADVICE}"
            )
        scores = model(batch[0])
        if not isinstance(scores, torch.Tensor):
            raise MeasurementError(
                f"{type(model).__name__} returned {type(scores).__name__}, expected a tensor of scores, one a class: "
                f"{_ADVICE}"
            )
        return class_labels(scores, batch[1])


def joined(parts: Sequence[Labels]) -> Labels:
    """Return the labels of several batches as one.

    Raises:
        MeasurementError: They are of different numbers of classes.
    """
    classes = sorted({part.classes for part in parts})
    if len(classes) != 1:
        raise MeasurementError(f"found labels of {classes} classes in different batches, expected one number of them")
    return Labels(torch.cat([part.nats.cpu() for part in parts]), classes[0])
