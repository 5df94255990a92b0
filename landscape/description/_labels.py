"""What each label costs under a model: −ln p(y | x), read off the loss function that the model's own step calls."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.overrides import TorchFunctionMode

from landscape._errors import MeasurementError
from landscape._observe import LOSS_SIGNATURES
from landscape._step import TrainingStep
from landscape.isolation import isolated

_CLASSES = (F.cross_entropy, F.nll_loss)
_BINARY = (F.binary_cross_entropy_with_logits, F.binary_cross_entropy)
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
    if target.is_floating_point():
        raise MeasurementError(
            f"the targets are {target.dtype} probabilities, and a code is of labels; give class indices"
        )
    if scores.ndim == 0:
        raise MeasurementError("the model gives one number for all examples; expected scores, one a class")
    axis = 1 if scores.ndim > 1 else 0
    classes = scores.shape[axis]
    if target.shape != scores.shape[:axis] + scores.shape[axis + 1 :]:
        raise MeasurementError(
            f"found scores of shape {tuple(scores.shape)} for targets of shape {tuple(target.shape)}; expected "
            "(examples, classes) for (examples,), as in cross_entropy"
        )
    labels = target.detach().reshape(-1)
    kept = labels != ignore_index
    labels = labels[kept].to(torch.int64)
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= classes):
        raise MeasurementError(
            f"found labels from {int(labels.min())} to {int(labels.max())} and scores of {classes} classes; expected "
            f"labels from 0 to {classes - 1}"
        )
    logs = scores.detach().double().log_softmax(axis).movedim(axis, -1).reshape(-1, classes)
    return Labels(-logs[kept].gather(1, labels[:, None])[:, 0], classes)


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


class LabelObserver(TorchFunctionMode):
    """Collects the labels of every known classification loss called within, and the names of all known losses."""

    def __init__(self) -> None:
        super().__init__()
        self.labels: list[Labels] = []
        self.losses: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in LOSS_SIGNATURES:
            bound = LOSS_SIGNATURES[func].bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
            self.losses.append(func.__name__)
            with torch.no_grad():
                if func in _CLASSES:
                    self.labels.append(class_labels(given["input"], given["target"], given["ignore_index"]))
                elif func in _BINARY:
                    self.labels.append(binary_labels(given["input"], given["target"], func is _BINARY[0]))
        return func(*args, **kwargs)

    def only(self, source: str) -> Labels:
        """Return the labels of the one loss that was called.

        Args:
            source: What was watched, for the sentence.

        Returns:
            The labels.

        Raises:
            MeasurementError: No classification loss was called, or several losses.
        """
        if len(self.losses) == 1 and len(self.labels) == 1:
            return self.labels[0]
        found = ", ".join(self.losses) or "no loss function of torch"
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
            with LabelObserver() as observer:
                step(batch, 0, torch.zeros(()))
            return observer.only(step.description)
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
