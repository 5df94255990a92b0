"""Products that a trace of 2 % standard error takes, by method: `python benchmarks/traces.py`.

Each method stops by its own standard error; the error is against a trace from 1200 products.
"""

from __future__ import annotations

import torch
from _networks import NETWORKS

from landscape import Objective
from landscape.curvature import hessian, top_eigenpairs, trace

TOL = 0.02
SEEDS = 3


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print("| network | method | products (three seeds) | Hutchinson / this | largest relative error |")
    print("|---|---|---|---|---|")
    operator = hessian(Objective(*NETWORKS["cnn"](1)))
    known = top_eigenpairs(operator, 12)
    exact = trace(operator, "hutch++", tol=TOL / 10, max_matvecs=1200, known=[known], seed=100).value
    settings = {
        "Hutchinson": {"method": "hutchinson", "max_matvecs": 4000},
        "XTrace": {"method": "xtrace", "max_matvecs": 1000},
        "Hutch++": {"method": "hutch++", "max_matvecs": 1000},
        "Hutch++ beside 12 known eigenpairs": {"method": "hutch++", "max_matvecs": 1000, "known": [known]},
    }
    plain = 0.0
    for name, how in settings.items():
        found = [trace(operator, tol=TOL, seed=seed, **how) for seed in range(SEEDS)]
        counts = [result.n_matvecs for result in found]
        plain = plain or sum(counts)
        error = max(abs(result.value / exact - 1) for result in found)
        listed = ", ".join(map(str, counts))
        print(f"| CNN, 97k parameters | {name} | {listed} | {plain / sum(counts):.1f} | {error:.1%} |", flush=True)


if __name__ == "__main__":
    main()
