"""Peak resident memory of the ten largest eigenvalues, as a multiple of one gradient's: `python benchmarks/memory.py`.

Every measurement is a process of its own, which loads the transformer of 1.1M parameters trained before, so that the
peak is that of the work itself; the interpreter and its libraries are part of it, as they are of the gradient's.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from _networks import NETWORKS, LanguageModel, next_symbol_loss
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape import Objective
from landscape.curvature import hessian, top_eigenpairs

SETTINGS = {
    "low memory, graphs rebuilt": {"memory": "low", "strategy": "rebuilt"},
    "low memory": {"memory": "low", "strategy": "auto"},
    "default": {"memory": "default", "strategy": "auto"},
}


def child(stored: Path, setting: str) -> None:
    """Do one thing, and print the products it took and the peak in MB."""
    torch.set_num_threads(1)
    state, batches = torch.load(stored)
    model = LanguageModel()
    model.load_state_dict(state)
    products = 0
    if setting == "gradient":
        with sdpa_kernel(SDPBackend.MATH):
            for x, y in batches:
                next_symbol_loss(model(x), y).backward()
    else:
        how = SETTINGS[setting]
        operator = hessian(Objective(model.eval(), next_symbol_loss, batches), strategy=how["strategy"])
        pairs = top_eigenpairs(operator, 10, memory=how["memory"])
        if not pairs.converged:
            raise SystemExit(f"{setting}: not converged")
        products = pairs.n_matvecs
    print(products, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=2)
    options = parser.parse_args()
    if options.child:
        child(Path(options.child[0]), options.child[1])
        return
    print("| | batches | products | peak in MB | times one gradient's |")
    print("|---|---|---|---|---|")
    for n_batches in (1, 4):
        with tempfile.TemporaryDirectory() as folder:
            stored = Path(folder) / "network.pt"
            model, _, batches = NETWORKS["transformer"](n_batches)
            torch.save((model.state_dict(), batches), stored)
            gradient = 0.0
            for setting in ("gradient", *SETTINGS):
                command = [sys.executable, __file__, "--child", str(stored), setting]
                products, peak = subprocess.check_output(command, text=True).split()
                gradient = gradient or float(peak)
                ratio = float(peak) / gradient
                print(f"| {setting} | {n_batches} | {products} | {float(peak):.0f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
