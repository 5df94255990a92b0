"""Cost of a curvature product in gradients, beside PyHessian's: `python benchmarks/products.py`.

Every round takes one product of each kind, so that the load of the machine meets all of them alike; the minimum of the
CPU time over the rounds counts (of the clock with more than one thread). Errors are relative, against the retained
graph.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from pyhessian import hessian as pyhessian
from pyhessian.utils import hessian_vector_product
from torch import nn

from landscape import Objective
from landscape._second_order import plain_kernels
from landscape.curvature import fisher, ggn, hessian

Batches = list[tuple[torch.Tensor, torch.Tensor]]


def convolutional(batch: int = 256, batches: int = 1) -> tuple[nn.Module, Batches]:
    """A network of 95k parameters with batch normalisation, on images of 16 × 16."""
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))
    return model, [(torch.randn(batch, 3, 16, 16), torch.randint(10, (batch,))) for _ in range(batches)]


class Transformer(nn.Module):
    """A causal language model of 1.1M parameters: 4 layers of width 144, 256 tokens, 64 positions."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(256, 144)
        self.positions = nn.Parameter(torch.randn(64, 144) * 0.02)
        layer = nn.TransformerEncoderLayer(144, 4, 576, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(144), nn.Linear(144, 256))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits by class and position, shape (batch, 256, 64)."""
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        mixed = self.layers(self.tokens(tokens) + self.positions, mask=mask, is_causal=True)
        return self.head(mixed).transpose(1, 2)


def transformer(batch: int = 8, batches: int = 1) -> tuple[nn.Module, Batches]:
    """The transformer with random tokens to predict."""
    drawn = [torch.randint(256, (batch, 65)) for _ in range(batches)]
    return Transformer(), [(tokens[:, :-1], tokens[:, 1:]) for tokens in drawn]


def interleaved(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the minimum seconds of each call over the rounds: of the processor with one thread, else of the clock."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            start = clock()
            call()
            best[name] = min(best[name], clock() - start)
    return best


def measure(model: nn.Module, batches: Batches, rounds: int, linearized: bool) -> None:
    """Print the cost of each kind of product in gradients, and its relative error."""
    objective = Objective(model.eval(), nn.CrossEntropyLoss(), batches)
    vector, block = torch.randn(objective.n_parameters), torch.randn(objective.n_parameters, 8)
    operators: dict[str, Any] = {
        "hessian, retained": hessian(objective, strategy="retained"),
        "hessian, rebuilt": hessian(objective, strategy="rebuilt"),
        "ggn": ggn(objective),
        "fisher, empirical": fisher(objective, "empirical"),
    }
    if linearized:
        operators["hessian, linearized"] = hessian(objective, strategy="linearized")
    calls: dict[str, Callable[[], Any]] = {"gradient": objective.gradient}
    calls |= {name: lambda operator=operator: operator @ vector for name, operator in operators.items()}  # type: ignore[misc]
    calls["hessian, 8 columns, each"] = lambda: operators["hessian, retained"] @ block
    calls["ggn, 8 columns, each"] = lambda: operators["ggn"] @ block
    parts = [part.clone() for part in objective.layout.unflatten(vector)]
    with warnings.catch_warnings(), plain_kernels():
        warnings.simplefilter("ignore")  # backward(create_graph=True) warns of a reference cycle
        if len(batches) == 1:
            peer = pyhessian(model, nn.CrossEntropyLoss(), data=batches[0], cuda=False)
            calls["PyHessian"] = lambda: hessian_vector_product(peer.gradsH, peer.params, parts)
        else:
            peer = pyhessian(model, nn.CrossEntropyLoss(), dataloader=batches, cuda=False)
            calls["PyHessian"] = lambda: peer.dataloader_hv_product(parts)[1]
        seconds = interleaved(calls, rounds)
        theirs = objective.flatten(calls["PyHessian"]())
    reference = operators["hessian, retained"] @ vector
    print("| | cost in gradients | PyHessian / this | error |")
    print("|---|---|---|---|")
    for name, spent in seconds.items():
        count = 8 if "columns" in name else 1
        cost, speed = spent / count / seconds["gradient"], seconds["PyHessian"] / spent * count
        error = ""
        if name.startswith(("hessian", "PyHessian")) and count == 1:
            product = theirs if name == "PyHessian" else operators[name] @ vector
            error = f"{float(torch.linalg.vector_norm(product - reference) / torch.linalg.vector_norm(reference)):.0e}"
        print(f"| {name} | {cost:.2f} | {speed:.2f} | {error} |")
    print(f"\nOne gradient took {seconds['gradient'] * 1e3:.0f} ms.\n")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--linearized", action="store_true", help="also trace (slow to build)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name, make in (("CNN 95k, batch 256", convolutional), ("transformer 1.1M, batch 8", transformer)):
        for count in (1, 4):
            torch.manual_seed(0)
            threads = f"{options.threads} thread" + ("s" if options.threads > 1 else "")
            print(f"**{name}, {count} batch{'es' if count > 1 else ''}, {threads}, {options.rounds} rounds**\n")
            measure(*make(batches=count), options.rounds, options.linearized)


if __name__ == "__main__":
    main()
