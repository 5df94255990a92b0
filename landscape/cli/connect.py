"""`landscape connect`: the paths between two checkpoints, and the barriers along them."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich import box
from rich.table import Table
from torch import nn

from landscape._errors import LandscapeError
from landscape._results import with_error
from landscape.cli._options import batches_option, data_option, held_out_option, loss_option, model_option
from landscape.cli._output import say_json
from landscape.cli._tables import console
from landscape.cli._targets import build_model, make_objective, read_batches
from landscape.connectivity import Curve, align, barriers, fit_curve, path_integral, profile
from landscape.connectivity._ends import check_same_architecture, end_buffers, end_vector
from landscape.objective import Objective

_EXAMPLE = (
    "\b\nExample:\n"
    "  landscape connect a.ckpt b.ckpt --model project.net:LitNet --data project.data:DigitsData\n"
    "  landscape connect a.pt b.pt --model net.py:make --data net.py:batches --align weights\n"
    "  landscape connect a.ckpt b.ckpt --model net.py:LitNet --data net.py:loader --json > paths.json"
)


@click.command("connect", epilog=_EXAMPLE)
@click.argument("a", type=click.Path(path_type=Path), metavar="A")
@click.argument("b", type=click.Path(path_type=Path), metavar="B")
@model_option
@data_option
@held_out_option
@loss_option
@batches_option
@click.option(
    "--align",
    "method",
    type=click.Choice(["none", "weights", "activations"]),
    default="none",
    show_default=True,
    help="Permute the hidden units of B first so that they fit those of A.",
)
@click.option("--kind", type=click.Choice(["bezier", "chain", "linear"]), default="bezier", show_default=True)
@click.option("--bends", type=click.IntRange(min=1), default=1, show_default=True, help="Bends of the curve.")
@click.option("--steps", type=click.IntRange(min=1), default=1000, show_default=True, help="Steps of its training.")
@click.option("--learning-rate", type=float, default=0.01, show_default=True, help="Its learning rate (Adam).")
@click.option("--points", type=click.IntRange(min=2), default=21, show_default=True, help="Points on each path.")
@click.option("--refine", type=click.IntRange(min=0), default=3, show_default=True, help="Rounds of more near the top.")
@click.option(
    "--batchnorm",
    type=click.Choice(["recompute", "interpolate", "keep"]),
    default="recompute",
    show_default=True,
    help="Statistics of batch normalisations between A and B: computed anew, interpolated, or those of A.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the curve's training.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with all points, and null for what is no number.")
def command(a: Path, b: Path, model: Any, data: Any, held_out: Any, as_json: bool, **options: Any) -> None:
    """Measure loss and error along the straight line and a trained curve between checkpoints A and B.

    A and B are Lightning checkpoints, saved state dicts, or run files with recorded weights. What --model, --data,
    --loss and --held-out name is written package.module:name or file.py:name.
    """  # noqa: DOC501 - this text is what --help prints
    try:
        paths = _measure(a, b, model, data, held_out, options)
    except ValueError as error:  # two architectures, a learning rate: what the user gave
        raise LandscapeError(str(error)) from error
    if as_json:
        say_json(paths)
    else:
        _print(paths)


def _measure(a: Path, b: Path, model: Any, data: Any, held_out: Any, options: dict[str, Any]) -> dict[str, Any]:
    one, other = build_model(model, a), build_model(model, b)
    check_same_architecture(one, other)
    batches = read_batches(data, options["batches"])
    objective = make_objective(one, options["loss"], batches)
    measured = {"train": objective}
    if held_out is not None:
        measured["held_out"] = objective.restrict(read_batches(held_out, options["batches"]))
    curves = {"linear": _path(objective, one, other, "linear", options)}
    if options["method"] != "none":
        other = align(one, other, options["method"], copy.deepcopy(batches)).model
        curves["linear, aligned"] = _path(objective, one, other, "linear", options)
    if options["kind"] != "linear":
        curves[options["kind"]] = _path(objective, one, other, options["kind"], options)
    grid = np.linspace(0.0, 1.0, options["points"])
    found = {}
    for name, curve in curves.items():
        found[name] = {split: _along(curve, each, grid, options["refine"]) for split, each in measured.items()}
    return {"a": str(a), "b": str(b), "objective": objective.describe(), "paths": found}


def _path(objective: Objective, one: nn.Module, other: nn.Module, kind: str, options: dict[str, Any]) -> Curve:
    return fit_curve(
        objective,
        end_vector(objective, one),
        end_vector(objective, other),
        kind,
        options["steps"],
        options["learning_rate"],
        options["seed"],
        options["batchnorm"],
        (end_buffers(one), end_buffers(other)),
        bends=None if kind == "linear" else options["bends"],
    )


def _along(curve: Curve, objective: Objective, grid: np.ndarray, refine: int) -> dict[str, Any]:
    values = profile(curve, objective, grid, refine=refine)
    integral = path_integral(curve, values)
    return {
        "length": integral.length,
        "mean_loss": integral.loss,
        "mean_error": integral.error,
        "barriers": [barrier.to_dict() for barrier in barriers(values)],
    } | {name: column.tolist() for name, column in values.to_dict().items()}


def _print(paths: dict[str, Any]) -> None:
    out = console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("path")
    table.add_column("examples")
    for title in ("length", "mean loss", "measure", "interpolated", "mean of ends", "worse end", "top at t"):
        table.add_column(title, justify="right" if title != "measure" else "left")
    for name, splits in paths["paths"].items():
        for split, path in splits.items():
            for which in ("loss", "error"):
                heights = [barrier for barrier in path["barriers"] if barrier["which"] == which]
                if all(math.isnan(barrier["value"]) for barrier in heights) and which == "error":
                    continue
                first = which == "loss"
                table.add_row(
                    name if first else "",
                    split.replace("_", "-") if first else "",
                    f"{path['length']:.4g}" if first else "",
                    f"{path['mean_loss']:.4g}" if first else "",
                    which,
                    *[
                        with_error(barrier["value"], barrier["stderr"]).replace(" ", "\N{NO-BREAK SPACE}")
                        for barrier in heights
                    ],
                    f"{heights[0]['t']:.3g}",
                )
    out.print(table)
    out.print("Barriers, ± their standard errors over the measured examples.")
