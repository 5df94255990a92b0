"""Full-batch gradient descent raises the largest eigenvalue to 2/lr and stays there (Cohen et al. 2021, 2103.00065)."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from landscape_test_trainings import make_trainer, run_of, seed_all
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from landscape.callbacks import HessianSpectrum

N = 100


class Descent(pl.LightningModule):
    """A tanh network and the squared distance from one-hot labels, by plain gradient descent."""

    def __init__(self, lr):
        super().__init__()
        self.lr = lr
        self.net = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return ((self.net(x) - y) ** 2).sum(dim=1).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def digits():
    images, labels = load_digits(return_X_y=True)
    chosen = np.random.default_rng(0).permutation(len(images))[:N]
    x = torch.tensor(images[chosen] / 16, dtype=torch.float32)
    y = nn.functional.one_hot(torch.tensor(labels[chosen]), 10).float()
    return DataLoader(TensorDataset(x - x.mean(dim=0), y), batch_size=N)


@pytest.mark.slow
@pytest.mark.parametrize(("lr", "steps", "start"), [(0.1, 6000, 0.7), (0.2, 3500, 0.7), (0.4, 2000, 1.2)])
def test_the_largest_eigenvalue_settles_at_two_over_the_learning_rate(tmp_path, lr, steps, start):
    callback = HessianSpectrum(
        k=1, k_bottom=1, probes=1, max_matvecs=40, trace_max_matvecs=8, every_n_epochs=None, every_n_steps=100
    )
    seed_all()
    trainer = make_trainer(tmp_path, [callback], max_steps=steps, max_epochs=-1, logger=False)
    trainer.fit(Descent(lr), digits())
    data = run_of(trainer).dataset("hessian_spectrum")
    assert set(data["status"].values) == {"ok"}
    values = data["lambda_max"].values
    settled = values[-len(values) // 4 :]
    print(f"lr {lr}: 2/lr = {2 / lr}, lambda_max from {values[0]:.2f} to {settled.min():.2f} .. {settled.max():.2f}")
    assert values[0] < start * 2 / lr  # it rises to there; at rate .4 it is there from the first steps on
    assert np.all(np.abs(settled - 2 / lr) < 0.1 * 2 / lr)
    # Beyond stability, and the loss falls all the same.
    assert data["train_loss"].values[-1] < 0.2 * data["train_loss"].values[0]
