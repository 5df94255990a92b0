from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.backends import mha
from torch.utils import checkpoint

from landscape._second_order import plain_kernels


def test_switches_are_put_back_also_after_an_exception():
    before = (
        mha.get_fastpath_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),
        checkpoint._checkpoint_without_reentrant_generator,
        checkpoint.CheckpointFunction,
    )
    with pytest.raises(RuntimeError, match="inside"), plain_kernels():
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
