"""Compare the ten largest eigenvalues of the Hessian with PyHessian, curvlinops + eigsh and hessian-eigenthings.

Accuracy is equal: each peer gets the loosest setting (a power of ten for a tolerance, a multiple of ten for a number of
steps) with which all ten values are right to 1e-3; the trials that find it are not timed, though a user has to make
them. ARPACK runs with a tolerance of 1e-3 besides, which is what a user would ask for. Ours runs with its default
arguments, and without the second look for multiple eigenvalues, which no peer takes. Every round runs each once, in
turn, everything included that a user has to build; the minimum over the rounds counts.

With `--accuracy sample` each value must be right to a tenth of its standard error over examples, by every package, and
ours runs with tol="sample". `--products` counts products alone.

    python benchmarks/eigenpairs.py --network cnn --batches 1 --threads 1 --rounds 3
    python benchmarks/eigenpairs.py --network cnn --batches 6 --accuracy sample --products
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import io
import time
import warnings
from collections.abc import Callable, Iterable, Sequence

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
ACCURACY = 1e-3
Run = Callable[[], tuple[np.ndarray, float]]
Peer = Callable[[Network, float], tuple[np.ndarray, float]]


@dataclasses.dataclass(frozen=True)
class Target:
    """The ten largest eigenvalues to many digits, the error that is allowed for each, and ours's tolerance for it."""

    values: np.ndarray
    allowed: np.ndarray
    tol: float | str

    def miss(self, found: np.ndarray) -> float:
        """Return the largest error in units of what is allowed."""
        return float((np.abs(found - self.values) / self.allowed).max())


def exact(network: Network, sample: bool) -> Target:
    """Compute the ten largest eigenvalues, and what accuracy is wanted."""
    operator = hessian(Objective(*network))
    pairs = top_eigenpairs(operator, K, tol=1e-6, max_matvecs=400, max_basis=200)
    if not sample:
        return Target(pairs.values, ACCURACY * np.abs(pairs.values), ACCURACY)
    assert operator.clusters is not None, "one batch does not tell an error over examples"
    return Target(pairs.values, operator.clusters.spread(pairs.parts) / 10, "sample")


def oracle(network: Network, target: Target, seeds: int = 5) -> list[int]:
    """Return the fewest Lanczos steps after which all ten values are right, for some random starts."""
    operator = hessian(Objective(*network))
    counts = []
    for seed in range(seeds):
        space = RitzSpace(operator, rademacher(operator.shape[0], seed), 120)
        space.grow(K)
        while target.miss(space.ritz()[0][::-1][:K]) > 1:
            space.grow(1)
        counts.append(space.steps)
    return counts


def products(network: Network, target: Target, verify: bool, seeds: int = 5) -> tuple[list[int], float]:
    """Return the products that ours takes for the same starts, and the largest error in units of what is allowed."""
    operator = hessian(Objective(*network))
    found = [top_eigenpairs(operator, K, tol=target.tol, seed=seed, verify=verify) for seed in range(seeds)]
    return [pairs.n_matvecs for pairs in found], max(target.miss(pairs.values) for pairs in found)


def ours(network: Network, tol: float | str, verify: bool) -> tuple[np.ndarray, float]:
    """Run `top_eigenpairs` with default arguments but the tolerance, the objective and the graph included."""
    pairs = top_eigenpairs(hessian(Objective(*network)), K, tol=tol, verify=verify)
    return pairs.values, pairs.n_matvecs


def pyhessian(network: Network, tol: float) -> tuple[np.ndarray, float]:
    """Run PyHessian's power iteration with deflation, and enough iterations for the tolerance."""
    functions = importlib.import_module("pyhessian.hessian")  # the package's attribute of this name is the class

    model, loss, batches = network
    data = {"data": batches[0]} if len(batches) == 1 else {"dataloader": batches}
    count = [0]
    product = functions.hessian_vector_product

    def counted(*args: object) -> object:
        count[0] += 1
        return product(*args)

    functions.hessian_vector_product = counted
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            made = functions.hessian(model, loss, cuda=False, **data)
            if len(batches) > 1:
                inner = made.dataloader_hv_product

                def loaded(v: object) -> object:
                    count[0] += 1
                    return inner(v)

                made.dataloader_hv_product = loaded
            values, _ = made.eigenvalues(maxIter=1000, tol=tol, top_n=K)
    finally:
        functions.hessian_vector_product = product
    model.zero_grad(set_to_none=True)
    return np.sort(values)[::-1], count[0]


def curvlinops(network: Network, tol: float) -> tuple[np.ndarray, float]:
    """Run ARPACK on curvlinops' operator."""
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
    values = scipy.sparse.linalg.eigsh(linear, K, which="LA", tol=tol, return_eigenvectors=False)
    return np.sort(values)[::-1], count[0]


class _Next(torch.nn.Module):
    """The loss of the language model as a module with a reduction."""

    reduction = "mean"

    def forward(self, scores: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(scores, text.flatten())


def eigenthings(network: Network, steps: float) -> tuple[np.ndarray, float]:
    """Run hessian-eigenthings' Lanczos with a given number of steps: it does not know when to stop."""
    from hessian_eigenthings import HessianOperator, lanczos

    model, loss, batches = network
    operator = HessianOperator(model, batches, lambda m, batch: loss(m(batch[0]), batch[1]))
    found = lanczos(operator, k=K, max_iter=int(steps), which="LA", seed=0, reorthogonalize=True)
    return np.sort(found.eigenvalues.double().cpu().numpy())[::-1], steps


def loosest(network: Network, target: Target, run: Peer, settings: Iterable[float]) -> float:
    """Return the first setting with which a peer is right, found as a user would: by trying."""
    for setting in settings:
        if target.miss(run(network, setting)[0]) <= 1:
            return setting
    return float("nan")


def count(network: Network, target: Target) -> None:
    """Print products of an oracle and of ours."""
    print(f"An oracle that knows when all ten are right: {oracle(network, target)} products from five starts;")
    for title, verify in (("ours", True), ("without the second look", False)):
        counts, miss = products(network, target, verify)
        print(f"{title}: {counts} products, largest error {miss:.1g} of what is allowed.", flush=True)


def compare(network: Network, target: Target, rounds: int, without: Sequence[str] = ()) -> None:
    """Print the table of one network."""
    runs: dict[str, Run] = {
        "ours": lambda: ours(network, target.tol, True),
        "ours, without the second look": lambda: ours(network, target.tol, False),
    }
    powers = [10.0**-power for power in range(1, 8)]
    peers: dict[str, tuple[str, Peer, Iterable[float]]] = {
        "PyHessian, tol={:.0e}": ("pyhessian", pyhessian, powers[2:]),
        "curvlinops + eigsh, tol={:.0e}": ("curvlinops", curvlinops, powers),
        "hessian-eigenthings, {:.0f} steps": ("hessian_eigenthings", eigenthings, range(20, 200, 10)),
    }
    for title, (module, run, settings) in peers.items():
        if importlib.util.find_spec(module) and module not in without:
            setting = loosest(network, target, run, settings)
            if np.isnan(setting):
                print(f"{title.partition(',')[0]} did not come within the accuracy with any setting tried")
                continue
            runs[title.format(setting)] = functools.partial(run, network, setting)
            if run is curvlinops and setting != ACCURACY:
                runs[title.format(ACCURACY)] = functools.partial(run, network, ACCURACY)
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in runs}
    found: dict[str, tuple[np.ndarray, float]] = {}
    for _ in range(rounds):
        for name, each in runs.items():
            begin = clock()
            found[name] = each()
            times[name].append(clock() - begin)
    best = min(times["ours"])
    print("| | time / ours | products | error / allowed |")
    print("|---|---|---|---|")
    for name, (result, spent) in found.items():
        print(f"| {name} | {min(times[name]) / best:.2f} | {spent:.0f} | {target.miss(result):.1g} |")
    print()
    count(network, target)
    print(f"ours took {best:.2f} s.")


def main() -> None:
    """Read the arguments and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="cnn")
    parser.add_argument("--batches", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without", nargs="*", default=(), help="modules of peers to leave out")
    parser.add_argument("--accuracy", choices=("fixed", "sample"), default="fixed")
    parser.add_argument("--products", action="store_true", help="count products alone")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")  # PyHessian's backward(create_graph=True) warns at every product
    batches = f"{arguments.batches} batch" + ("es" if arguments.batches > 1 else "")
    threads = f"{arguments.threads} thread" + ("s" if arguments.threads > 1 else "")
    print(f"**{arguments.network}, {batches}, {threads}, {arguments.rounds} rounds**\n", flush=True)
    with sdpa_kernel(SDPBackend.MATH):  # the peers do not choose attention that can be differentiated twice
        network = NETWORKS[arguments.network](arguments.batches)
        target = exact(network, arguments.accuracy == "sample")
        if arguments.products:
            count(network, target)
        else:
            compare(network, target, arguments.rounds, arguments.without)


if __name__ == "__main__":
    main()
