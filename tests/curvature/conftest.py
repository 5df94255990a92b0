from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.curvature import HessianOperator, hessian
from landscape.curvature._dense import DenseOperator


@dataclasses.dataclass(frozen=True)
class Case:
    """A Hessian by products, beside the dense one that torch's own double differentiation gives."""

    objective: Objective
    operator: HessianOperator
    matrix: torch.Tensor

    @property
    def eigenvalues(self) -> np.ndarray:
        return torch.linalg.eigvalsh(self.matrix).numpy()


NETWORKS = ["tanh", "tanh trained", "relu", "relu trained", "tiny loss", "mse"]


@pytest.fixture(scope="session")
def networks(cases) -> dict[str, Case]:
    """Networks of 139 parameters in float64, two uneven batches each."""

    def make(name: str) -> Case:
        x, y = cases.data(60)
        model = cases.mlp(nn.ReLU if "relu" in name else nn.Tanh)
        cross = nn.CrossEntropyLoss()
        loss_fn = cross
        if name == "tiny loss":
            loss_fn = lambda scores, y: 1e-6 * cross(scores, y)  # noqa: E731
        if name == "mse":
            loss_fn, y = nn.MSELoss(), nn.functional.one_hot(y, 3).double()
        if "trained" in name:
            cases.trained(model, loss_fn, [(x, y)])
        model.double()
        objective = Objective(model, loss_fn, [(x[:50], y[:50]), (x[50:], y[50:])])
        matrix = cases.dense_hessian(model, lambda: loss_fn(model(x.double()), y))
        return Case(objective, hessian(objective), matrix)

    return {name: make(name) for name in NETWORKS}


@pytest.fixture(params=NETWORKS)
def network(request, networks) -> Case:
    return networks[request.param]


def symmetric(values, seed: int = 0, dtype: torch.dtype = torch.float64) -> DenseOperator:
    """A matrix with the given eigenvalues and random eigenvectors."""
    values = torch.as_tensor(np.asarray(values), dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64))[0]
    return DenseOperator(((vectors * values) @ vectors.T).to(dtype))


@pytest.fixture(scope="session")
def with_eigenvalues():
    return symmetric
