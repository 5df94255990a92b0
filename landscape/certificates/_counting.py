"""Count the examples that a network gets wrong, and refuse answers that depend on other examples."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from landscape import _batches
from landscape._errors import LandscapeError, MeasurementError, WeightingWarning
from landscape._given import check_objective_inputs
from landscape._private import pytree
from landscape.certificates._examples import require_whole
from landscape.losses import LossCall, LossWatcher
from landscape.objective import Objective

_HALF_OF_THE_DIGITS = 3e-4  # of float32, relative to the largest score


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
    # A class such as torch.nn.CrossEntropyLoss is made with its defaults.
    made = loss_fn() if isinstance(loss_fn, type) else loss_fn
    check_objective_inputs(model, made, batches)
    require_whole(batches)
    if isinstance(made, nn.Module) and next(made.parameters(), None) is not None:
        raise MeasurementError(
            f"the loss {type(made).__name__} has parameters of its own, which no stream holds, and which may have seen "
            "the examples; make them part of the network"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", WeightingWarning)  # errors are counted, whatever the loss divides by
            if loss_fn is None and hasattr(model, "training_step"):
                return Objective.from_lightning(model, batches)
            return Objective(model, F.cross_entropy if made is None else made, batches)
    except LandscapeError:
        raise
    except Exception as error:  # whatever a network or a loss raises on examples that are not for it
        raise MeasurementError(
            f"{type(model).__name__} and its loss cannot be evaluated on these examples ({type(error).__name__}: "
            f"{error}); give examples that they are made for"
        ) from error


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
    wrong, classes = 0.0, 0
    with objective.session(), torch.no_grad():
        point = objective.vector() if vector is None else vector
        parameters = objective.layout.unflatten(point.to(objective.device, objective.dtype))
        for index, size in enumerate(objective.batch_sizes):
            if not size and _batches.n_examples(objective.batches[index]):
                raise MeasurementError(
                    "the training step returned None for a batch, so its examples have no answer and cannot be "
                    "counted; a certificate needs an answer to every example"
                )
            if size:  # an empty batch has no answer to look at
                call = _answers(objective, index, parameters, buffers)
                wrong, classes = wrong + call.counts.wrong, max(classes, call.n_classes or 0)
    return Count(round(wrong), objective.n_examples, classes)


def require_answers_of_one_example(objective: Objective) -> None:
    """Raise unless the answer to an example is the same beside other examples.

    Every batch is evaluated again in another order and in two unequal pieces. Batch statistics, attention or recurrence
    along the wrong axis, contrasts within a batch and noise by position all show. Without this the errors would not be
    independent draws: batches sorted by class tell the class.

    Memory: the examples twice more.

    Args:
        objective: The loss over the examples.

    Raises:
        MeasurementError: An answer depends on the batch, or it cannot be seen because the batches cannot be cut.
    """
    generator = torch.Generator().manual_seed(0)
    pieces: list[Any] = []
    orders: list[tuple[int, list[torch.Tensor]]] = []
    for index, (batch, size) in enumerate(zip(objective.batches, objective.batch_sizes, strict=True)):
        if size < 2:
            continue
        _require_columns(batch, size)
        order = torch.randperm(size, generator=generator)
        parts = [part for part in (order[: size // 3], order[size // 3 :]) if len(part)]
        if len(parts) == 1:  # of two examples, each alone
            parts = list(order.split(1))
        pieces += [_rows(batch, part.to(objective.device)) for part in parts]
        orders.append((index, parts))
    if not pieces:
        return
    again = objective.restrict(pieces)
    with objective.session(), torch.no_grad():
        parameters = objective.layout.unflatten(objective.vector())
        at = 0
        for index, parts in orders:
            whole = _answers(objective, index, parameters, None).scores.detach()
            whole = whole.reshape(objective.batch_sizes[index], -1)
            for part in parts:
                piece = _answers(again, at, parameters, None).scores.detach().reshape(len(part), -1)
                at += 1
                if whole.shape[1:] != piece.shape[1:] or not _alike(whole[part], piece):
                    raise MeasurementError(
                        "the answer to an example depends on the other examples of its batch, or on its place there "
                        "(statistics of the batch, attention or recurrence along the wrong axis, as without "
                        "batch_first=True, contrasts within the batch, noise by position); this is no function of one "
                        "example, and no bound is for it. Change the network, or give batches of one example each"
                    )


def _answers(objective: Objective, index: int, parameters: Any, buffers: dict[str, torch.Tensor] | None) -> LossCall:
    """Return the one call of a classification loss on a batch, after checking that it has one answer an example."""
    with LossWatcher(lambda call: call if call.classifies else None) as watcher:
        objective.batch_loss(index, parameters, buffers)
    if not watcher.calls:
        raise MeasurementError(
            "no loss that knows classes was seen, so there is no error rate to certify, and a squared error or another "
            "loss without an upper end has no such bound. Give a loss_fn such as cross_entropy; a loss with two ends "
            "goes to landscape.bounds.bounded_loss_bound"
        )
    # Batch by batch: answers too many in one must not make up for answers that are missing in another.
    size, counted = objective.batch_sizes[index], sum(call.counts.counted for call in watcher.calls)
    if counted != size or len(watcher.calls) != 1:
        raise MeasurementError(
            f"expected one prediction per example, found {len(watcher.calls)} loss calls and {counted} counted "
            f"targets for {size} examples of a batch; several predictions of one example (tokens, pixels, auxiliary "
            "losses) are not independent draws, and ignored targets are no predictions. Give a loss that is called "
            "once, with one target per example"
        )
    call = watcher.calls[0]
    if call.class_axis is not None and call.target.is_floating_point():
        _require_probabilities(call.target)
    return call


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Compare scores to half of their digits: another cut of a batch may round otherwise, and no more."""
    one, other = one.double(), other.double()
    size = float(one[one.isfinite()].abs().max()) if one.isfinite().any() else 0.0
    return torch.allclose(one, other, rtol=0.0, atol=_HALF_OF_THE_DIGITS * size, equal_nan=True)


def _require_columns(batch: Any, size: int) -> None:
    for leaf in _batches.leaves(batch):
        column = isinstance(leaf, torch.Tensor) and (leaf.ndim == 0 or leaf.shape[0] == size)
        if not column and not (leaf is None or isinstance(leaf, (bool, int, float, str))):
            found = f"a tensor of shape {tuple(leaf.shape)}" if isinstance(leaf, torch.Tensor) else type(leaf).__name__
            raise MeasurementError(
                f"a batch of {size} examples holds {found}, so that it cannot be cut, and whether the answer to one "
                "example depends on the others cannot be seen; give batches of tensors that have the examples along "
                "their first dimension, or of one example each"
            )


def _rows(batch: Any, rows: torch.Tensor) -> Any:
    return pytree.tree_map(lambda leaf: leaf[rows] if isinstance(leaf, torch.Tensor) and leaf.ndim else leaf, batch)


def _require_probabilities(target: torch.Tensor) -> None:
    total = target.detach().sum(1 if target.ndim > 1 else 0)
    if not torch.allclose(total, torch.ones_like(total), rtol=0.0, atol=1e-2):
        raise MeasurementError(
            "the targets are floating-point numbers that do not sum to 1 for each example, as of several labels an "
            "example; cross-entropy takes them for probabilities of classes, and the largest for the right answer, "
            "which is no error rate. Give one class an example"
        )
