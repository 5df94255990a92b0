"""Several processes that measure together: what all of them take part in, and failures that all of them hear of.

All run the same code on equal numbers; where one adds its share they meet. Every meeting begins with a header of one
size: whether somebody failed, and what the meeting is for. So an error of one process is raised in all, and processes
that have come to different places find out, where different collectives would wait for each other for ever.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from landscape._errors import LandscapeError, MeasurementError, words_of
from landscape._private import COLLECTIVES, TorchDispatchMode

_T = TypeVar("_T")
_R = TypeVar("_R")
# Purposes of meetings; those that exchange tensors go by their length, below the first of these.
_LONGEST = 2**20
_GATHER, _FIRST, _END = range(_LONGEST, _LONGEST + 3)


class Processes:
    """One process on its own: every method gives back what it got.

    Attributes:
        rank: Number of this process among those that measure together.
        size: How many they are.
    """

    rank = 0
    size = 1

    def share(self, sizes: Sequence[int]) -> list[int]:
        """Choose this process's part of some pieces of work, given the size of each: their indices, ascending."""
        return list(range(len(sizes)))

    @contextlib.contextmanager
    def summed(self, *tensors: torch.Tensor) -> Iterator[None]:
        """Replace tensors, on leaving, by their sums over all processes.

        Args:
            *tensors: Of equal shapes in all processes; what each adds to zeros within the context is its share.

        Yields:
            Nothing.
        """
        yield

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Raise in all processes what one of them raises within, wherever that happens.

        Yields:
            Nothing.
        """
        yield

    def gather(self, value: _T) -> list[_T]:
        """Collect a value of every process, in the order of their ranks."""
        return [value]

    def first(self, value: _T) -> _T:
        """Return what the first process gave: for all that is decided by clocks and files."""
        return value

    def first_tensors(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return copies of the first process's tensors by name; nothing where this process is alone."""
        return {}

    def map(self, function: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
        """Apply a function to some items, each in one process, and return all results in order.

        Args:
            function: Does not meet other processes; gives what can be pickled.
            items: Equal in all processes.

        Returns:
            The results.
        """
        own = self.share([1] * len(items))
        with self.summed():
            results = {index: function(items[index]) for index in own}
        found = {index: result for part in self.gather(results) for index, result in part.items()}
        return [found[index] for index in range(len(items))]


ALONE = Processes()


class ProcessGroup(Processes):
    """The processes of a torch.distributed group.

    Args:
        group: The group; None for all processes.
        device: Where this process measures.
    """

    def __init__(self, group: dist.ProcessGroup | None, device: torch.device):
        world: Any = dist.group.WORLD  # None only before torch.distributed is set up
        self._group: dist.ProcessGroup = world if group is None else group
        self.rank = dist.get_rank(self._group)
        self.size = dist.get_world_size(self._group)
        self._device = torch.device("cpu") if dist.get_backend(self._group) == "gloo" else device
        self._source = dist.get_global_rank(self._group, 0)
        self._depth = 0
        self._apart: MeasurementError | None = None

    def share(self, sizes: Sequence[int]) -> list[int]:
        """Choose this process's part: the largest pieces first, each to whoever has least."""
        loads, own = [0] * self.size, []
        for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
            least = loads.index(min(loads))
            loads[least] += sizes[index]
            if least == self.rank:
                own.append(index)
        return sorted(own)

    @contextlib.contextmanager
    def summed(self, *tensors: torch.Tensor) -> Iterator[None]:
        """Replace tensors, on leaving, by their sums over all processes.

        Yields:
            Nothing.
        """
        purpose = sum(tensor.numel() for tensor in tensors) % _LONGEST
        with self._telling(purpose):
            yield
        self._meet(purpose)
        for tensor in tensors:
            dist.all_reduce(tensor, group=self._group)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Raise in all processes what one of them raises within; may be nested.

        Yields:
            Nothing.
        """
        purpose = _END + self._depth
        self._depth += 1
        try:
            with self._telling(purpose):
                yield
            self._meet(purpose)
        finally:
            self._depth -= 1
            if not self._depth:
                self._apart = None

    def gather(self, value: _T) -> list[_T]:
        """Collect a value of every process."""
        with self._telling(_GATHER):
            packed = pickle.dumps(value)
        self._meet(_GATHER)
        return [pickle.loads(part) for part in self._gather(packed)]

    def first(self, value: _T) -> _T:
        """Return what the first process gave."""
        with self._telling(_FIRST):
            box = [pickle.dumps(value) if self.rank == 0 else b""]
        self._meet(_FIRST)
        dist.broadcast_object_list(box, src=self._source, group=self._group, device=self._device)
        result: _T = pickle.loads(box[0])
        return result

    def first_tensors(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return copies of the first process's tensors by name."""
        dense = {name: tensor.detach() for name, tensor in tensors.items() if tensor.layout == torch.strided}
        # A tensor of another length elsewhere shows in the number of bytes.
        self._meet(sum(tensor.nbytes for tensor in dense.values()) % _LONGEST)
        copies = {}
        for name, tensor in dense.items():
            copy = tensor.to(self._device, copy=True).contiguous()
            if copy.numel():
                dist.broadcast(copy.reshape(-1).view(torch.uint8), src=self._source, group=self._group)
            copies[name] = copy.to(tensor.device)
        return copies

    def _gather(self, value: _T) -> list[_T]:
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._group)
        return values

    @contextlib.contextmanager
    def _telling(self, purpose: int) -> Iterator[None]:
        """Bring an exception to the meeting that comes next."""
        try:
            yield
        except Exception as error:
            self._meet(purpose, error)
            raise

    def _meet(self, purpose: int, error: Exception | None = None) -> None:
        """Find out whether all have come to the same place, and whether somebody failed on the way."""
        if self._apart is not None:
            raise self._apart  # others have left already, so nobody would come
        header = torch.tensor([error is not None, purpose, purpose**2], dtype=torch.float64, device=self._device)
        dist.all_reduce(header, group=self._group)
        failed, total, squares = (int(entry) for entry in header.tolist())
        in_step = squares * self.size == total**2  # equality in Cauchy's inequality
        if in_step and not failed:
            return
        kind: type[Exception] = MeasurementError
        text = "the processes that measure together came to different places in the measure"
        if failed:
            told = self._gather(None if error is None else _told(error))
            if error is not None and in_step and told.count(told[0]) == self.size:
                raise error  # the same in all, which may have met for it before
            rank, (kind, text) = next((rank, entry) for rank, entry in enumerate(told) if entry is not None)
            text += f" (on process {rank} of {self.size})"
        if in_step:
            raise kind(text) from error
        apart = MeasurementError(text)
        self._apart = apart if self._depth else None
        raise apart from error


def _told(error: Exception) -> tuple[type[Exception], str]:
    """Say an error so that other processes can raise it, of the class that callers look for."""
    if isinstance(error, LandscapeError):
        return type(error), words_of(error)
    text = words_of(error)
    return RuntimeError, text if isinstance(error, RuntimeError) else f"{type(error).__name__}: {text}"


def join(group: dist.ProcessGroup | None, device: torch.device) -> Processes:
    """Return the processes of a group, by default all there are; this one alone without torch.distributed."""
    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    return ProcessGroup(group, device) if dist.get_world_size(group) > 1 else ALONE


def require_equal(processes: Processes, **values: Any) -> None:
    """Refuse to measure where the processes do not hold the same.

    Args:
        processes: Those that measure together.
        **values: What each holds, by what it is called.

    Raises:
        MeasurementError: They differ in one.
    """
    for what, value in values.items():
        if len(set(processes.gather(value))) > 1:
            raise MeasurementError(
                f"the processes that measure together hold different {what}; give each of them all measured batches in "
                "the same order, and equal weights"
            )


def checksum(vector: torch.Tensor) -> int:
    """Add up the bits of a vector: equal for equal vectors, in whatever order they are added."""
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[vector.element_size()]
    return int(vector.view(bits).sum(dtype=torch.int64))


def communicates(module: nn.Module, evaluate: Callable[[], Any]) -> bool:
    """Whether a model exchanges tensors between processes by itself, so that all must evaluate it at once.

    Args:
        module: The model; synchronised batch normalisations do in train mode.
        evaluate: Evaluates it.

    Returns:
        Whether it does.
    """
    if any(isinstance(part, nn.SyncBatchNorm) for part in module.modules()):
        return True
    if not (dist.is_available() and dist.is_initialized()):
        return False
    with _Listener() as listener, torch.no_grad():
        evaluate()
    return listener.heard


class _Listener(TorchDispatchMode):
    """Hears of collective operations."""

    heard = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.heard |= func.namespace in COLLECTIVES
        return func(*args, **(kwargs or {}))
