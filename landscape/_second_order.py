"""Switch off what makes a model fast but keeps it from being differentiated twice, or makes its value depend on how."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch.utils.checkpoint as checkpointing
from torch.backends import cuda, mha

# The switches of scaled dot-product attention, of all devices; `torch.nn.attention.sdpa_kernel` sets them too, but
# takes longer for it than a small network for its forward pass.
_FUSED = (
    (cuda.flash_sdp_enabled, cuda.enable_flash_sdp),
    (cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp),
    (cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp),
)


@contextlib.contextmanager
def forward_kernels() -> Iterator[None]:
    """Evaluate a model where no derivative is taken, by what gives the same function as `plain_kernels`.

    - Transformer layers leave out their inference fast path, which runs in eval mode without gradients only and treats
      padded positions in another way, so that a loss and the loss beside its gradient would disagree.
    - Activation checkpointing is off: it evaluates the module again in the backward pass, when its parameters are no
      longer the substituted ones, and gives wrong derivatives without a word.

    Fused attention stays: it computes the same numbers but for rounding.

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
        yield
    finally:
        mha.set_fastpath_enabled(fast)
        checkpointing._checkpoint_without_reentrant_generator = without_reentrant
        checkpointing.CheckpointFunction = reentrant  # type: ignore[misc]


@contextlib.contextmanager
def plain_kernels() -> Iterator[None]:
    """Evaluate a model by operations with second derivatives: as `forward_kernels`, and attention by the math kernel.

    The fused kernels of attention have no double backward.

    Yields:
        Nothing.
    """
    before = [(enable, enabled()) for enabled, enable in _FUSED]
    math = cuda.math_sdp_enabled()
    try:
        for enable, on in before:
            if on:
                enable(False)
        cuda.enable_math_sdp(True)
        with forward_kernels():
            yield
    finally:
        for enable, on in before:
            if on:
                enable(True)
        cuda.enable_math_sdp(math)


def _no_checkpoint(*args: Any, **kwargs: Any) -> Iterator[None]:
    yield


class _DirectCall:
    """Runs the function, where the reentrant checkpoint would run it without a graph."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        return function(*args)
