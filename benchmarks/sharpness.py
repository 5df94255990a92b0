"""Cost of evaluating perturbations, in plain forward passes: `python benchmarks/sharpness.py`.

Every round times each measure and the bare model on the same batches, so that the load of the machine meets all of them
alike; the minimum of the CPU time over the rounds counts, on one thread. A plain pass is `loss(model(x), y)` without
gradients over all batches, fused attention included; the objective takes kernels that have second derivatives, which
the second line shows by themselves.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from _networks import NETWORKS
from products import interleaved

from landscape import Objective
from landscape._second_order import plain_kernels
from landscape.sharpness import average_case

_DRAWS = 20


def measure(network: str, batches: int, rounds: int) -> None:
    """Print the cost of one pass of each measure over that of a plain pass."""
    model, loss, data = NETWORKS[network](batches)
    objective = Objective(model, loss, data)

    def plain() -> None:
        with torch.no_grad():
            for x, y in data:
                loss(model(x), y)

    def with_plain_kernels() -> None:
        with plain_kernels():
            for _ in range(_DRAWS + 1):
                plain()

    calls: dict[str, Callable[[], Any]] = {"plain": lambda: [plain() for _ in range(_DRAWS + 1)]}
    calls["plain, kernels of the objective"] = with_plain_kernels
    calls["average_case"] = lambda: average_case(objective, draws=_DRAWS)
    calls["average_case, linf"] = lambda: average_case(objective, norm="linf", draws=_DRAWS)
    calls["average_case, no pairs"] = lambda: average_case(objective, draws=_DRAWS, antithetic=False)
    calls["average_case, 4 radii, a quarter each"] = lambda: average_case(
        objective, (0.05, 0.1, 0.2, 0.4), draws=_DRAWS
    )
    seconds = interleaved(calls, rounds)
    print(f"{network}, {objective.n_parameters} parameters, {batches} batch{'es' if batches > 1 else ''}")
    for name, spent in seconds.items():
        passes = 4 * _DRAWS + 1 if "radii" in name else _DRAWS + 1
        print(f"  {name:38s} {spent / passes / seconds['plain'] * (_DRAWS + 1):5.2f} plain passes a pass")
    print(f"  one plain pass takes {seconds['plain'] / (_DRAWS + 1) * 1e3:.1f} ms")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--network", choices=[*NETWORKS], action="append")
    parser.add_argument("--batches", type=int, action="append")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for network in options.network or NETWORKS:
        for batches in options.batches or (1, 4):
            measure(network, batches, options.rounds)


if __name__ == "__main__":
    main()
