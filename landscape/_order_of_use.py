"""Find the layer that a model uses last, by watching one evaluation of its loss."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from landscape._errors import MeasurementError, words_of
from landscape._step import SkippedBatch

if TYPE_CHECKING:
    from landscape._batch_losses import BatchLosses


def last_layer(losses: BatchLosses) -> tuple[str, ...]:
    """Return the names of the trainable parameters in the layer that the model uses last.

    The layer is the module that holds the parameter used last. Uses inside of a module's forward come first: so a
    penalty that the step adds to the loss afterwards changes nothing. A parameter that is used outside of any forward
    only counts by that use. A tied parameter belongs to the module of its first name.

    Args:
        losses: Prepared batches, within an isolation. One of them is evaluated once, without gradients.

    Returns:
        The names.

    Raises:
        MeasurementError: No use of a trainable parameter was seen.
        SkippedBatch: The step skips every batch.
    """
    names = losses.layout.names
    for index, batch in enumerate(losses.batches):
        try:
            uses = _watched(losses, batch, index)
            break
        except SkippedBatch:
            if index == len(losses.batches) - 1:
                raise
    if not uses:
        raise MeasurementError(
            f"the order in which {type(losses.module).__name__} uses its parameters could not be seen, so there is no "
            "parameters='last_layer'; name the layer instead, such as parameters=['head']"
        )
    owner = max(uses, key=lambda name: uses[name]).rpartition(".")[0]
    return tuple(name for name in names if name.rpartition(".")[0] == owner)


def _watched(losses: BatchLosses, batch: Any, index: int) -> dict[str, int]:
    """Return a running number of the last use of each parameter that was used, by name."""
    # A step that differentiates by its parameters needs them to require gradients.
    for requires in (False, True):
        parameters = [part.detach().requires_grad_(requires) for part in losses.present()]
        watcher = _Uses(losses.layout.names, parameters)
        try:
            with watcher.forwards_counted(), torch.enable_grad(), watcher:
                losses.step_loss(batch, index, parameters)
            break
        except RuntimeError as error:
            if requires or "does not require grad" not in words_of(error):
                raise
    return watcher.outside | watcher.inside


class _Uses(TorchFunctionMode):
    """Note when each of some tensors is last an argument of a function that returns tensors.

    Args:
        names: Names of the tensors.
        tensors: The tensors, as the functions receive them.

    Attributes:
        inside: Running numbers of the last uses inside of a module's forward, by name.
        outside: The same for uses outside of all forwards.
    """

    def __init__(self, names: Sequence[str], tensors: Sequence[torch.Tensor]):
        super().__init__()
        self._names = {id(tensor): name for name, tensor in zip(names, tensors, strict=True)}
        self._numbers = itertools.count()
        self._depth = 0
        self.inside: dict[str, int] = {}
        self.outside: dict[str, int] = {}

    @contextlib.contextmanager
    def forwards_counted(self) -> Iterator[None]:
        """Keep account of whether the forward of some module is running."""

        def enter(part: torch.nn.Module, args: Any) -> None:
            self._depth += 1
            if isinstance(part, torch.jit.ScriptModule):  # its functions are called where no mode sees them
                self._note(part.parameters())

        def leave(part: torch.nn.Module, args: Any, output: Any) -> None:
            self._depth -= 1

        with contextlib.ExitStack() as stack:
            stack.callback(register_module_forward_pre_hook(enter).remove)
            stack.callback(register_module_forward_hook(leave, always_call=True).remove)
            yield

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch, and note which of the tensors are among its arguments."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if next(_tensors(result), None) is not None:  # else it only asked for a shape, a type or a flag
            self._note(_tensors((args, kwargs)))
        return result

    def _note(self, tensors: Iterable[torch.Tensor]) -> None:
        uses = self.inside if self._depth else self.outside
        for tensor in tensors:
            if id(tensor) in self._names:
                uses[self._names[id(tensor)]] = next(self._numbers)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in nested tuples, lists and dicts."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _tensors(entry)
    elif isinstance(value, (tuple, list)):
        for entry in value:
            yield from _tensors(entry)
