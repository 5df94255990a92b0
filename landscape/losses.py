"""Watch the calls of loss functions inside any code, such as an unmodified training step.

A step returns one number. The loss function inside it knows whether that is a mean over examples, over unmasked tokens
or over class weights, and which predictions are wrong. `LossWatcher` is a torch function mode that shows every such
call; a reader decides what is kept of it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, Generic, TypeVar

import torch
from torch.overrides import TorchFunctionMode

from landscape import _loss_functions as facts

Kept = TypeVar("Kept")


@dataclasses.dataclass(frozen=True)
class LossCounts:
    """The numbers of one call of a loss function.

    Attributes:
        name: Name of the function.
        reduction: "mean", "sum" or "none".
        divisor: What a mean divides by: the number of counted targets, the sum of their weights, the number of elements
            or of sequences. None where it is not known.
        wrong: Number of counted targets whose predicted class is not the true one.
        counted: Number of classified targets that are not ignored; 0 for a regression loss.
        result: What the call returned, with its graph; None unless it was asked for.
    """

    name: str
    reduction: str
    divisor: float | None
    wrong: float
    counted: int
    result: torch.Tensor | None = dataclasses.field(default=None, compare=False, repr=False)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LossCall:
    """One call of a loss function, with its tensors. Everything derived from them is computed when it is asked for.

    Attributes:
        function: The function of `torch.nn.functional`.
        arguments: Its arguments by name, defaults applied.
        result: What it returned.
    """

    function: Any
    arguments: Mapping[str, Any]
    result: torch.Tensor

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
        """The targets, of a loss that has some."""
        return self.arguments["target"]

    @property
    def reduction(self) -> str:
        """How elements become the result: "mean", "sum" or "none"."""
        return facts.reduction_of(self.arguments)

    @property
    def class_axis(self) -> int | None:
        """Dimension of the scores along which the classes stand; None for binary losses and regressions."""
        return facts.class_axis_of(self.function, self.arguments)

    @property
    def threshold(self) -> float | None:
        """Input above which a binary loss predicts class 1; None for other losses."""
        return facts.THRESHOLDS.get(self.function)

    @property
    def classifies(self) -> bool:
        """Whether the loss knows classes."""
        return self.function in facts.CLASSES or self.function in facts.THRESHOLDS

    @property
    def n_classes(self) -> int | None:
        """Number of classes, 2 for a binary loss; None for a regression."""
        return facts.n_classes_of(self.function, self.arguments)

    @property
    def ignore_index(self) -> int:
        """Class index that is ignored, of a loss of class indices."""
        return facts.ignore_index_of(self.arguments)

    @functools.cached_property
    def scores(self) -> torch.Tensor:
        """The scores or probabilities that classes are predicted from, of a loss that knows classes."""
        return facts.scores_of(self.function, self.arguments)

    @functools.cached_property
    def kept(self) -> torch.Tensor:
        """Which targets count, a mask in the shape of the targets, of a loss that knows classes."""
        return facts.kept_of(self.function, self.arguments)

    @functools.cached_property
    def labels(self) -> torch.Tensor:
        """The true class of every target, of a loss that knows classes."""
        return facts.labels_of(self.function, self.arguments)

    @functools.cached_property
    def mistaken(self) -> torch.Tensor:
        """Which counted targets are predicted wrongly, a mask in the shape of the targets."""
        differing = facts.predicted_of(self.function, self.arguments) != self.labels
        return differing & self.kept if facts.may_ignore(self.function, self.arguments) else differing

    @functools.cached_property
    def counts(self) -> LossCounts:
        """The numbers of this call.

        Within `torch.vmap` tensors have no numbers to read: nothing is counted there, and the divisor is unknown.
        """
        try:
            float(self.result.new_zeros(()))
        except RuntimeError:
            return LossCounts(self.name, self.reduction, None, 0.0, 0)
        wrong, counted, divisor = 0.0, 0, None
        if self.classifies:
            ignoring = facts.may_ignore(self.function, self.arguments)
            wrong, counted = float(self.mistaken.sum()), int(self.kept.sum()) if ignoring else self.kept.numel()
        if (shares := facts.shares_of(self.function, self.arguments)) is not None:
            shape, share = shares
            summed = share.sum(dtype=torch.float64) if isinstance(share, torch.Tensor) else math.prod(shape) * share
            divisor = float(summed)
        return LossCounts(self.name, self.reduction, divisor, wrong, counted)

    def per_element(self) -> torch.Tensor:
        """Return the loss of each element before the reduction: a mean is their sum over `counts.divisor`."""
        return facts.unreduced(self.function, self.arguments)

    def per_example(self) -> torch.Tensor | None:
        """Return sums over the elements of each example, float64, shape (examples, 4).

        The columns are the summed loss, the share in the divisor of a mean, the wrong targets and the counted ones.
        Examples stand along the first dimension of the loss without reduction.

        Returns:
            The sums; None for a loss of a single example without such a dimension, or one whose divisor is unknown.
        """
        shares = facts.shares_of(self.function, self.arguments)
        if shares is None or not shares[0]:
            return None
        values = self.per_element()
        share = shares[1] if isinstance(shares[1], torch.Tensor) else values.new_tensor(float(shares[1]))
        none = values.new_zeros(())
        errors = (self.mistaken, self.kept) if self.classifies else (none, none)
        columns = [part.double().expand(values.shape)[..., None].flatten(1).sum(1) for part in (values, share, *errors)]
        return torch.stack(columns, 1)


@dataclasses.dataclass(frozen=True, eq=False)
class OtherCall:
    """One call of a function that is no loss.

    Attributes:
        function: The function.
        input: The first argument.
        result: What it returned.
    """

    function: Any
    input: torch.Tensor
    result: torch.Tensor


def whole(call: LossCall) -> LossCall:
    """Keep a call as it is. Its tensors stay in memory as long as the watcher does."""
    return call


class LossWatcher(TorchFunctionMode, Generic[Kept]):
    """Read every call of a loss function of torch that is made within; losses inside losses are not read again.

    Args:
        read: Returns what to keep of a call, without gradients; a None is not kept. By default the call itself.
        before: Receives a loss function and its arguments before they are evaluated, and returns those to evaluate and
            read instead; it may raise. By default nothing is changed, not even how arguments are passed.
        others: Further functions whose calls are kept in `other_calls`, with their tensors.

    Attributes:
        calls: What was read, in the order of the calls.
        other_calls: Calls of `others`.

    Example:
        >>> import torch
        >>> scores, labels = torch.tensor([[2.0, 0.0], [3.0, 1.0]]), torch.tensor([0, 1])
        >>> with LossWatcher(lambda call: call.counts) as watcher:
        ...     loss = torch.nn.CrossEntropyLoss()(scores, labels)
        >>> watcher.calls
        [LossCounts(name='cross_entropy', reduction='mean', divisor=2.0, wrong=1.0, counted=2)]
    """

    # Whether any watcher is reading: the losses that a reader evaluates are no calls of the watched code.
    _reading = False

    def __init__(
        self,
        read: Callable[[LossCall], Kept | None] | None = whole,  # type: ignore[assignment]
        before: Callable[[Any, Mapping[str, Any]], tuple[Any, Mapping[str, Any]]] | None = None,
        others: Collection[Any] = (),
    ):
        super().__init__()
        self.calls: list[Kept] = []
        self.other_calls: list[OtherCall] = []
        self._read = read
        self._before = before
        self._others = others

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Evaluate a function of torch, and read it if it is a loss."""
        # The mode is off inside this handler, so the nll_loss within a cross_entropy is not read twice.
        kwargs = facts.with_lost_weight(func, kwargs or {})
        found = facts.bound(func, args, kwargs)
        if found is None:
            result = func(*args, **kwargs)
            if func in self._others and not LossWatcher._reading:
                self.other_calls.append(OtherCall(func, args[0] if args else kwargs["input"], result))
            return result
        if self._before is None:
            self._keep(*found, result := func(*args, **kwargs))
            return result
        function, arguments = self._before(*found)
        self._keep(function, arguments, result := function(**arguments))
        return result

    def _keep(self, function: Any, arguments: Mapping[str, Any], result: torch.Tensor) -> None:
        if self._read is None or LossWatcher._reading:
            return
        LossWatcher._reading = True
        try:
            with torch.no_grad():
                kept = self._read(LossCall(function, arguments, result))
        finally:
            LossWatcher._reading = False
        if kept is not None:
            self.calls.append(kept)


class LossCounter(LossWatcher[LossCounts]):
    """Count targets and errors of every loss called within; no tensor is kept.

    Args:
        keep_results: Keep what each call returned, with its graph, to differentiate by it.

    Attributes:
        calls: The `LossCounts` of each call.
    """

    def __init__(self, keep_results: bool = False):
        def read(call: LossCall) -> LossCounts:
            return dataclasses.replace(call.counts, result=call.result) if keep_results else call.counts

        super().__init__(read)

    @property
    def wrong(self) -> float:
        """Wrong targets over all classification losses."""
        return sum(call.wrong for call in self.calls)

    @property
    def counted(self) -> int:
        """Classified targets over all calls; 0 where no loss knows classes."""
        return sum(call.counted for call in self.calls)

    @property
    def classifies(self) -> bool:
        """Whether any loss that was called knows classes."""
        return any(call.name in _CLASSIFYING for call in self.calls)


_CLASSIFYING = {function.__name__ for function in (*facts.CLASSES, *facts.THRESHOLDS)}
