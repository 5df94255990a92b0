"""Losses whose volume is known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective


class Quadratic(nn.Module):
    """½ Σ h (w − c)² for every example, in two named tensors; c is a shift that differs between examples."""

    def __init__(self, curvatures: Any):
        super().__init__()
        self.register_buffer("h", torch.as_tensor(np.asarray(curvatures), dtype=torch.float64))
        half = len(self.h) // 2
        self.first = nn.Parameter(torch.zeros(half, dtype=torch.float64))
        self.second = nn.Parameter(torch.zeros(len(self.h) - half, dtype=torch.float64))

    def forward(self, shift: torch.Tensor) -> torch.Tensor:
        away = torch.cat([self.first, self.second]) - shift
        return (self.h * away.square()).sum(dim=1) / 2


def mean(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (out - target).mean()


@pytest.fixture(scope="session")
def quadratic() -> Callable[..., Objective]:
    """Make an objective ½ Σ h w² over 8 examples, whose minima are apart by `spread`, in some batches."""

    def make(curvatures: Any, batches: int = 1, spread: float = 0.0) -> Objective:
        shifts = spread * torch.randn(8, len(curvatures), generator=torch.Generator().manual_seed(1)).double()
        shifts -= shifts.mean(dim=0)
        cut = [(x, torch.zeros(len(x), dtype=torch.float64)) for x in shifts.chunk(batches)]
        return Objective(Quadratic(curvatures), mean, cut)

    return make


class Linear2(nn.Module):
    """x ↦ B A x at the most degenerate point of all that give the matrix diag(1, …, 1, 0, …) of some rank."""

    def __init__(self, inputs: int, hidden: int, outputs: int, rank: int):
        super().__init__()
        self.a = nn.Parameter(torch.eye(hidden, inputs, dtype=torch.float64))
        self.b = nn.Parameter(torch.eye(outputs, hidden, dtype=torch.float64))
        with torch.no_grad():
            for matrix in (self.a, self.b):
                matrix[rank:] = 0
                matrix[:, rank:] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ (self.b @ self.a).T


@pytest.fixture(scope="session")
def deep_linear() -> Callable[..., Objective]:
    """Make the objective ½‖BA − B*A*‖²: two linear layers on white inputs."""

    def make(inputs: int, hidden: int, outputs: int, rank: int) -> Objective:
        model = Linear2(inputs, hidden, outputs, rank)
        x = inputs**0.5 * torch.eye(inputs, dtype=torch.float64)
        target = model(x).detach()
        return Objective(model, lambda out, y: (out - y).square().sum(dim=1).mean() / 2, [(x, target)])

    return make


@pytest.fixture
def regression() -> tuple[Objective, np.ndarray, np.ndarray]:
    """Linear regression with unit noise at its least squares: the objective, X of shape (30, 6), and y."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((30, 6)) @ (np.diag(np.geomspace(0.3, 2, 6)) + 0.3)
    y = x @ generator.standard_normal(6) + generator.standard_normal(30)
    model = nn.Linear(6, 1, bias=False).double()
    with torch.no_grad():
        model.weight[0] = torch.from_numpy(np.linalg.lstsq(x, y)[0])
    batches = [(torch.from_numpy(x), torch.from_numpy(y)[:, None])]
    return Objective(model, lambda out, target: nn.functional.mse_loss(out, target) / 2, batches), x, y
