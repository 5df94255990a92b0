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

from landscape import Objective
from landscape.callbacks import HessianSpectrum, SharpnessMonitor
from landscape.curvature import hessian, top_eigenpairs

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


class Before(pl.Callback):
    """Keeps the weights before and after every tenth step."""

    def __init__(self):
        self.before, self.after = {}, {}

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if (trainer.global_step + 1) % 10 == 0:
            self.before[trainer.global_step + 1] = nn.utils.parameters_to_vector(pl_module.parameters()).detach()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step % 10 == 0:
            self.after[trainer.global_step] = nn.utils.parameters_to_vector(pl_module.parameters()).detach()


@pytest.mark.slow
@pytest.mark.parametrize("lr", [0.1, 0.4])
def test_the_monitor_follows_the_edge_at_every_tenth_step(tmp_path, lr):
    seen, loader = Before(), digits()
    monitor = SharpnessMonitor(every_n_steps=10, on_error="raise")
    seed_all()
    trainer = make_trainer(tmp_path, [seen, monitor], max_steps=600, max_epochs=-1, logger=False)
    trainer.fit(Descent(lr), loader)
    data = run_of(trainer).dataset("sharpness_monitor")
    assert data["step"].values.tolist() == list(range(10, 601, 10))
    whole = Objective.from_lightning(trainer.lightning_module, [next(iter(loader))])
    top, along = [], []
    for step in data["step"].values:
        objective = whole.at(seen.before[step])
        exact = float(top_eigenpairs(hessian(objective), 1, tol=1e-4).values[0])
        top.append(float(data["lambda_max"].sel(step=step)) / exact - 1)
        along.append(float(data["critical_sharpness"].sel(step=step)) / line_search(objective, seen, step, lr) - 1)
    print(f"lr {lr}: lambda_max within {np.abs(top).max():.2%}, critical sharpness within {np.abs(along).max():.2%}")
    assert np.abs(top).max() < 0.05
    assert np.abs(along).max() < 0.07
    assert data["n_matvecs"].values[1:].max() <= 6  # one along the step, five for the eigenvalue
    assert data["n_evaluations"].values[1:].max() <= 7


def line_search(objective, seen, step, lr):
    """2/ηc by its definition: the smallest of many learning rates at which the loss is above its start."""
    weights, update = seen.before[step], seen.after[step] - seen.before[step]
    start = float(objective.loss(weights))
    with objective.session():

        def first_rise(rates):
            losses = (float(objective.loss(weights + rate / lr * update)) for rate in rates)
            return next(index for index, loss in enumerate(losses) if loss > start)

        rates = lr * np.geomspace(0.3, 1000, 400)  # 2 % apart
        rise = first_rise(rates)
        assert rise > 0
        rates = np.linspace(rates[rise - 1], rates[rise], 9)
        return 2 / rates[first_rise(rates)]
