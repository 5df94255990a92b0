"""Choose the kernels a model is evaluated by: ones with second derivatives, or ones that give the same function."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812
from torch.backends import cuda, mha

from landscape._private import checkpointing_off, refusal

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

    - The inference fast path of transformer layers is off. It runs in eval mode without gradients only and treats
      padded positions in another way, so that a loss and the loss beside its gradient would disagree.
    - Activation checkpointing is off. It evaluates the module again in the backward pass, when the substituted
      parameters have left it, and gives wrong derivatives without a word.

    Fused attention stays on. It computes the same numbers but for rounding.

    Yields:
        Nothing.
    """
    fast = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        with checkpointing_off():
            yield
    finally:
        mha.set_fastpath_enabled(fast)


@contextlib.contextmanager
def plain_kernels() -> Iterator[None]:
    """Evaluate a model by operations with second derivatives: as `forward_kernels`, and attention by the math kernel.

    The fused kernels of attention have no double backward. The first use differentiates the math kernel twice.

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
        _check_attention()
        with forward_kernels():
            yield
    finally:
        for enable, on in before:
            if on:
                enable(True)
        cuda.enable_math_sdp(math)


@functools.cache
def _check_attention() -> None:
    """Differentiate attention twice; call it where the fused kernels are off."""
    with torch.inference_mode(False), torch.enable_grad():
        x = torch.ones(1, 1, 2, 2, requires_grad=True)
        out = F.scaled_dot_product_attention(x, x, x).square().sum()
        (gradient,) = torch.autograd.grad(out, x, create_graph=True)
        try:
            torch.autograd.grad(gradient.sum(), x)
        except RuntimeError as error:
            does = "differentiates attention twice when its fused kernels are switched off"
            raise refusal("torch", torch.__version__, does) from error
