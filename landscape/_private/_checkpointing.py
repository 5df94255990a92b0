"""Switch activation checkpointing off, by the private names of `torch.utils.checkpoint`."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import checkpoint as checkpointing

# What `checkpoint` calls where use_reentrant is False: one generator up to torch 2.13, the other one from 2.14 on. Both
# enter the hook, which other modules of torch reach without them.
_GENERATORS = ("_checkpoint_without_reentrant_generator", "_checkpoint_without_reentrant_generator_impl")
_HOOK = "_checkpoint_hook"


@contextlib.contextmanager
def checkpointing_off() -> Iterator[None]:
    """Run functions under `torch.utils.checkpoint` once, with a graph, as if they were called directly.

    Covers `checkpoint`, reentrant or not, `checkpoint_sequential`, the decorator of torch 2.14 and the wrappers in
    `torch.distributed`. Models hold `checkpoint` by many names, so what it calls is replaced. At the first use the
    runs of a checkpointed function are counted. If torch runs it more than once, checkpointing is refused instead.

    Yields:
        Nothing.
    """
    replaced: dict[str, Any] = {name: _run_directly for name in _GENERATORS}
    replaced |= {_HOOK: _no_hook, "CheckpointFunction": _DirectCall}
    kept = {name: getattr(checkpointing, name) for name in replaced if hasattr(checkpointing, name)}
    try:
        for name in kept:
            setattr(checkpointing, name, replaced[name])
        with contextlib.nullcontext() if _checkpoints_run_once() else _checkpointing_refused():
            yield
    finally:
        for name, value in kept.items():
            setattr(checkpointing, name, value)


def _checkpointing_refused() -> contextlib.AbstractContextManager[None]:
    return torch.autograd.graph.disable_saved_tensors_hooks(
        "this model uses activation checkpointing (torch.utils.checkpoint), which landscape cannot switch off in "
        f"torch {torch.__version__}, and which makes derivatives wrong; switch it off in the model, or install an "
        "earlier torch"
    )


@functools.cache
def _checkpoints_run_once() -> bool:
    """Count how often a checkpointed function runs; call it where checkpointing has been replaced."""
    runs = []

    def function(x: torch.Tensor) -> torch.Tensor:
        runs.append(1)
        return x.sin().exp()

    # Its wrapper imports torch's compiler, which takes longer than most first measurements.
    checkpoint: Any = inspect.unwrap(checkpointing.checkpoint)
    with torch.inference_mode(False), torch.enable_grad():
        for reentrant in (False, True):
            x = torch.ones(1, requires_grad=True)
            out = checkpoint(function, x, use_reentrant=reentrant)
            out.sum().backward()
    return len(runs) == 2


def _run_directly(*args: Any, **kwargs: Any) -> Iterator[None]:
    yield


def _no_hook(frame: Any) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


class _DirectCall:
    """Runs the function, where the reentrant checkpoint would run it without a graph."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        return function(*args)
