"""Watch the calls of loss functions inside any code, such as an unmodified training step.

A step returns one number. The loss function inside it knows whether that is a mean over examples, over unmasked tokens
or over class weights, and which predictions are wrong. `LossWatcher` is a torch function mode that shows every such
call; a reader decides what is kept of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, Generic, TypeVar

import torch
from torch.overrides import TorchFunctionMode

from landscape._loss_call import LossCall, LossCounts
from landscape._loss_classes import CLASSES, THRESHOLDS
from landscape._loss_functions import bound, has_numbers, with_lost_weight

__all__ = ["ErrorCounter", "LossCall", "LossCounter", "LossCounts", "LossWatcher", "OtherCall", "whole"]

Kept = TypeVar("Kept")


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
        read: Reads a call, without gradients; its result is kept in `calls` unless it is None. By default the call
            itself is kept; None reads nothing.
        before: Receives a loss function and its arguments before each call, and returns the function and the arguments
            to call instead; it may raise. By default calls are made as they are.
        others: Further functions whose calls are kept in `other_calls`, with their tensors.

    Attributes:
        calls: The results of reading, in the order of the calls.
        other_calls: Calls of `others`.

    Example:
        >>> import torch
        >>> scores, labels = torch.tensor([[2.0, 0.0], [3.0, 1.0]]), torch.tensor([0, 1])
        >>> with LossWatcher(lambda call: call.counts) as watcher:
        ...     loss = torch.nn.CrossEntropyLoss()(scores, labels)
        >>> watcher.calls
        [LossCounts(name='cross_entropy', reduction='mean', divisor=2.0, wrong=1.0, counted=2)]
    """

    # True while any watcher reads: losses that a reader evaluates do not belong to the watched code.
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
        kwargs = with_lost_weight(func, kwargs or {})
        found = bound(func, args, kwargs)
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
                kept = self._read(LossCall(function, arguments, result, has_numbers(result)))
        finally:
            LossWatcher._reading = False
        if kept is not None:
            self.calls.append(kept)


class LossCounter(LossWatcher[LossCounts]):
    """Count targets and errors of every loss called within; no tensor is kept.

    Args:
        keep_results: Keep the tensor that each call returned, with its graph, to differentiate by it.

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


class ErrorCounter(LossWatcher[tuple[torch.Tensor | int, torch.Tensor | int]]):
    """Count wrong and counted targets of every loss called within, without waiting for the device."""

    def __init__(self) -> None:
        super().__init__(lambda call: call.errors)

    def add_to(self, sums: torch.Tensor) -> None:
        """Add the number of wrong targets and that of counted ones to a vector of two numbers."""
        for wrong, counted in self.calls:
            sums[0] += wrong
            sums[1] += counted


_CLASSIFYING = {function.__name__ for function in (*CLASSES, *THRESHOLDS)}
