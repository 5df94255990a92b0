"""The default training: it stops by what is held out of the examples sent, and never trains on that."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from landscape.description import AdamTraining, prequential


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 3))


def points(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(1))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()


def test_default_training_learns_what_can_be_learnt() -> None:
    train = AdamTraining(learning_rate=0.03, steps=150)
    x, y = points(300)
    found = prequential(network, (x, y), train, blocks=5)
    shuffled = prequential(network, (x, y[torch.randperm(300)]), train, blocks=5)
    assert found.ratio < 0.6
    # Shuffled labels keep their frequencies: the code approaches their entropy and cannot fall far below.
    p = np.bincount(y) / 300
    assert shuffled.bits > 0.93 * float(-300 * (p * np.log2(p)).sum())


def test_the_held_out_tail_is_never_trained_on() -> None:
    seen: dict[bool, set[float]] = {True: set(), False: set()}

    class Watching(nn.Linear):
        def forward(self, x):
            seen[self.training].update(x[:, 0].tolist())
            return super().forward(x)

    x, y = points(40)
    AdamTraining(held_out=0.25, steps=30)(Watching(2, 3), (x, y))
    assert seen[True] == set(x[:30, 0].tolist())
    assert seen[False] == set(x[30:, 0].tolist())


@pytest.mark.parametrize("train", [AdamTraining(steps=1, learning_rate=1e30), AdamTraining(patience=1, every=1)])
def test_weights_that_the_tail_speaks_against_are_not_kept(train: AdamTraining) -> None:
    x = torch.ones(40, 2)
    y = torch.arange(40) // 36  # the last tenth contradicts what comes before it, at every step
    model = nn.Linear(2, 3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, (x, y))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_examples_train_nothing(count: int) -> None:
    model = nn.Linear(2, 3)
    before = model.weight.clone()
    AdamTraining()(model, (torch.ones(count, 2), torch.zeros(count, dtype=torch.int64)))
    assert torch.equal(before, model.weight)


def test_batch_normalisation_never_meets_one_example() -> None:
    sizes = []

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                sizes.append(len(x))
            return self.net(x)

    train = AdamTraining(batch_size=8, steps=6)
    found = prequential(Watching, points(160), train, blocks=[1, 2, 3, 10, 19, 38, 160])
    assert math.isfinite(found.bits)
    # What is trained on: 2, 9, 17 and 34 examples, the held-out tail left out.
    assert sizes[:6] == [2] * 6
    assert sizes[6:12] == [9] * 6
    assert sizes[12:18] == [8, 9, 8, 9, 8, 9]
    assert sizes[18:24] == [8, 8, 8, 8, 2, 8]
