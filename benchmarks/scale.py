"""Memory and time of curvature for GPT-2-shaped models of 10⁶ to 10⁸ parameters: `python benchmarks/scale.py [names]`.

Each size is a process of its own: a model with random weights takes three steps of Adam on 8 texts of 64 tokens. Then
the top eigenpair and the trace are measured with the smallest budget of memory. Memory is the peak of the resident set
beyond what a training step reaches, in units of the float32 weights. Time is the processor's, and its share outside of
products with the Hessian. The derivative check, which a run takes once, stands by itself.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from _large_networks import SIZES, TEXTS, TOKENS, Gpt, PlaceLoss

from landscape import Objective
from landscape._derivatives import Verdict
from landscape.curvature import hessian, top_eigenpairs, trace

# Products of the eigenpair and of the trace.
PRODUCTS = {"1e6": (60, 30), "3e7": (13, 8), "1.2e8": (9, 8)}


def peak() -> float:
    """Return the peak of the resident set in bytes since the last call."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return float(status.split("VmHWM:")[1].split()[0]) * 1024


class Clock:
    """Counts the processor's time inside of an operator's products."""

    def __init__(self, operator: Any):
        self.inside, self.count = 0.0, 0
        multiply = operator._matvec

        def timed(vector: torch.Tensor) -> torch.Tensor:
            started = time.process_time()
            product = multiply(vector)
            self.inside += time.process_time() - started
            self.count += 1
            return product

        operator._matvec = timed


def child(name: str, checked: bool) -> None:
    """Measure one size, and print a row of the table."""
    most, most_of_trace = PRODUCTS[name]
    torch.manual_seed(0)
    model, loss = Gpt(*SIZES[name]), PlaceLoss()
    size = sum(parameter.numel() for parameter in model.parameters())
    text = torch.randint(SIZES[name][0], (TEXTS, TOKENS + 1))
    batch = text[:, :-1], text[:, 1:]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    for _ in range(3):
        peak()
        optimizer.zero_grad()
        loss(model(batch[0]), batch[1]).backward()
        optimizer.step()
    own = peak()
    objective = Objective(model, loss, [batch])
    peak()
    if checked:
        objective.derivatives.gradient(objective)
        objective.derivatives.product(objective)
    else:
        verdict = Verdict(True, 0.0, (), (), "", 0.0, "left out")
        objective.derivatives._found.update(gradient=verdict, product=verdict)
    of_check = peak() if checked else float("nan")
    print(f"[{name}: checked]", file=sys.stderr, flush=True)
    with objective.session():
        started = time.process_time()
        operator = hessian(objective, strategy="rebuilt")
        clock = Clock(operator)
        pairs = top_eigenpairs(operator, 1, tol=1e-2, memory_budget=5 * 4 * size, max_matvecs=most)
        seconds, of_pair = time.process_time() - started, peak()
        outside = seconds - clock.inside
        each = clock.inside / clock.count
        print(f"[{name}: pair, {clock.count} products, {each:.2f} s]", file=sys.stderr, flush=True)
        started, before = time.process_time(), clock.inside
        found = trace(operator, "hutch++", 0.1, max_matvecs=most_of_trace, known=[pairs], memory_budget=4 * 4 * size)
        of_trace = peak()
        outside_of_trace = time.process_time() - started - (clock.inside - before)
        total = seconds + time.process_time() - started

    def beyond(found: float) -> str:
        return f"{(found - own) / (4 * size):.1f}"

    share = (outside + outside_of_trace) / total
    cells = (
        f"{size:,}", f"{own / (4 * size):.1f}", beyond(of_check), beyond(of_pair), beyond(of_trace),
        f"{clock.count}", f"{clock.inside / clock.count:.2f}", f"{100 * share:.1f} %",
        f"{pairs.values[0]:.4g}", f"{found.value:.4g} ± {found.stderr:.2g}",
    )  # fmt: skip
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*SIZES, []])
    parser.add_argument("--unchecked", action="store_true", help="leave the check of derivatives out")
    parser.add_argument("--child")
    options = parser.parse_args()
    if options.child:
        child(options.child, not options.unchecked)
        return
    print("| P | a training step | check, beyond it | top pair | trace | products | s each | outside | λmax | trace |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in options.names or SIZES:
        command = [sys.executable, __file__, "--child", name, *["--unchecked"] * options.unchecked]
        print(subprocess.check_output(command, text=True), end="", flush=True)


if __name__ == "__main__":
    main()
