"""Predictors whose prequential code length has a closed form, and a LightningModule."""

from __future__ import annotations

import pytest
import torch
from torch import nn


class Counts:
    """Predicts each class by (count + prior) / (n + classes · prior): Krichevsky-Trofimov at 1/2, Laplace at 1."""

    def __init__(self, classes: int, prior: float) -> None:
        self.weights = torch.full((classes,), prior, dtype=torch.float64)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return (self.weights / self.weights.sum()).log().expand(len(x), -1)

    def learn(self, examples: tuple[torch.Tensor, torch.Tensor]) -> None:
        self.weights = self.weights + torch.bincount(examples[1], minlength=len(self.weights))


class Always:
    """Gives the same function's scores whatever it has seen."""

    def __init__(self, scores) -> None:
        self.scores = scores

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores(x)


def untrained(model, examples) -> None:
    """A training that learns nothing."""


def lightning_module(base: type, step: str = "cross_entropy"):
    """Make a small LightningModule of a namespace whose step calls one of several losses."""

    class Lit(base):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(2, 1 if step == "binary" else 3)
            self.seen: list[int] = []

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            x, y = batch
            scores = self(x)
            self.seen.append(len(x))
            if step == "binary":
                loss = nn.functional.binary_cross_entropy_with_logits(scores[:, 0], (y > 0).float())
            elif step == "by_hand":
                loss = -scores.log_softmax(1).gather(1, y[:, None]).mean()
            elif step == "two":
                loss = nn.functional.cross_entropy(scores, y) + nn.functional.cross_entropy(scores * 2, y)
            else:
                loss = nn.functional.cross_entropy(scores, y, label_smoothing=0.1)
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch, batch_idx):
            raise AssertionError("nothing is validated")

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.5, momentum=0.9)

    return Lit


@pytest.fixture
def helpers():
    """The module itself: pytest's importlib mode puts no folder on the path."""
    import types

    return types.SimpleNamespace(Counts=Counts, Always=Always, untrained=untrained, lightning_module=lightning_module)
