"""Batches that are cut leave the loss, and refuse where the loss is one of the whole batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from landscape import Objective
from landscape._groups import cut

X, Y = torch.randn(11, 4, generator=torch.Generator().manual_seed(0)).double(), torch.arange(11) % 3


def objective(loss=nn.functional.cross_entropy, sizes=(7, 4), **options) -> Objective:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    return Objective(model, loss, list(zip(X.split(sizes), Y.split(sizes), strict=True)), **options)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_smaller_batches_have_the_same_loss_and_gradient(reduction):
    whole = objective(nn.CrossEntropyLoss(reduction=reduction))
    with whole.session():
        small = cut(whole, 3)
        assert small.batch_sizes == [3, 3, 1, 3, 1]
        assert float(small.loss()) == pytest.approx(float(whole.loss()), rel=1e-14)
        torch.testing.assert_close(small.gradient(), whole.gradient(), rtol=1e-12, atol=1e-15)


def test_batches_stay_where_they_are_small_or_the_loss_is_one_of_the_batch():
    plain, training = objective(), objective(mode="train")
    assert cut(plain, 7) is plain
    assert cut(training, 2) is training

    def contrast(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output @ output.T, torch.arange(len(y)))

    with pytest.warns(UserWarning, match="as the mean over the batches"):
        whole = objective(contrast)
    assert cut(whole, 2) is whole
