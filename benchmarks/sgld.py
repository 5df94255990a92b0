"""Cost of an SGLD step beside a plain SGD step on the same model and batch: `python benchmarks/sgld.py`.

Both take turns, some steps each, and the minimum over the rounds counts, of the processor's time and of the clock. A
step of SGLD is all that a chain does, its second gradient at every twentieth step included.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import nn

from landscape import Objective
from landscape.volume._langevin import Proposal, run_chain
from landscape.volume._posterior import LocalPosterior

WIDTHS = {"10⁴": 68, "10⁵": 282, "10⁶": 962}


def network(width: int) -> nn.Sequential:
    """An MLP with two hidden layers for the digits' 64 inputs and 10 classes."""
    return nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 10))


def plain(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> Callable[[int], None]:
    """Make a function that takes so many steps of torch's SGD."""
    optimizer, loss = torch.optim.SGD(model.parameters(), lr=1e-6), nn.CrossEntropyLoss()

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            loss(model(batch[0]), batch[1]).backward()
            optimizer.step()

    return run


def chain(posterior: LocalPosterior, proposal: Proposal) -> Callable[[int], None]:
    """Make a function that takes so many steps of a chain from the centre."""

    def run(steps: int) -> None:
        run_chain(posterior, proposal, steps, (0, 0))

    return run


def interleaved(calls: dict[str, Callable[[int], None]], steps: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Return the least seconds a step of each, of the processor and of the clock."""
    best = {name: (float("inf"), float("inf")) for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time(), time.perf_counter()
            call(steps)
            spent = (time.process_time() - start[0]) / steps, (time.perf_counter() - start[1]) / steps
            best[name] = min(best[name][0], spent[0]), min(best[name][1], spent[1])
    return best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=60, help="steps a turn, a multiple of twenty")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| parameters | batch | SGD, ms a step | SGLD / SGD | by the clock | RMSProp-preconditioned / SGD |")
    print("|---|---|---|---|---|---|")
    for label, width in WIDTHS.items():
        for size in (64, 128, 250):
            torch.manual_seed(0)
            model = network(width)
            batches = [(torch.randn(size, 64), torch.randint(10, (size,))) for _ in range(4)]
            objective = Objective(network(width), nn.CrossEntropyLoss(), batches)
            with objective.session():
                posterior = LocalPosterior(objective, 100.0, 100.0)
                scales = {"sgld": None, "rmsprop": torch.ones(objective.n_parameters)}
                calls = {"sgd": plain(model, batches[0])}
                calls |= {name: chain(posterior, Proposal(1e-6, scale)) for name, scale in scales.items()}
                found = interleaved(calls, options.steps, options.rounds)
            sgd, sgld, rmsprop = found["sgd"], found["sgld"], found["rmsprop"]
            print(
                f"| {label} | {size} | {sgd[0] * 1e3:.2f} | {sgld[0] / sgd[0]:.2f} | {sgld[1] / sgd[1]:.2f} | "
                f"{rmsprop[0] / sgd[0]:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
