"""Compare the top 10 eigenvalues of the Hessian with PyHessian, curvlinops + eigsh and hessian-eigenthings.

Every round runs each package once, in turn; the table holds the minimum of the times over the rounds, as a ratio to
ours, beside the largest relative error of the ten values. Peers that are not installed are left out.

    python benchmarks/eigenpairs.py --network cnn --batches 1 --threads 1 --rounds 3
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import time
import warnings
from collections.abc import Callable

import numpy as np
import scipy.sparse.linalg
import torch
from _networks import NETWORKS, Network
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape import Objective
from landscape.curvature import hessian, top_eigenpairs
from landscape.curvature._lanczos import rademacher
from landscape.curvature._ritz_space import RitzSpace

K = 10
Run = Callable[[], tuple[np.ndarray, float]]


def exact(network: Network) -> np.ndarray:
    """Return the ten largest eigenvalues to many digits."""
    operator = hessian(Objective(*network))
    return top_eigenpairs(operator, K, tol=1e-6, max_matvecs=400, max_basis=200, thorough=True).values


def oracle(network: Network, values: np.ndarray, accuracy: float = 1e-3) -> int:
    """Return the fewest Lanczos steps after which all ten values of our own Krylov run are right."""
    operator = hessian(Objective(*network))
    space = RitzSpace(operator, rademacher(operator.shape[0], 0), 120)
    space.grow(K)
    while np.abs(space.ritz()[0][::-1][:K] / values - 1).max() > accuracy:
        space.grow(1)
    return space.steps


def ours(network: Network) -> tuple[np.ndarray, float]:
    """Run `top_eigenpairs` with default arguments, the objective and the graph included."""
    pairs = top_eigenpairs(hessian(Objective(*network)), K)
    return pairs.values, pairs.n_matvecs


def pyhessian(network: Network) -> tuple[np.ndarray, float]:
    """Run PyHessian's power iteration with its default tolerance."""
    from pyhessian import hessian as peer

    model, loss, batches = network
    data = {"data": batches[0]} if len(batches) == 1 else {"dataloader": batches}
    with contextlib.redirect_stdout(io.StringIO()):
        values, _ = peer(model, loss, cuda=False, **data).eigenvalues(maxIter=100, tol=1e-3, top_n=K)
    model.zero_grad(set_to_none=True)
    return np.sort(values)[::-1], float("nan")


def curvlinops(network: Network) -> tuple[np.ndarray, float]:
    """Run ARPACK on curvlinops' operator, its tolerance on values at 1e-3."""
    from curvlinops import HessianLinearOperator

    model, loss, batches = network
    # It needs the loss as a module, and reads its reduction.
    module = torch.nn.CrossEntropyLoss() if isinstance(loss, torch.nn.Module) else _Next()
    parameters = [p for p in model.parameters() if p.requires_grad]
    operator = HessianLinearOperator(model, module, parameters, batches, check_deterministic=False)
    counted, count = operator.to_scipy(), [0]

    def matvec(vector: np.ndarray) -> np.ndarray:
        count[0] += 1
        return counted @ vector.astype(counted.dtype)

    linear = scipy.sparse.linalg.LinearOperator(counted.shape, matvec=matvec, dtype=counted.dtype)
    values = scipy.sparse.linalg.eigsh(linear, K, which="LA", tol=1e-3, return_eigenvectors=False)
    return np.sort(values)[::-1], count[0]


class _Next(torch.nn.Module):
    """The loss of the language model as a module with a reduction."""

    reduction = "mean"

    def forward(self, scores: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(scores, text.flatten())


def eigenthings(network: Network, steps: int) -> tuple[np.ndarray, float]:
    """Run hessian-eigenthings' Lanczos with a given number of steps: it does not know when to stop."""
    from hessian_eigenthings import HessianOperator, lanczos

    model, loss, batches = network
    operator = HessianOperator(model, batches, lambda m, batch: loss(m(batch[0]), batch[1]))
    found = lanczos(operator, k=K, max_iter=steps, which="LA", seed=0, reorthogonalize=True)
    return np.sort(found.eigenvalues.double().cpu().numpy())[::-1], steps


def compare(network: Network, rounds: int) -> None:
    """Print the table of one network."""
    values = exact(network)
    steps = oracle(network, values)
    enough = 20
    if importlib.util.find_spec("hessian_eigenthings"):
        # What a user finds who tries 20, 30, 40 ... steps; the trials are not timed.
        while np.abs(eigenthings(network, enough)[0] / values - 1).max() > 1e-3:
            enough += 10
    runs: dict[str, Run] = {"ours": lambda: ours(network)}
    peers: dict[str, tuple[str, Run]] = {
        "PyHessian": ("pyhessian", lambda: pyhessian(network)),
        "curvlinops + eigsh": ("curvlinops", lambda: curvlinops(network)),
        "hessian-eigenthings": ("hessian_eigenthings", lambda: eigenthings(network, enough)),
    }
    runs |= {name: run for name, (module, run) in peers.items() if importlib.util.find_spec(module)}
    times: dict[str, list[float]] = {name: [] for name in runs}
    found: dict[str, tuple[np.ndarray, float]] = {}
    for _ in range(rounds):
        for name, run in runs.items():
            begin = time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()
            found[name] = run()
            end = time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()
            times[name].append(end - begin)
    best = min(times["ours"])
    print(f"an oracle that knew when to stop: {steps} products")
    print(f"{'':22} {'seconds':>8} {'ratio':>6} {'products':>9} {'error':>8}")
    for name, (result, products) in found.items():
        error = np.abs(result / values - 1).max()
        print(f"{name:22} {min(times[name]):8.2f} {min(times[name]) / best:6.2f} {products:9.0f} {error:8.1e}")


def main() -> None:
    """Read the arguments and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="cnn")
    parser.add_argument("--batches", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")  # PyHessian's backward(create_graph=True) warns at every product
    print(f"{arguments.network}, {arguments.batches} batches, {arguments.threads} threads, {arguments.rounds} rounds")
    with sdpa_kernel(SDPBackend.MATH):  # the peers do not choose attention that can be differentiated twice
        compare(NETWORKS[arguments.network](arguments.batches), arguments.rounds)


if __name__ == "__main__":
    main()
