"""Small networks of several kinds, trained for a moment, with the examples that they are certified on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

N = 2000


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)
        )
        self.register_buffer("scale", torch.tensor([0.5]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x) * self.scale


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x.view(-1, 4, 4))[0][:, -1])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x.view(-1, 4, 4)).mean(1))


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 3))


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "perceptron": perceptron,
    "convolution": Convolution,
    "recurrent": Recurrent,
    "attention": Attention,
}


@dataclasses.dataclass(frozen=True)
class Case:
    architecture: Callable[[], nn.Module]
    batches: list[Any]
    trained: nn.Module

    @property
    def examples(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.cat([x for x, _ in self.batches]), torch.cat([y for _, y in self.batches])


@pytest.fixture(scope="session")
def cases() -> dict[str, Case]:
    """A trained network of each kind, beside what builds it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, 16, generator=generator)
    y = x.view(-1, 4, 4).sum(1)[:, :3].argmax(1)
    batches = [(x[:900], y[:900]), (x[900:], y[900:])]
    found = {}
    for name, architecture in ARCHITECTURES.items():
        with torch.random.fork_rng():
            torch.manual_seed(1)
            found[name] = Case(architecture, batches, _trained(architecture(), x, y))
    return found


def _trained(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> nn.Module:
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
    for _ in range(60):
        loss = F.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


@pytest.fixture(params=list(ARCHITECTURES))
def case(request: pytest.FixtureRequest, cases: dict[str, Case]) -> Case:
    """Each of them in turn."""
    return cases[request.param]


@pytest.fixture
def perceptron_case(cases: dict[str, Case]) -> Case:
    """One of them."""
    return cases["perceptron"]
