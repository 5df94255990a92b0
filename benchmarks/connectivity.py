"""Cost of training a curve beside plain training for the same number of steps: `python benchmarks/connectivity.py`.

Both take the same batches in the same number of Adam steps; plain training sees the weights of one network, curve
training those of a point that moves. Every round runs both, so that the load of the machine meets them alike; the
minimum of the CPU time over the rounds counts, on one thread.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import Any

import torch
from _networks import NETWORKS
from products import interleaved
from torch import nn

from landscape import Objective
from landscape.connectivity import fit_curve


def digits_mlp(n_batches: int) -> tuple[nn.Module, Callable[..., Any], list[Any]]:
    """The 64-64-64-10 network of 8,970 parameters on random digits-like data, batches of 128."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    batches = [(torch.rand(128, 64), torch.randint(10, (128,))) for _ in range(n_batches)]
    return model, nn.CrossEntropyLoss(), batches


def train_plainly(model: nn.Module, loss_fn: Callable[..., Any], batches: list[Any], steps: int) -> None:
    """Take Adam steps as a plain training loop does, with a learning rate that falls along a half cosine."""
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    order: list[int] = []
    for _ in range(steps):
        order = order or torch.randperm(len(batches)).tolist()
        x, y = batches[order.pop()]
        adam.zero_grad()
        loss_fn(model(x), y).backward()
        adam.step()
        schedule.step()


def measure(name: str, network: tuple[nn.Module, Any, list[Any]], steps: int, rounds: int) -> None:
    """Print the cost of curves in plain trainings."""
    model, loss_fn, batches = network
    objective = Objective(model, loss_fn, batches)
    start = objective.vector()
    end = start + 0.1 * start.std() * torch.randn_like(start)

    def curve(kind: str, bends: int) -> Callable[[], Any]:
        return lambda: fit_curve(objective, start, end, kind, steps, bends=bends, progress=False)

    calls: dict[str, Callable[[], Any]] = {
        "plain training": lambda: train_plainly(copy.deepcopy(model), loss_fn, batches, steps),
        "bezier, 1 bend": curve("bezier", 1),
        "chain, 1 bend": curve("chain", 1),
        "bezier, 3 bends": curve("bezier", 3),
    }
    seconds = interleaved(calls, rounds)
    plain = seconds["plain training"]
    each = plain / steps * 1e3
    print(f"{name}: {objective.n_parameters} parameters, {steps} steps; a plain step takes {each:.2f} ms")
    for call, spent in seconds.items():
        print(f"  {call:18s} {spent / plain:6.2f} x plain training")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    measure("digits MLP", digits_mlp(8), 20 * options.steps, options.rounds)
    for name, make in NETWORKS.items():
        measure(name, make(4), options.steps, options.rounds)


if __name__ == "__main__":
    main()
