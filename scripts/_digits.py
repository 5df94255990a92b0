"""A small classifier of scikit-learn's handwritten digits, as the studies train it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

N_TRAIN = 1400


class DigitsMLP(pl.LightningModule):
    """A ReLU network with two hidden layers, trained by SGD with momentum.

    Args:
        width: Units of each hidden layer.
        lr: Learning rate.
        weight_decay: Weight decay of the optimizer.
        decay_from: Fraction of the epochs after which the learning rate falls linearly to nearly zero; 1 keeps it.
        epochs: Number of epochs that the schedule is made for.
        batch_size: Examples a step; recorded with the run.
        label_noise: Fraction of training labels drawn at random; recorded with the run.
        seed: Seed of everything; recorded with the run.
    """

    def __init__(
        self,
        width: int = 128,
        lr: float = 0.05,
        weight_decay: float = 5e-4,
        decay_from: float = 0.5,
        epochs: int = 40,
        batch_size: int = 100,
        label_noise: float = 0.0,
        seed: int = 0,
    ):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch of images."""
        return self.net(x)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the cross-entropy of a batch."""
        x, y = batch
        return F.cross_entropy(self(x), y)

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        """Log the error on held-out digits."""
        x, y = batch
        self.log("val_error", (self(x).argmax(1) != y).float().mean())

    def configure_optimizers(self) -> Any:
        """Return SGD with momentum, and a learning rate that stays and then falls."""
        hp: Any = self.hparams
        optimizer = torch.optim.SGD(self.parameters(), lr=hp.lr, momentum=0.9, weight_decay=hp.weight_decay)
        first = hp.decay_from * hp.epochs

        def factor(epoch: int) -> float:
            return 1.0 if epoch < first else max(0.01, 1 - (epoch - first + 1) / max(hp.epochs - first, 1))

        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, factor)}


def loaders(batch_size: int, label_noise: float, seed: int) -> tuple[DataLoader, DataLoader]:
    """Return loaders of 1,400 training digits, some with random labels, and of the other 397 with their true ones.

    Args:
        batch_size: Examples a training batch.
        label_noise: Fraction of training labels replaced by uniformly random ones.
        seed: Seed of the noise and of the order of the batches; the split is always the same.

    Returns:
        The training and the held-out loader.
    """
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x = torch.tensor(digits.data[order] / 16.0, dtype=torch.float32)
    y = torch.tensor(digits.target[order], dtype=torch.int64)
    generator = np.random.default_rng((seed, 1))
    noisy = torch.from_numpy(generator.random(N_TRAIN) < label_noise)
    labels = torch.where(noisy, torch.from_numpy(generator.integers(0, 10, N_TRAIN)), y[:N_TRAIN])
    train = DataLoader(
        TensorDataset(x[:N_TRAIN], labels),
        batch_size=batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(seed),
    )
    return train, DataLoader(TensorDataset(x[N_TRAIN:], y[N_TRAIN:]), batch_size=397)
