"""Cost of a loss surface in bare forward passes, beside loss-landscapes': `python benchmarks/surface.py --points 51`.

Every round takes each contender once, so that the load of the machine meets all alike; the minimum of the CPU time over
the rounds counts on one thread, of the wall time on several. Bare passes are `loss(model(x), y)` of the same batches
without gradients, as many as the grid has points; ours gives the error rate as well. The peer is left out where it is
not installed.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _networks import NETWORKS, Network

from landscape import Objective
from landscape.surface import loss_surface, random_directions


def bare(network: Network, points: int) -> None:
    """Evaluate the loss as often as the grid has points."""
    model, loss, batches = network
    with torch.no_grad():
        for _ in range(points * points):
            for x, y in batches:
                float(loss(model(x), y))


def ours(network: Network, points: int) -> np.ndarray:
    """Evaluate the grid, the objective and the directions included."""
    objective = Objective(*network)
    # The peer steps from the start by half of its distance to each side.
    return loss_surface(objective, random_directions(objective), points=points, span=0.5, progress=False).loss


def ours_loss(network: Network, points: int) -> np.ndarray:
    """Evaluate the grid without the error rate, as the peer does."""
    objective = Objective(*network)
    directions = random_directions(objective)
    return loss_surface(objective, directions, points=points, span=0.5, error=False, progress=False).loss


def peer(network: Network, points: int) -> np.ndarray:
    """Run loss-landscapes' random plane; it takes one batch."""
    import loss_landscapes
    from loss_landscapes.metrics import Loss

    model, loss, batches = network
    metric = Loss(loss, *batches[0])
    return loss_landscapes.random_plane(model, metric, distance=1, steps=points, normalization="filter")


def paired(network: Network, rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Return the median seconds of single evaluations at the same weights, taken in turn.

    Pooling and rectifiers take longer for some weights than for others, so grids along other directions differ by more
    than what evaluates them.
    """
    model, loss, batches = network
    objective = Objective(*network)
    vector = objective.vector()
    calls: dict[str, Callable[[], Any]] = {
        "bare passes": lambda: bare(network, 1),
        "ours": lambda: objective.evaluate(vector),
        "ours, loss alone": lambda: float(objective.loss(vector)),
    }
    if importlib.util.find_spec("loss_landscapes"):
        from loss_landscapes.metrics import Loss
        from loss_landscapes.model_interface.model_wrapper import SimpleModelWrapper

        metric = Loss(loss, *batches[0])
        wrapper = SimpleModelWrapper(copy.deepcopy(model).requires_grad_(False))
        calls["loss-landscapes"] = lambda: metric(wrapper)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with objective.session():
        for _ in range(rounds):
            for name, call in calls.items():
                start = clock()
                call()
                seconds[name].append(clock() - start)
    return {name: float(np.median(spent)) for name, spent in seconds.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="cnn")
    parser.add_argument("--points", type=int, default=51)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network = NETWORKS[options.network](1)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    calls: dict[str, Callable[[Network, int], Any]] = {"bare passes": bare, "ours": ours, "ours, loss alone": ours_loss}
    if importlib.util.find_spec("loss_landscapes"):
        calls["loss-landscapes"] = peer
    before = network[0].state_dict()
    bare(network, 3)  # what the first passes allocate is not the surface's
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = dict.fromkeys(calls, float("inf"))
    grown = 0
    moved = {}
    for _ in range(options.rounds):
        for name, call in calls.items():
            own = (copy.deepcopy(network[0]), *network[1:])  # the peer freezes the parameters for good
            start = clock()
            call(own, options.points)
            seconds[name] = min(seconds[name], clock() - start)
            if name == "ours" and not grown:
                grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size
            after = own[0].state_dict()
            moved[name] = max(float((after[key] - value).abs().max()) for key, value in before.items())
    weights = sum(p.numel() for p in network[0].parameters()) * 4 / 1024
    print(f"{options.network}, {options.points} x {options.points}, {options.threads} threads, {options.rounds} rounds")
    for name, spent in seconds.items():
        ratio = spent / seconds["bare passes"]
        print(f"{name:16} {spent:8.2f} s  {ratio:5.3f}  weights left displaced by {moved[name]:.1e}")
    for name, spent in (each := paired(network, 100, clock)).items():
        ratio = spent / each["bare passes"]
        print(f"{name:16} {spent * 1e3:8.2f} ms an evaluation at the same weights, in turn  {ratio:5.3f}")
    print(f"memory grew by {grown / weights:.1f} times the weights ({weights:.0f} KiB)")


if __name__ == "__main__":
    main()
