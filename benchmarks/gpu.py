"""Measure products, eigenvalues, sharpness, surfaces, bits and callbacks on a GPU, and write gpu.md.

    python benchmarks/gpu.py                         # under 8 minutes on a GPU; `make bench DEVICE=cuda` runs it too
    python benchmarks/gpu.py --device cpu --quick    # tiny networks: shows that everything runs, and no speed

Times are by the clock with the device synchronised, minima over rounds in which the contenders take turns. A part that
fails leaves its reason in the table, and a part for which no time is left says so. Peers that are not installed are
left out.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import io
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse.linalg
import torch
from _large_networks import NETWORKS, Network
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, TensorDataset

from landscape import Objective
from landscape.compression import bits
from landscape.curvature import ggn, hessian, top_eigenpairs
from landscape.curvature._products import checked_later
from landscape.sharpness import average_case
from landscape.surface import loss_surface, random_directions

K = 10
Rows = Iterator[tuple[str, Callable[[], float | str]]]


class Bench:
    """Runs rows within a limit of time and collects the lines of the page.

    Args:
        device: Where everything is measured.
        quick: Whether networks and numbers of rounds are tiny.
        minutes: The limit.
    """

    def __init__(self, device: torch.device, quick: bool, minutes: float):
        self.device, self.quick, self.lines = device, quick, [""]
        self.rounds = 1 if quick else 5
        self._end = time.perf_counter() + 60 * minutes

    def seconds(self, call: Callable[[], Any], rounds: int | None = None) -> float:
        """Return the least seconds of a call over some rounds, after one that is not counted."""
        best = float("inf")
        for _ in range(1 + (rounds or self.rounds)):
            self._wait()
            begin = time.perf_counter()
            call()
            self._wait()
            last, best = best, min(best, time.perf_counter() - begin)
            if last == float("inf") and time.perf_counter() > self._end:
                break
        return best

    def table(self, title: str, unit: str, rows: Rows) -> None:
        """Write a table: each row is a name, and what gives its number or says why there is none."""
        self.lines += [f"**{title}**", "", f"| | {unit} |", "|---|---|"]
        for name, measure in rows:
            if time.perf_counter() > self._end:
                found: float | str = "left out, no time"
            else:
                try:
                    found = measure()
                except Exception as error:
                    found = f"failed: {type(error).__name__}: {str(error).splitlines()[0][:100]}"
            text = found if isinstance(found, str) else f"{found:.4g}"
            self.lines.append(f"| {name} | {text} |")
            print(self.lines[-1], flush=True)
        self.lines.append("")

    def _wait(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize()


def products(bench: Bench, network: Network) -> Rows:
    """Products in gradients of the same batches: eager, compiled, and captured as a CUDA graph."""
    objective = Objective(*network)
    vector = torch.randn_like(objective.vector())
    gradient = bench.seconds(objective.gradient)
    yield "gradient, ms", lambda: 1e3 * gradient
    makers = {
        "hessian, graphs retained": functools.partial(hessian, objective, strategy="retained"),
        "hessian, graphs rebuilt": functools.partial(hessian, objective, strategy="rebuilt"),
        "hessian, linearized": functools.partial(hessian, objective, strategy="linearized"),
        "ggn": functools.partial(ggn, objective),
    }
    if not bench.quick:  # compiling takes minutes without a GPU
        makers["hessian, torch.compile'd"] = functools.partial(hessian, objective, strategy="compiled")
    for name, make in makers.items():
        yield name, lambda make=make: bench.seconds(_multiply(make(), vector)) / gradient
    yield "hessian, retained, captured as a CUDA graph", lambda: captured(bench, objective, vector) / gradient


def _multiply(operator: Any, vector: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: operator @ vector


def captured(bench: Bench, objective: Objective, vector: torch.Tensor) -> float:
    """Return the seconds of a product that is replayed from a CUDA graph.

    Raises:
        RuntimeError: The device is not CUDA's.
    """
    if bench.device.type != "cuda":
        raise RuntimeError("CUDA graphs need CUDA")
    # The backward pass runs on the stream of the forward pass, so both belong to the stream of the capture.
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream), checked_later():
        operator = hessian(objective, strategy="retained")
        expected = (operator @ vector).clone()
        for _ in range(3):
            operator @ vector
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            found = operator @ vector
    spent = bench.seconds(graph.replay)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
    return spent


def eigenvalues(bench: Bench, network: Network) -> Rows:
    """The ten largest eigenvalues, everything included that a user has to build."""
    reference = top_eigenpairs(hessian(Objective(*network)), K, tol=1e-5, verify=False).values

    def error(values: np.ndarray) -> str:
        return f"{float(np.abs(np.sort(values)[::-1] / reference - 1).max()):.0e}"

    def row(run: Callable[[], np.ndarray]) -> str:
        found: list[np.ndarray] = []
        spent = bench.seconds(lambda: found.append(run()), rounds=1)
        return f"{spent:.3g} (error {error(found[-1])})"

    yield "ours", lambda: row(lambda: top_eigenpairs(hessian(Objective(*network)), K).values)
    yield (
        "ours, without the second look",
        lambda: row(lambda: top_eigenpairs(hessian(Objective(*network)), K, verify=False).values),
    )
    if importlib.util.find_spec("curvlinops"):
        for compiled in (False, True):
            name = "curvlinops + eigsh" + (", torch.compile'd model" if compiled else "")
            yield name, lambda compiled=compiled: row(lambda: curvlinops(network, compiled))
    if importlib.util.find_spec("pyhessian"):
        yield "PyHessian", lambda: row(lambda: pyhessian(network, bench))


def curvlinops(network: Network, compiled: bool) -> np.ndarray:
    """Run ARPACK on curvlinops' operator."""
    from curvlinops import HessianLinearOperator

    model, loss, batches = network
    parameters = [p for p in model.parameters() if p.requires_grad]
    function = torch.compile(model, backend="aot_eager") if compiled else model
    operator = HessianLinearOperator(function, loss, parameters, batches, check_deterministic=False)
    linear = operator.to_scipy()
    return scipy.sparse.linalg.eigsh(linear, K, which="LA", tol=1e-3, return_eigenvectors=False)


def pyhessian(network: Network, bench: Bench) -> np.ndarray:
    """Run PyHessian's power iteration with deflation, with few iterations where it is only to be shown to run."""
    from pyhessian import hessian as peer

    model, loss, batches = network
    cuda = bench.device.type == "cuda"
    with contextlib.redirect_stdout(io.StringIO()):
        made = peer(model, loss, dataloader=batches, cuda=cuda)
        values, _ = made.eigenvalues(maxIter=5 if bench.quick else 100, tol=1e-3, top_n=K)
    model.zero_grad(set_to_none=True)
    return np.array(values)


def others(bench: Bench, network: Network) -> Rows:
    """Sharpness, a surface and bits, beside as many bare forward passes."""
    objective = Objective(*network)
    points, draws = (3, 4) if bench.quick else (9, 20)
    model, loss, batches = network

    def bare() -> None:
        with torch.no_grad():
            for x, y in batches:
                loss(model(x), y)

    forward = bench.seconds(bare)
    yield "one bare forward pass over the batches, ms", lambda: 1e3 * forward
    measures: dict[str, tuple[int, Callable[[], Any]]] = {
        f"average_case, {draws} draws, in bare passes a draw": (
            draws,
            lambda: average_case(objective, draws=draws),
        ),
        f"loss_surface, {points} × {points}, in bare passes a point": (
            points**2,
            lambda: loss_surface(objective, random_directions(objective), points=points, progress=False),
        ),
    }
    for name, (count, call) in measures.items():
        yield name, lambda call=call, count=count: bench.seconds(call, rounds=1) / forward / count
    yield "bits, three tolerances, s", lambda: bench.seconds(lambda: bits(objective, tolerances=(0.03, 0.1, 0.3)), 1)


def overhead(bench: Bench, network: Network) -> Rows:
    """The callbacks' share of a training."""
    import pytorch_lightning as pl

    from landscape.callbacks import HessianSpectrum, Sharpness

    model, loss, batches = network
    epochs = 1 if bench.quick else 20

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return loss(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=1e-3)

    def fit(callbacks: list[Any]) -> float:
        with tempfile.TemporaryDirectory() as folder:
            trainer = pl.Trainer(
                accelerator="cpu" if bench.device.type == "cpu" else "gpu",
                devices=1,
                max_epochs=epochs,
                callbacks=callbacks,
                default_root_dir=folder,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            examples = TensorDataset(*(torch.cat(parts).cpu() for parts in zip(*batches, strict=True)))
            loader = DataLoader(examples, batch_size=len(batches[0][0]), shuffle=True)
            begin = time.perf_counter()
            trainer.fit(Module(), loader)
            return time.perf_counter() - begin

    def measured() -> str:
        with tempfile.TemporaryDirectory() as folder:
            alone = fit([])
            cadence = {"every_n_epochs": epochs, "path": str(Path(folder) / "run.h5")}
            spent = fit([HessianSpectrum(k=3, **cadence), Sharpness(draws=4, **cadence)])
        return f"{spent / alone:.2f} times the training alone ({alone:.3g} s)"

    yield f"HessianSpectrum and Sharpness once in {epochs} epochs", measured


PARTS = {
    "Products": ("in gradients", products),
    "Ten largest eigenvalues": ("s, the largest relative error", eigenvalues),
    "Sharpness, surface and bits": ("", others),
    "Callbacks": ("", overhead),
}


def machine(device: torch.device) -> str:
    """Say what was measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type.upper()} alone"
    return f"{name}, torch {torch.__version__}"


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny networks, one round: to see that it runs")
    parser.add_argument("--minutes", type=float, default=7.0, help="no further row begins after that")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("gpu.md"))
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device; --device cpu --quick shows that the script runs")
    warnings.simplefilter("ignore")  # PyHessian's backward(create_graph=True) warns at every product
    bench = Bench(device, options.quick, options.minutes)
    with sdpa_kernel(SDPBackend.MATH):  # the peers do not choose attention that can be differentiated twice
        for title, (unit, part) in PARTS.items():
            for name, make in NETWORKS.items():
                network = make(device, options.quick)
                size = sum(p.numel() for p in network[0].parameters())
                print(f"\n{title}, {name}", flush=True)
                bench.table(f"{title}: {name}, {size:,} parameters", unit, part(bench, network))
    quick = ", tiny networks (--quick), which say nothing about speed" if options.quick else ""
    head = [f"# On an accelerator\n\nWritten by `benchmarks/gpu.py` on {machine(device)}{quick}."]
    options.out.write_text("\n".join(head + bench.lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
