"""Cost of the five-tolerance curve of bits: evaluations of the data and seconds: `python benchmarks/compression.py`.

Networks of about a million parameters on 1,400 handwritten digits. The clock's and the processor's
time, least of some rounds: evaluations are torch's, on all threads; quantising, metering and coding are one thread's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from sklearn.datasets import load_digits
from torch import nn

from landscape import Objective
from landscape.compression import bits
from landscape.compression._families import FAMILIES

_EXAMPLES = 1400


def images(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the digits, enlarged to `side` pixels, and their labels."""
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))[:_EXAMPLES]
    small = torch.tensor(digits.images / 16.0, dtype=torch.float32)[order][:, None]
    large = nn.functional.interpolate(small, size=(side, side), mode="bilinear", align_corners=False)
    return large, torch.tensor(digits.target)[order]


def mlp() -> tuple[nn.Module, int]:
    """784-800-400-10: 952,410 parameters."""
    layers = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 800), nn.ReLU(), nn.Linear(800, 400), nn.ReLU(), nn.Linear(400, 10)
    )
    return layers, 28


def cnn() -> tuple[nn.Module, int]:
    """Three convolutions and two linear layers: 1,000,906 parameters."""
    layers = nn.Sequential(
        nn.Conv2d(1, 48, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(48, 96, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(96, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1152, 728), nn.ReLU(), nn.Linear(728, 10),
    )  # fmt: skip
    return layers, 28


NETWORKS: dict[str, Callable[[], tuple[nn.Module, int]]] = {"mlp": mlp, "cnn": cnn}


def objective(network: str, batch_size: int, epochs: int = 6) -> Objective:
    """Train a network briefly and return its loss over the examples."""
    torch.manual_seed(0)
    model, side = NETWORKS[network]()
    x, y = images(side)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(epochs):
        for xs, ys in zip(x.split(64), y.split(64), strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(xs), ys).backward()
            optimizer.step()
    batches = list(zip(x.split(batch_size), y.split(batch_size), strict=True))
    return Objective(model.eval(), nn.functional.cross_entropy, batches)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=_EXAMPLES)
    parser.add_argument("--network", choices=[*NETWORKS], action="append")
    parser.add_argument("--family", choices=sorted(FAMILIES), action="append")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"{options.threads} threads, {_EXAMPLES} examples in batches of {options.batch_size}, {options.rounds} rounds\n"
    )
    print(
        "| network | family | parameters | loss | evaluations | seconds | processor's | one of them | bits a weight |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for network in options.network or NETWORKS:
        measured = objective(network, options.batch_size)
        passes = []
        with measured.session():
            for _ in range(5):
                started = time.perf_counter()
                measured.loss()
                passes.append(time.perf_counter() - started)
        for family in options.family or ["uniform-tensor"]:
            clock, processor = [], []
            for _ in range(options.rounds):
                started = time.perf_counter(), time.process_time()
                found = bits(measured, family)
                clock.append(time.perf_counter() - started[0])
                processor.append(time.process_time() - started[1])
            print(
                f"| {network} | {family} | {found.n_parameters:,} | {found.loss:.3g} | {found.n_evaluations} "
                f"| {min(clock):.2f} | {min(processor):.2f} | {min(passes):.3f} "
                f"| {', '.join(f'{value:.2f}' for value in found.bits_per_parameter)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
