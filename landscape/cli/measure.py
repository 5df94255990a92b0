"""`landscape measure`: the callbacks' measures over saved checkpoints, into a run file."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import click
from torch import nn
from tqdm import tqdm

from landscape._errors import LandscapeError
from landscape.callbacks import Compressibility, HessianSpectrum, LandscapeCallback, LearningCoefficient, Sharpness
from landscape.callbacks._offline import record_saved
from landscape.cli._options import batches_option, data_option, held_out_option, loss_option, model_option
from landscape.cli._output import say
from landscape.cli._saved import load, positions
from landscape.cli._targets import make_objective, read_batches
from landscape.objective import Objective

_MEASURES: dict[str, type[LandscapeCallback]] = {
    "spectrum": HessianSpectrum,
    "sharpness": Sharpness,
    "bits": Compressibility,
    "learning-coefficient": LearningCoefficient,
}
_OF_TRAININGS = ("every_n_epochs", "every_n_steps", "overhead", "common")  # settings that say when, not what
_EXAMPLE = (
    "\b\nExample:\n"
    "  landscape measure epoch=*.ckpt --model project.net:LitNet --data project.data:DigitsData --out measured.h5\n"
    "  landscape measure run.h5 --model net.py:LitNet --data net.py:loader --measure bits --out bits.h5\n"
    "  landscape measure a.pt --model net.py:make --data net.py:batches --set spectrum.k=20 --out a.h5"
)


@click.command("measure", epilog=_EXAMPLE)
@click.argument("weights", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="WEIGHTS...")
@model_option
@data_option
@held_out_option
@loss_option
@batches_option
@click.option(
    "--measure",
    "measures",
    multiple=True,
    type=click.Choice(list(_MEASURES)),
    help="What to measure; may be given several times.  [default: spectrum, sharpness, bits]",
)
@click.option("--set", "settings", multiple=True, metavar="MEASURE.NAME=VALUE", help="A setting of a measure, as JSON.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything drawn.")
@click.option(
    "--out", "-o", type=click.Path(path_type=Path), required=True, help="Run file to write; it must not exist."
)
def command(
    weights: tuple[Path, ...], model: Any, data: Any, measures: tuple[str, ...], out: Path, **options: Any
) -> None:
    """Measure saved weights as the callbacks measure a training, and write a run file.

    WEIGHTS are Lightning checkpoints, saved state dicts, or run files, of which every recorded snapshot is measured.
    What --model, --data, --loss and --held-out name is written package.module:name or file.py:name.
    """  # noqa: DOC501 - this text is what --help prints
    callbacks = _callbacks(measures or ("spectrum", "sharpness", "bits"), options["settings"], options["seed"])
    places = positions(weights)
    train = read_batches(data, options["batches"])
    held = None if options["held_out"] is None else read_batches(options["held_out"], options["batches"])

    def objectives(built: nn.Module) -> tuple[Objective, Objective | None]:
        objective = make_objective(built, options["loss"], train)
        return objective, None if held is None else objective.restrict(held)

    sources = {"weights": [str(path) for path in weights], "command": "landscape measure"}
    messages, nothing = [], 0
    with tqdm(total=len(places), unit="checkpoint", disable=None, leave=False) as bar:
        for saved, failures in record_saved(out, callbacks, load(model, places), objectives, sources):
            bar.update()
            for group, (status, why) in failures.items():
                nothing += status == "failed"
                start = "Not measured" if status == "failed" else "Measured in part"
                messages.append(f"{start}: {group} of {saved.source} (step {saved.step}): {why}")
    for message in messages:
        say(message, err=True)
    say(out)
    if nothing == len(places) * len(callbacks):
        raise LandscapeError("nothing could be measured; the rows are recorded as failed")


def _callbacks(measures: tuple[str, ...], settings: tuple[str, ...], seed: int) -> list[LandscapeCallback]:
    given: dict[str, dict[str, Any]] = {name: {"seed": seed} for name in measures}
    for text in settings:
        where, equals, value = text.partition("=")
        measure, dot, name = where.partition(".")
        if not (equals and dot and name):
            raise click.BadParameter(f"{text!r} is not of the form MEASURE.NAME=VALUE", param_hint="--set")
        if measure not in given:
            raise click.BadParameter(
                f"{measure!r} is not among what is measured: {', '.join(given)}", param_hint="--set"
            )
        known = [each for each in inspect.signature(_MEASURES[measure]).parameters if each not in _OF_TRAININGS]
        if name not in known:
            raise click.BadParameter(
                f"{measure} has no setting {name!r}; it has: {', '.join(known)}", param_hint="--set"
            )
        try:
            given[measure][name] = json.loads(value)
        except json.JSONDecodeError:
            given[measure][name] = value
    try:
        return [_MEASURES[name](**arguments) for name, arguments in given.items()]
    except (TypeError, ValueError) as error:
        raise click.BadParameter(str(error), param_hint="--set") from error
