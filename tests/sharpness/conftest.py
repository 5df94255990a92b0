from __future__ import annotations

import pytest
import torch
from torch import nn

from landscape import Objective


class TwoWeights(nn.Module):
    """ŷ = G·H·x."""

    def __init__(self, g: float, h: float) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.tensor(g, dtype=torch.float64))
        self.h = nn.Parameter(torch.tensor(h, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.g * self.h * x


@pytest.fixture
def two_weights():
    """Objective of ½(GHx − y)² at its minimum, x = 1 and y = GH."""

    def make(g: float, h: float) -> Objective:
        x = torch.ones(1, dtype=torch.float64)
        return Objective(TwoWeights(g, h), lambda out, y: 0.5 * ((out - y) ** 2).mean(), [(x, g * h * x)])

    return make


class Weights(nn.Module):
    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(weights.clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w


@pytest.fixture
def quadratic():
    """Objective of ½(w − w₀)ᵀH(w − w₀) + gᵀ(w − w₀) at w₀."""

    def make(matrix: torch.Tensor, center: torch.Tensor, gradient: torch.Tensor | None = None) -> Objective:
        linear = torch.zeros_like(center) if gradient is None else gradient

        def loss(w: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
            return 0.5 * (w - center) @ matrix @ (w - center) + linear @ (w - center)

        return Objective(Weights(center), loss, [(torch.zeros(1), torch.zeros(1))], dtype=torch.float64)

    return make


@pytest.fixture(scope="session")
def minimum(cases):
    """A tanh network of 139 parameters in float64, trained to a minimum, with its dense Hessian."""
    x, _ = cases.data(40)
    teacher = cases.mlp(seed=5).double()
    target = teacher(x.double()).detach()
    model = cases.mlp(seed=5).double()  # at the teacher itself: gradient zero, Hessian positive semidefinite
    objective = Objective(model, nn.MSELoss(), [(x, target)])
    matrix = cases.dense_hessian(model, lambda: nn.functional.mse_loss(model(x.double()), target))
    return objective, matrix


class Watched(nn.Module):
    """A network that notes the weights it is evaluated with, as flat vectors in `visited`.

    The list is a global of this file: what hangs on the module itself would be put back with the rest.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _VISITED.append(torch.cat([p.detach().reshape(-1) for p in self.net.parameters()]))
        return self.net(x)


_VISITED: list[torch.Tensor] = []


@pytest.fixture
def watched():
    """watched(net) -> (module, visited): the module notes the weights of every evaluation in the list."""
    _VISITED.clear()
    return lambda net: (Watched(net), _VISITED)


@pytest.fixture
def pruned(cases):
    """A network with 90 % of its weights exactly zero, and the mask of the zeros."""
    model = cases.mlp(width=16)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            kept = torch.rand(parameter.shape, generator=generator) > 0.9
            parameter.mul_(kept)
    weights = nn.utils.parameters_to_vector(model.parameters()).detach()
    assert 0.85 < float((weights == 0).float().mean()) < 0.95
    return model
