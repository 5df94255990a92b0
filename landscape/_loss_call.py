"""Read one call of a loss function: its reduction and divisor, its targets and errors, the loss of each element."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import torch

from landscape import _loss_classes as classes
from landscape import _loss_functions as facts


@dataclasses.dataclass(frozen=True)
class LossCounts:
    """The numbers of one call of a loss function.

    Attributes:
        name: Name of the function.
        reduction: "mean", "sum" or "none".
        divisor: The number that a mean divides by: counted targets, the sum of their weights, elements or sequences.
            None where it is not known.
        wrong: Number of counted targets whose predicted class is not the true one.
        counted: Number of classified targets that are not ignored; 0 for a regression loss.
        result: The tensor that the call returned, with its graph; None unless it was asked for.
    """

    name: str
    reduction: str
    divisor: float | None
    wrong: float
    counted: int
    result: torch.Tensor | None = dataclasses.field(default=None, compare=False, repr=False)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LossCall:
    """One call of a loss function, with its tensors; everything derived from them is computed on demand.

    Attributes:
        function: The function of `torch.nn.functional`.
        arguments: Its arguments by name, defaults applied.
        result: The tensor that it returned.
        readable: Whether the tensors hold numbers. Within `torch.vmap` they do not: nothing can be counted there.
    """

    function: Any
    arguments: Mapping[str, Any]
    result: torch.Tensor
    readable: bool = True

    @property
    def name(self) -> str:
        """Name of the function."""
        return str(self.function.__name__)

    @property
    def input(self) -> torch.Tensor:
        """The first tensor that the function is called on."""
        return facts.input_of(self.function, self.arguments)

    @property
    def target(self) -> torch.Tensor:
        """The argument `target`."""
        return self.arguments["target"]

    @property
    def reduction(self) -> str:
        """How elements become the result: "mean", "sum" or "none"."""
        return facts.reduction_of(self.arguments)

    @property
    def class_axis(self) -> int | None:
        """Dimension of the scores along which the classes stand; None for binary losses and regressions."""
        return classes.class_axis_of(self.function, self.arguments)

    @property
    def threshold(self) -> float | None:
        """Input above which a binary loss predicts class 1; None for other losses."""
        return classes.THRESHOLDS.get(self.function)

    @property
    def classifies(self) -> bool:
        """Whether the loss knows classes."""
        return self.function in classes.CLASSES or self.function in classes.THRESHOLDS

    @property
    def n_classes(self) -> int | None:
        """Number of classes, 2 for a binary loss; None for a regression."""
        return classes.n_classes_of(self.function, self.arguments)

    @property
    def ignore_index(self) -> int:
        """Class index that the loss ignores."""
        return classes.ignore_index_of(self.arguments)

    @functools.cached_property
    def scores(self) -> torch.Tensor:
        """Scores, logits or probabilities from which a classification loss predicts."""
        return classes.scores_of(self.function, self.arguments)

    @functools.cached_property
    def kept(self) -> torch.Tensor:
        """Mask of the targets that a classification loss does not ignore, in their shape."""
        return classes.kept_of(self.function, self.arguments)

    @functools.cached_property
    def labels(self) -> torch.Tensor:
        """True class of every target of a classification loss."""
        return classes.labels_of(self.function, self.arguments)

    @functools.cached_property
    def mistaken(self) -> torch.Tensor:
        """Mask of the counted targets whose predicted class is wrong, in the shape of the targets."""
        differing = classes.predicted_of(self.function, self.arguments) != self.labels
        return differing & self.kept if classes.may_ignore(self.function, self.arguments) else differing

    @functools.cached_property
    def probabilities(self) -> torch.Tensor:
        """Predicted probabilities of a classification loss, float64: of all classes, or of class 1 if it is binary."""
        return classes.probabilities_of(self.function, self.arguments)

    @functools.cached_property
    def divisor(self) -> float | None:
        """The number that a mean divides by; None where it is not known."""
        shares = facts.shares_of(self.function, self.arguments) if self.readable else None
        if shares is None:
            return None
        shape, share = shares
        if isinstance(share, torch.Tensor):
            return float(share.detach().sum(dtype=torch.float64))
        return float(math.prod(shape) * share)

    @property
    def errors(self) -> tuple[torch.Tensor | int, torch.Tensor | int]:
        """Numbers of wrong and of counted targets, on the device: whoever reads them waits. 0 for a regression."""
        if not self.readable or not self.classifies:
            return 0, 0
        ignoring = classes.may_ignore(self.function, self.arguments)
        return self.mistaken.sum(), self.kept.sum() if ignoring else self.kept.numel()

    @functools.cached_property
    def counts(self) -> LossCounts:
        """The numbers of this call; without any, and with an unknown divisor, where the call is not readable."""
        if not self.readable:
            return LossCounts(self.name, self.reduction, None, 0.0, 0)
        wrong, counted = self.errors
        return LossCounts(self.name, self.reduction, self.divisor, float(wrong), int(counted))

    def per_element(self) -> torch.Tensor:
        """Return the loss of each element before the reduction: a mean is their sum over `divisor`."""
        return facts.unreduced(self.function, self.arguments)

    def per_example(self) -> torch.Tensor | None:
        """Return sums over the elements of each example, float64, shape (examples, 4).

        The columns are the summed loss, the share in the divisor of a mean, the wrong targets and the counted ones.
        Examples stand along the first dimension of the loss without reduction.

        Returns:
            The sums; None where the call is not readable, its divisor is unknown, or a single example has no such
            dimension.
        """
        shares = facts.shares_of(self.function, self.arguments) if self.readable else None
        if shares is None or not shares[0]:
            return None
        values = self.per_element()
        share = shares[1] if isinstance(shares[1], torch.Tensor) else values.new_tensor(float(shares[1]))
        none = values.new_zeros(())
        errors = (self.mistaken, self.kept) if self.classifies else (none, none)
        columns = [part.double().expand(values.shape)[..., None].flatten(1).sum(1) for part in (values, share, *errors)]
        return torch.stack(columns, 1)
