"""Switch off what makes a model fast but keeps it from being differentiated twice, or makes its value depend on how."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch.utils.checkpoint as checkpointing
from torch.backends import mha
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextlib.contextmanager
def plain_kernels() -> Iterator[None]:
    """Evaluate a model by operations with second derivatives, the same ones with and without gradients.

    - Attention uses the math kernel: the fused ones have no double backward.
    - Transformer layers leave out their inference fast path, which runs in eval mode without gradients only and treats
      padded positions in another way, so that a loss and the loss beside its gradient would disagree.
    - Activation checkpointing is off: it evaluates the module again in the backward pass, when its parameters are no
      longer the substituted ones, and gives wrong derivatives without a word.

    Yields:
        Nothing.
    """
    fast = mha.get_fastpath_enabled()
    without_reentrant = checkpointing._checkpoint_without_reentrant_generator
    reentrant = checkpointing.CheckpointFunction
    mha.set_fastpath_enabled(False)
    # Modules hold `checkpoint` itself by many names, so what it calls is replaced.
    checkpointing._checkpoint_without_reentrant_generator = _no_checkpoint
    checkpointing.CheckpointFunction = _DirectCall  # type: ignore[assignment,misc]
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        mha.set_fastpath_enabled(fast)
        checkpointing._checkpoint_without_reentrant_generator = without_reentrant
        checkpointing.CheckpointFunction = reentrant  # type: ignore[misc]


def _no_checkpoint(*args: Any, **kwargs: Any) -> Iterator[None]:
    yield


class _DirectCall:
    """Runs the function, where the reentrant checkpoint would run it without a graph."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        return function(*args)
