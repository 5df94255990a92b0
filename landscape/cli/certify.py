"""`landscape certify`: a generalisation bound as a file, and its verification."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from torch import nn

from landscape._batches import n_examples
from landscape._errors import LandscapeError
from landscape._given import check_batches
from landscape.certificates import Certificate, best_of, certify, read, train_subspace, verify
from landscape.certificates._examples import examples_fingerprint, require_draws, require_whole
from landscape.cli._options import loss_option, model_option
from landscape.cli._output import say, say_json
from landscape.cli._targets import Target, build_model, call, constructor_settings, read_batches, stored

_EXAMPLE = (
    "\b\nExample:\n"
    "  landscape certify model.ckpt --model net.py:LitNet --data data.py:train --out model.lsc\n"
    "  landscape certify --train subspace --model net.py:Net --data data.py:train --out model.lsc\n"
    "  landscape certify --verify model.lsc --model net.py:LitNet --data data.py:train"
)


class _Choices(click.ParamType):
    """`name=K,name=K`."""

    name = "name=K,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, int]:
        if isinstance(value, dict):
            return value
        pairs = [pair.partition("=") for pair in str(value).split(",")]
        try:
            counts = {name.strip(): int(count) for name, _, count in pairs}
        except ValueError:
            self.fail(f"{value!r} is not of the form checkpoint=20,lr=3", param, ctx)
        if len(counts) < len(pairs) or "" in counts:
            self.fail(f"{value!r} names a choice twice, or not at all", param, ctx)
        return counts


@click.command("certify", epilog=_EXAMPLE)
@click.argument("checkpoint", type=click.Path(path_type=Path), metavar="[CHECKPOINT]", required=False)
@model_option
@click.option(
    "--data",
    type=Target(),
    required=True,
    help="The examples: batches, a DataLoader, a LightningDataModule, or what makes one.",
)
@click.option(
    "--verify", "claim", type=click.Path(path_type=Path), help="Verify this certificate; exit 0 for yes, 1 for no."
)
@click.option(
    "--train",
    type=click.Choice(["subspace", "grid"]),
    help="Train few bits: a random subspace, or all weights on a grid.",
)
@click.option(
    "--dimension",
    type=int,
    multiple=True,
    help="Of the subspace; given K times: the best, charged log2 K.  [default: 200]",
)
@click.option("--levels", type=int, default=7, show_default=True, help="Levels of a trained coordinate, odd.")
@click.option(
    "--start",
    type=click.Choice(["initial", "zero"]),
    default="initial",
    show_default=True,
    help="Where training starts.",
)
@click.option(
    "--taps",
    type=int,
    help="Coordinates that each weight hears, for large networks.  [default: all, or 8 beyond 2^26 signs]",
)
@click.option("--epochs", type=int, default=60, show_default=True, help="Epochs of the training.")
@click.option("--batch-size", type=int, default=100, show_default=True, help="Its examples a step.")
@click.option("--learning-rate", type=float, default=0.05, show_default=True, help="Its first learning rate (Adam).")
@click.option("--length-weight", type=float, default=0.3, show_default=True, help="Weight of the code's length in it.")
@click.option("--family", default="uniform-tensor", show_default=True, help="Code of a checkpoint's weights.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Of the construction and the subspace.",
)
@loss_option
@click.option("--delta", type=float, default=0.05, show_default=True, help="Probability of failure.")
@click.option(
    "--method",
    type=click.Choice(["kl", "exact", "hoeffding", "catoni"]),
    default="kl",
    show_default=True,
    help="Inequality.",
)
@click.option(
    "--choices", type=_Choices(), default={}, help="What was chosen by looking at the examples, as checkpoint=20,lr=3."
)
@click.option(
    "--repeats-are-draws",
    is_flag=True,
    help="Examples that are equal to others were drawn so. By default they are refused: copies are no draws.",
)
@click.option("--out", "-o", type=click.Path(path_type=Path), help="Certificate to write, by custom .lsc.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(checkpoint: Path | None, claim: Path | None, as_json: bool, **options: Any) -> None:
    """Bound the error rate on new examples of a network that is coded in few bits, or verify such a bound.

    The network is that of CHECKPOINT (a Lightning checkpoint, a saved state dict, or a run file with recorded weights),
    coded after training, or with --train one that is trained to take few bits. --data must be all the examples that
    the bound is of, each once. What --model, --data and --loss name is written package.module:name or file.py:name.
    """  # noqa: DOC501 - this text is what --help prints
    if claim is not None and not _given() <= {"claim", "model", "data", "loss", "as_json"}:
        raise click.UsageError("--verify takes --model, --data, --loss and --json only")
    if claim is None and options["train"] != "subspace" and options["dimension"]:
        raise click.UsageError("--dimension belongs to --train subspace")
    if claim is None and checkpoint is None and options["train"] is None:
        raise click.UsageError("give a CHECKPOINT, or --train, or a certificate to --verify")
    try:
        if claim is not None:
            _verify(claim, as_json, options)
        else:
            _certify(checkpoint, as_json, options)
    except ValueError as error:  # δ, a number of levels: what the user gave
        raise LandscapeError(str(error)) from error


def _given() -> set[str]:
    """Return the names of what the user has written on the command line."""
    context = click.get_current_context()
    return {name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}


def _verify(path: Path, as_json: bool, options: dict[str, Any]) -> None:
    settings = read(path).architecture["settings"]
    architecture = _architecture(options["model"], constructor_settings(options["model"], settings))
    verdict = verify(path, architecture, read_batches(options["data"]), loss_fn=options["loss"])
    if as_json:
        say_json(verdict.to_dict())
    elif verdict.valid and verdict.certificate is not None:
        say(f"{verdict}.\n{verdict.certificate.statement()}")
    else:
        say(f"{verdict}.")
    click.get_current_context().exit(0 if verdict.valid else 1)


def _certify(checkpoint: Path | None, as_json: bool, options: dict[str, Any]) -> None:
    settings = constructor_settings(options["model"], {} if checkpoint is None else stored(checkpoint)[1])
    _require_plain(settings)
    architecture = _architecture(options["model"], settings)
    batches = read_batches(options["data"], check=_every_example)
    given = {"architecture": architecture, "settings": settings, "loss_fn": options["loss"]}
    given |= {name: options[name] for name in ("delta", "method", "choices", "repeats_are_draws")}
    if options["train"]:
        certificate = _train(architecture, batches, given, options)
    else:
        assert checkpoint is not None  # checked by the command
        model = build_model(options["model"], checkpoint)
        certificate = certify(model, batches, family=options["family"], seed=options["seed"], **given)
    if options["out"] is not None:
        certificate.save(options["out"])
    if as_json:
        say_json(certificate.to_dict())
        return
    say(certificate.statement())
    if options["out"] is not None:
        say(f"Written: {options['out']}")


def _every_example(data: Any) -> None:
    check_batches(data)
    require_whole(data)


def _train(
    architecture: Callable[[], nn.Module], batches: list[Any], given: dict[str, Any], options: dict[str, Any]
) -> Certificate:
    if not options["repeats_are_draws"]:  # said before a long training, not after it
        require_draws(examples_fingerprint(batches), sum(n_examples(batch) for batch in batches))
    names = ("levels", "start", "taps", "epochs", "batch_size", "learning_rate", "length_weight", "seed", "delta")
    training = {name: options[name] for name in names} | {"loss_fn": options["loss"]}
    dimensions = (None,) if options["train"] == "grid" else options["dimension"] or (200,)
    found = [
        certify(train_subspace(architecture, batches, dimension=dimension, **training), batches, **given)
        for dimension in dimensions
    ]
    return best_of(found, "dimension") if len(found) > 1 else found[0]


def _architecture(target: Any, settings: dict[str, Any]) -> Callable[[], nn.Module]:
    return functools.partial(call, target, settings, "the model")


def _require_plain(settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        try:
            plain = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError):
            plain = None
        if plain != value:
            raise LandscapeError(
                f"the hyper-parameter {name!r} is {value!r}, which a certificate cannot hold as JSON; name a function "
                "that builds the model without arguments as --model"
            )
