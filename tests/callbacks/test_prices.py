"""Prices are measured on the largest batch; examples make one batch only where the loss stays."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.callbacks import _prices
from landscape.callbacks._prices import packable, prices_of

X, Y = torch.randn(24, 4, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3


def objective(loss=nn.functional.cross_entropy, size: int = 8, **options) -> Objective:
    torch.manual_seed(0)
    batches = list(zip(X.split(size), Y.split(size), strict=True))
    return Objective(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), loss, batches, **options)


class Ticks:
    """Every reading is a second later than the one before."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_prices() -> None:
    prices = prices_of(objective(), objective(size=12), now=Ticks())
    assert (prices.product, prices.gradient, prices.evaluation) == (1.0, 1.0, 1.0)
    assert (prices.examples, prices.held_out, prices.passing, prices.coding) == (8, 1.0, 1.0, 0.0)
    assert prices_of(objective(), now=Ticks(), codes=True).coding == 1.0


def test_a_part_of_a_large_model_is_coded_for_the_price_of_all(monkeypatch) -> None:
    monkeypatch.setattr(_prices, "_CODED", 20)
    assert prices_of(objective(), now=Ticks(), codes=True).coding == pytest.approx(67 / 20)


def test_without_products_they_are_guessed_from_gradients() -> None:
    assert prices_of(objective(), products=False, now=Ticks()).product == 2.5


def test_without_gradients_losses_are_priced_alone() -> None:
    def cut(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output.detach() + 0 * output, y)

    prices = prices_of(objective(cut), now=Ticks())
    assert (prices.evaluation, prices.gradient, prices.product) == (1.0, 0.0, 0.0)


def test_examples_make_one_batch_where_the_loss_is_the_same() -> None:
    cut = objective()
    assert packable(cut, lambda: objective(size=24))
    assert not packable(objective(mode="train"), lambda: objective(size=24))
    assert not packable(objective(size=24), lambda: objective(size=24))
    assert not packable(cut, lambda: objective(lambda out, y: 1.01 * nn.functional.cross_entropy(out, y), size=24))
    assert not packable(cut, lambda: cut.restrict([(X[:16], Y[:16])]))


def test_a_loss_of_the_batch_as_a_whole_is_never_packed() -> None:
    def contrast(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output @ output.T, torch.arange(len(y)))

    with pytest.warns(UserWarning, match="as the mean over the batches"):
        cut = objective(contrast)
    assert not packable(cut, lambda: pytest.fail("was asked for"))
