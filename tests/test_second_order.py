from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.backends import mha
from torch.utils import checkpoint

from landscape._second_order import forward_kernels, plain_kernels


@pytest.mark.parametrize("kernels", [plain_kernels, forward_kernels])
def test_switches_are_put_back_also_after_an_exception(kernels):
    before = (
        mha.get_fastpath_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),
        checkpoint._checkpoint_without_reentrant_generator,
        checkpoint.CheckpointFunction,
    )
    with pytest.raises(RuntimeError, match="inside"), kernels():
        raise RuntimeError("inside")
    after = (
        mha.get_fastpath_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),
        checkpoint._checkpoint_without_reentrant_generator,
        checkpoint.CheckpointFunction,
    )
    assert after == before


def test_attention_can_be_differentiated_twice():
    x = torch.randn(2, 1, 5, 4, requires_grad=True)
    with plain_kernels():
        out = F.scaled_dot_product_attention(x, x, x).square().sum()
    (gradient,) = torch.autograd.grad(out, x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), x)
    assert second.abs().sum() > 0


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointed_modules_are_evaluated_once(use_reentrant):
    calls = []
    layer = nn.Linear(3, 3)

    def counted(x):
        calls.append(1)
        return layer(x)

    x = torch.ones(2, 3, requires_grad=True)
    with plain_kernels():
        out = checkpoint.checkpoint(counted, x, use_reentrant=use_reentrant)
        chained = checkpoint.checkpoint_sequential([layer, layer], 2, x, use_reentrant=use_reentrant)
    torch.autograd.grad(out.sum() + chained.sum(), x)
    assert len(calls) == 1


def test_losses_that_are_not_differentiated_keep_fused_attention():
    with plain_kernels():
        assert not torch.backends.cuda.flash_sdp_enabled()
    with forward_kernels():
        assert torch.backends.cuda.flash_sdp_enabled()
        assert not mha.get_fastpath_enabled()


@pytest.mark.parametrize("mask", [None, torch.tril(torch.ones(5, 5, dtype=torch.bool)), torch.zeros(5, 5).bool()])
def test_fused_attention_is_the_same_function(mask):
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    with forward_kernels():
        fused = F.scaled_dot_product_attention(x, x, x, attn_mask=mask)
    with plain_kernels():
        plain = F.scaled_dot_product_attention(x, x, x, attn_mask=mask)
    torch.testing.assert_close(fused, plain, rtol=1e-12, atol=1e-14)
