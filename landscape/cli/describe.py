"""`landscape describe`: how many bits send the labels of a data set, to a receiver who knows inputs and model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from landscape._errors import LandscapeError
from landscape._results import Result, with_error
from landscape.cli._options import batches_option, model_option
from landscape.cli._output import say_json
from landscape.cli._tables import console
from landscape.cli._targets import Target, build_model, make_objective, model_maker, read_batches
from landscape.description import AdamTraining, LightningTraining, Orders, TwoPart, prequential_orders, two_part
from landscape.description._lightning import lightning_namespace
from landscape.isolation import seeded

_EXAMPLE = (
    "\b\nExample:\n"
    "  landscape describe --model project.net:LitNet --data project.data:DigitsData\n"
    "  landscape describe --model net.py:make --data net.py:batches --blocks 10 --seeds 5 --json > bits.json\n"
    "  landscape describe last.ckpt --model net.py:LitNet --data net.py:loader"
)


@click.command("describe", epilog=_EXAMPLE)
@click.argument("checkpoint", type=click.Path(path_type=Path), metavar="[CHECKPOINT]", required=False)
@model_option
@click.option(
    "--data",
    type=Target(),
    required=True,
    help="Labelled batches, a DataLoader or a LightningDataModule, or a function that returns one.",
)
@batches_option
@click.option("--blocks", type=click.IntRange(min=1), default=8, show_default=True, help="Blocks of doubling length.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Orders of the examples.")
@click.option("--steps", type=click.IntRange(min=1), default=2000, show_default=True, help="Most steps of a training.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Examples a step.")
@click.option(
    "--learning-rate",
    type=float,
    help="Of Adam, for plain modules; a LightningModule brings its own optimizer.  [default: 0.001]",
)
@click.option(
    "--smoothing",
    type=float,
    default=0.0,
    show_default=True,
    help="Mix predictions with so much of the uniform distribution: bounds what one label can cost.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with null for what is no finite number.")
def command(checkpoint: Path | None, model: Any, data: Any, as_json: bool, **options: Any) -> None:
    """Measure how many bits describe the labels of a data set: few where a model learns their rule.

    Prequential: the labels are sent block by block, each by the model trained on the blocks before it, from new
    weights and in several random orders. With a CHECKPOINT (or a run file with recorded weights), also in two parts:
    its weights, rounded and coded, and the labels under what they decode to. What --model and --data name is written
    package.module:name or file.py:name.
    """  # noqa: DOC501 - this text is what --help prints
    try:
        orders, parts = _measure(checkpoint, model, data, options)
    except ValueError as error:  # a smoothing, a learning rate: what the user gave
        raise LandscapeError(str(error)) from error
    except (RuntimeError, TypeError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else "no reason given"
        raise LandscapeError(
            f"training or evaluating the model failed, {type(error).__name__}: {reason}; check that the model takes "
            "the batches that --data gives"
        ) from error
    if as_json:
        found = {"prequential": _lists(orders), "two_part": None if parts is None else _lists(parts)}
        say_json(found)
    else:
        _print(orders, parts)


def _measure(checkpoint: Path | None, model: Any, data: Any, options: dict[str, Any]) -> tuple[Orders, TwoPart | None]:
    make = model_maker(model, checkpoint)
    with seeded(0):  # a loader that shuffles must not make another code of it
        batches = read_batches(data, options["batches"])
        first = make()
    training: Any = AdamTraining
    settings = {"steps": options["steps"], "batch_size": options["batch_size"]}
    if lightning_namespace(first) is not None:
        training = LightningTraining
        if options["learning_rate"] is not None:
            raise click.UsageError(
                f"--learning-rate is of Adam, which trains plain modules; {type(first).__name__} is a LightningModule "
                "and has its own configure_optimizers: set the learning rate there"
            )
    elif options["learning_rate"] is not None:
        settings["learning_rate"] = options["learning_rate"]
    parts = None
    if checkpoint is not None:
        parts = two_part(make_objective(build_model(model, checkpoint), None, batches))
    orders = prequential_orders(
        make,
        batches,
        training(**settings),
        seeds=range(options["seeds"]),
        blocks=options["blocks"],
        smoothing=options["smoothing"],
    )
    return orders, parts


def _lists(result: Result) -> dict[str, Any]:
    return {name: getattr(value, "tolist", lambda v=value: v)() for name, value in result.to_dict().items()}


def _print(orders: Orders, parts: TwoPart | None) -> None:
    out = console()
    table = _table("code", "bits", "bits a label", "of the uniform code")

    def add(name: str, bits: float, stderr: float = 0.0) -> None:
        columns = (1.0, 1 / orders.n_labels, 1 / orders.uniform_bits if orders.uniform_bits else float("nan"))
        table.add_row(name, *(_number(bits * factor, stderr * factor) for factor in columns))

    add("uniform", orders.uniform_bits)
    for seed, length in zip(orders.seeds, orders.lengths, strict=True):
        add(f"prequential, seed {seed}", float(length))
    add("prequential, mean", orders.bits, orders.stderr)
    if parts is not None:
        add("two parts", parts.bits)
    out.print(table)
    out.print(f"{orders.n_labels} labels of {orders.classes} classes; ± standard errors over orders.")
    blocks = _table("examples sent before", "examples sent after", "bits a label")
    ends = orders.block_ends.tolist()
    each = orders.block_bits.sum(axis=0) / np.maximum(orders.block_labels.sum(axis=0), 1)
    for start, stop, bits in zip([0, *ends[:-1]], ends, each, strict=True):
        blocks.add_row(str(start), str(stop), f"{bits:.3g}")
    out.print(blocks)
    if parts is not None:
        _print_parts(out, parts)


def _print_parts(out: Console, parts: TwoPart) -> None:
    table = _table("loss may rise by", "bits of the weights", "bits of the labels", "sum")
    for row in zip(parts.tolerances, parts.curve_code_bits, parts.curve_label_bits, parts.curve_bits, strict=True):
        table.add_row(f"{row[0]:g}", *(f"{value:.0f}" for value in row[1:]))
    out.print(table)
    out.print(f"Two parts: {parts.family}; shortest where the loss may rise by {parts.tolerance:g} nats a label.")
    if parts.assumption:
        out.print(f"Assumed: {parts.assumption}.")


def _number(value: float, stderr: float) -> str:
    if stderr > 0 or abs(value) < 1e3:
        return with_error(value, stderr).replace(" ", "\N{NO-BREAK SPACE}")
    return f"{value:.0f}"


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, title in enumerate(titles):
        table.add_column(title, justify="right" if index or title != "code" else "left")
    return table
