"""What the tests of shared measuring measure, in one process or, run as a script, in each of two gloo processes."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from landscape import MeasurementError, Objective, sharpness
from landscape.averaging import recompute_batchnorm
from landscape.compression import bits, noise_radius
from landscape.connectivity import barriers, fit_curve, profile
from landscape.curvature import fisher, ggn, hessian, spectrum, top_eigenpairs, trace
from landscape.volume import basin_volume, laplace_evidence, learning_coefficient

UNEVEN = (7, 3, 11, 2, 9)
SHARPNESS: dict[str, dict[str, Any]] = {
    "sam": {},
    "average_case": {"draws": 4},
    "worst_case": {"steps": 4},
    "gradient_norm": {},
    "fisher_rao": {},
    "keskar": {"iterations": 2},
    "random_radius": {"draws": 1, "tol": 0.1},
}


def network(width: int = 24, norm: bool = False) -> nn.Sequential:
    """A tanh network, of 795 parameters without batch normalisation: more than are measured by the dense matrix."""
    torch.manual_seed(3)
    middle: list[nn.Module] = [nn.BatchNorm1d(width)] if norm else []
    return nn.Sequential(
        nn.Linear(4, width), *middle, nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 3)
    )


def batches(sizes: tuple[int, ...] = UNEVEN, ignored: bool = True) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Uneven batches, of which some targets are ignored."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(sum(sizes), 4, generator=generator)
    y = (x[:, :3] + 0.5 * torch.randn(sum(sizes), 3, generator=generator)).argmax(dim=1)
    if ignored:
        y[::6] = -100
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


def cross_entropy() -> nn.Module:
    """With class weights, so that a batch weighs neither by its examples nor by its targets."""
    return nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]))


def objective(dtype: torch.dtype = torch.float64, sizes: tuple[int, ...] = UNEVEN, norm: bool = False) -> Objective:
    """An objective over uneven batches; the statistics of a batch normalisation differ between processes."""
    model = network(norm=norm)
    if norm and dist.is_initialized() and dist.get_rank() > 0:
        model[1].running_mean += 1.0
    loss_fn = cross_entropy().double() if dtype == torch.float64 else cross_entropy()
    return Objective(model, loss_fn, batches(sizes), dtype=dtype)


def everything(measured: Objective) -> dict[str, Any]:
    """Take every measure of an objective, cheaply."""
    operator = hessian(measured)
    found = spectrum(operator, k=4, k_bottom=2, probes=2, steps=12, max_matvecs=60)
    estimate = trace(operator, max_matvecs=40, tol=1e-2)
    evaluation = measured.evaluate()
    start, end = measured.vector(), 1.1 * measured.vector().flip(0)
    curve = fit_curve(measured, start, end, steps=6, progress=False)
    path = profile(curve, measured, [0.0, 0.3, 1.0])
    coded, noise = bits(measured, tolerances=(0.1,)), noise_radius(measured, (0.1,), draws=4)
    along = sharpness.directional_sharpness(measured, -0.1 * measured.gradient())
    estimates = {name: getattr(sharpness, name)(measured, **settings) for name, settings in SHARPNESS.items()}
    estimates |= {"worst_case_of_groups": sharpness.worst_case(measured, steps=4, group=4), "along a step": along}
    empirical = fisher(measured, "empirical")
    return {
        "fingerprint": measured.fingerprint,
        "n_examples": measured.n_examples,
        "loss": float(measured.loss()),
        "evaluated": [evaluation.loss, evaluation.error],
        "gradient": measured.gradient().tolist(),
        "top": found.top.values.tolist(),
        "bottom": found.bottom.values.tolist(),
        "density": found.density.nodes.tolist(),
        "trace": [estimate.value, estimate.stderr],
        **{name: one.value for name, one in estimates.items()},
        # None stands for NaN, which is no number that could be compared. That of the basin's volume is left out: it
        # stands on eigenvectors of the least eigenvalues, and so on rounding.
        "errors over examples": [
            None if math.isnan(error) else error
            for error in (
                *(evaluation.loss_stderr_sample, evaluation.error_stderr_sample, estimate.stderr_sample),
                *(*found.top.stderr_sample, *(one.stderr_sample for one in estimates.values())),
                *(along.critical_stderr_sample, along.slope_stderr_sample),
                *(*noise.stderr_sample, *coded.loss_rise_stderr_sample, *(one.stderr for one in barriers(path))),
            )
        ],
        "bits": coded.bits.tolist(),
        "noise_radius": noise.sigma.tolist(),
        "learning_coefficient": [
            learning_coefficient(measured, 2, 12, step_size=1e-4, full_batch=whole).value for whole in (False, True)
        ],
        "basin_volume": basin_volume(measured, rays=2).log_volume,
        "evidence": laplace_evidence(measured, [1.0, 10.0]).log_evidence.tolist(),
        "curve": [path.loss.tolist(), path.error.tolist()],
        "ggn": [ggn(measured).outputs, *top_eigenpairs(ggn(measured), k=2).values.tolist()],
        "fisher": [empirical.outputs, empirical.n, *top_eigenpairs(empirical, k=2).values.tolist()],
        "mc": top_eigenpairs(fisher(measured, "mc", draws=2), k=2).values.tolist(),
    }


def by_strategy(measured: Objective) -> dict[str, Any]:
    """Take one block of products by every strategy."""
    block = torch.linspace(-1, 1, 2 * measured.n_parameters, dtype=measured.dtype).reshape(-1, 2).sin()
    found = {}
    for strategy in ("retained", "rebuilt", "linearized", "differences"):
        operator = hessian(measured, strategy=strategy)
        found[strategy] = [(operator @ block).reshape(-1).tolist(), (operator.restrict("0") @ block[:120, 0]).tolist()]
    return found


def normalised(measured: Objective) -> dict[str, Any]:
    """Measure a network with batch normalisation: by the first process's statistics, by its own, and on a path."""
    fresh = recompute_batchnorm(measured)
    found = {name: values.tolist() for name, values in fresh.items()}
    curve = fit_curve(measured, measured.vector(), measured.vector().flip(0), steps=4, progress=False)
    path = profile(curve, measured, [0.0, 0.5, 1.0])
    operators = (hessian(measured), hessian(measured, strategy="rebuilt"), hessian(measured, strategy="differences"))
    return found | {
        "loss": float(measured.loss()),
        "loss of fresh statistics": float(measured.loss(buffers=fresh)),
        "products": [(operator @ measured.vector()).tolist() for operator in operators],
        "path": path.loss.tolist(),
        "half": float(measured.restrict(measured.batches[:2]).loss()),
    }


def measure(share: Callable[[Objective], Objective]) -> dict[str, Any]:
    """Measure all cases.

    Args:
        share: What is done with an objective before it is measured.

    Returns:
        Plain values by case.
    """
    return {
        "uneven float64": everything(share(objective())),
        "uneven float32": everything(share(objective(torch.float32))),
        "one batch": everything(share(objective(sizes=(20,)))),
        "strategies": by_strategy(share(objective())),
        "batchnorm": normalised(share(objective(norm=True, sizes=(7, 5, 9)))),
    }


# ------------------------------------------------------------------ what only several processes can do


class Faulty(nn.Module):
    """Fails, or gives NaN, on the batches of 11 examples, in one process only."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.net = network()
        self.kind, self.armed = kind, False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        faulty = self.armed and len(x) == 11
        if faulty and self.kind == "error":
            raise KeyError("broken example")
        return self.net(x) * float("nan") if faulty else self.net(x)


class Gathering(nn.Module):
    """Exchanges tensors with other processes, as contrastive losses do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.net(x)
        total = scores.detach().mean()
        dist.all_reduce(total)
        return scores - total


def said(action: Callable[[], Any]) -> str:
    """Return the class and text of what an action raises."""
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def failures() -> dict[str, Any]:
    """Fail in one process in several ways, and see what all of them hear."""
    rank = dist.get_rank()
    found: dict[str, Any] = {}
    for kind in ("error", "nan"):
        model = Faulty(kind)
        measured = Objective(model, nn.CrossEntropyLoss(), batches(), mode="eval").shard()
        operator = hessian(measured, strategy="rebuilt")
        model.armed = True
        found[kind] = [said(measured.loss), said(measured.gradient), said(lambda m=measured: hessian(m))]
        found[kind].append(said(lambda o=operator: o @ torch.ones(o.shape[0])))
        model.armed = False
        found[kind].append(float(measured.loss()))
    measured = objective().shard()

    def elsewhere() -> None:
        with measured.processes.together():
            if rank == 1:
                raise MemoryError("out of memory")
            measured.gradient()

    def apart() -> None:
        with measured.processes.together():
            measured.loss() if rank else measured.gradient()

    def swallowed() -> None:
        with measured.processes.together():
            if rank == 0:
                raise MeasurementError("cannot")
            said(measured.loss)
            measured.evaluate()

    def late() -> None:
        with measured.processes.together():
            measured.loss()
            if rank == 0:
                raise MeasurementError("too late")

    def everywhere() -> None:
        with measured.processes.together():
            raise ValueError("the same in all")

    for action in (elsewhere, apart, swallowed, late, everywhere):
        found[action.__name__] = [said(action), float(measured.loss())]
    found["unpicklable"] = said(lambda: measured.processes.gather(lambda: 0) if rank else measured.processes.gather(0))
    x, y = batches()[0]
    found["other batches"] = said(Objective(network(), nn.CrossEntropyLoss(), [(x + rank, y)]).shard)
    found["other weights"] = said(Objective(network(24 + 8 * rank), nn.CrossEntropyLoss(), [(x, y)]).shard)
    found["gathering"] = said(Objective(Gathering(), nn.CrossEntropyLoss(), [(x, y)]).shard)
    found["first"] = measured.processes.first(rank + 10)
    found["map"] = measured.processes.map(lambda item: item**2, [1, 2, 3])
    return found


def counts() -> dict[str, Any]:
    """Count how often the model is evaluated in this process: to build an operator over four batches, and to use it."""
    found = {}
    calls: list[int] = []
    evaluate = Objective.batch_loss

    def counting(self: Objective, index: int, *args: Any) -> torch.Tensor:
        calls.append(index)
        return evaluate(self, index, *args)

    Objective.batch_loss = counting  # type: ignore[method-assign]
    whole = Objective(network(), nn.CrossEntropyLoss(), batches((8, 8, 8, 8)))
    hessian(whole)  # checks its derivatives, once for all objectives made of this one
    for name, measured in (("whole", whole), ("shared", whole.shard())):
        calls.clear()
        operator = hessian(measured, strategy="rebuilt")
        counted = {"operator": len(calls)}
        calls.clear()
        for _ in range(10):
            operator @ measured.vector()
        counted["ten products"] = len(calls)
        calls.clear()
        measured.gradient()
        counted["gradient"] = len(calls)
        counted["kept graphs"] = ggn(measured).n_kept
        counted["n_matvecs"] = operator.n_matvecs
        found[name] = counted
    Objective.batch_loss = evaluate  # type: ignore[method-assign]
    return found


if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    results = {"measured": measure(lambda whole: whole.shard()), "failures": failures(), "counts": counts()}
    dist.barrier()
    dist.destroy_process_group()
    (folder / f"{rank}.json").write_text(json.dumps(results))
