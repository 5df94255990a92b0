"""`landscape plan`: what the callbacks would cost in a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from landscape.callbacks import default_callbacks
from landscape.callbacks._plan import plan
from landscape.cli._options import batches_option, data_option, held_out_option, loss_option, model_option
from landscape.cli._output import say, say_json
from landscape.cli._targets import make_objective, model_maker, read_batches

_EXAMPLE = (
    "\b\nExample:\n  landscape plan --model project.net:LitNet --data project.data:DigitsData --epochs 30\n"
    "  landscape plan --model net.py:LitNet --data net.py:loader --overhead 10% --json"
)


@click.command("plan", epilog=_EXAMPLE)
@model_option
@data_option
@held_out_option
@loss_option
@batches_option
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="Checkpoint or run file whose hyper-parameters a LightningModule class is called with.",
)
@click.option("--epochs", type=click.IntRange(min=1), default=1, show_default=True, help="Epochs of the training.")
@click.option("--examples", type=click.IntRange(min=1), default=1024, show_default=True, help="Measured examples.")
@click.option("--overhead", help="Share of the training's time to keep, such as 10%.  [default: as asked]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    model: Any, data: Any, epochs: int, examples: int, overhead: str | None, as_json: bool, **given: Any
) -> None:
    """Print what default_callbacks() would cost in a training: products, seconds and memory.

    The model is made anew and not trained. One batch is timed, in about 12 gradients.
    """  # noqa: DOC501 - this text is what --help prints
    train = read_batches(data, given["batches"])
    held = None if given["held_out"] is None else read_batches(given["held_out"], given["batches"])
    objective = make_objective(model_maker(model, given["weights"])(), given["loss"], train)
    try:
        callbacks = default_callbacks(overhead=overhead, examples=examples)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--overhead") from error
    found = plan(objective, callbacks, held_out=held, epochs=epochs, examples_per_epoch=objective.n_examples)
    if as_json:
        say_json(_plain(found))
    else:
        say(found)


def _plain(found: Any) -> dict[str, Any]:
    return found.to_dict() | {"rows": [row.to_dict() for row in found.rows], "total": found.total}
