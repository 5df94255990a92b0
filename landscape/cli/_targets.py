"""What a user names on the command line as `package.module:name`: models, data, losses."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import torch.nn.functional as F  # noqa: N812
from torch import nn

from landscape._errors import LandscapeError
from landscape._given import check_batches
from landscape.callbacks._weights_file import load_checkpoint
from landscape.cli._loading import load_into
from landscape.objective import Objective
from landscape.record import open_run

RUN_SUFFIXES = (".h5", ".hdf5", ".nc")


class Target(click.ParamType):
    """`package.module:name` or `path/to/file.py:name`, where name may be dotted; the working folder is on the path."""

    name = "target"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Import what is named.

        Returns:
            The object.
        """
        if not isinstance(value, str):
            return value
        where, _, name = value.rpartition(":")
        if not where or not name:
            self.fail(f"{value!r} is not of the form package.module:name or file.py:name", param, ctx)
        try:
            found: Any = _from_file(Path(where)) if where.endswith(".py") else _from_module(where)
        except (ImportError, OSError) as error:
            self.fail(f"{where} cannot be imported: {error}", param, ctx)
        except Exception as error:  # whatever the user's own module raises
            self.fail(f"{where} cannot be imported: {type(error).__name__}: {error}", param, ctx)
        for part in name.split("."):
            if not hasattr(found, part):
                self.fail(f"{where} has no {part!r}", param, ctx)
            found = getattr(found, part)
        return found


def build_model(target: Any, path: Path) -> nn.Module:
    """Build a model and load the weights of a checkpoint into it.

    Args:
        target: A LightningModule class, which is called with the hyper-parameters that the checkpoint holds, or
            anything that returns a module when it is called without arguments.
        path: A Lightning checkpoint, a saved state dict, or a run file with a recorded SWATrajectory.

    Returns:
        The model, on the CPU.

    Raises:
        LandscapeError: The model cannot be built, or the weights do not fit it.
    """
    tensors, settings = stored(path)
    model = _new_model(target, settings)
    load_into(model, tensors, path)
    return model.cpu()


def stored(path: Path) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Return what a checkpoint or a run file holds.

    Args:
        path: A Lightning checkpoint, a saved state dict, or a run file with a recorded SWATrajectory.

    Returns:
        The tensors by name (the last recorded ones of a run), and the hyper-parameters.
    """
    if path.suffix in RUN_SUFFIXES:
        run = open_run(path)
        return run.state_dict(), dict(run.attributes.get("hyper_parameters") or {})
    return load_checkpoint(path)


def constructor_settings(target: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stored hyper-parameters that a LightningModule class is called with; none for anything else.

    Args:
        target: What the user named as model.
        settings: The hyper-parameters.

    Returns:
        Keyword arguments.
    """
    with_settings = inspect.isclass(target) and hasattr(target, "load_from_checkpoint")
    return _accepted(target, settings) if with_settings else {}


def model_maker(target: Any, path: Path | None = None) -> Callable[[], nn.Module]:
    """Return what makes a new, untrained model at each call.

    Args:
        target: As in `build_model`.
        path: A checkpoint or run file whose hyper-parameters a LightningModule class is called with; its weights are
            not taken.

    Returns:
        A function without arguments, which raises a LandscapeError where the model cannot be built.
    """
    settings = {} if path is None else stored(path)[1]
    return lambda: _new_model(target, settings)


def read_batches(target: Any, count: int | None = None, check: Callable[[Any], None] = check_batches) -> list[Any]:
    """Return batches of what a user names as data.

    Args:
        target: Batches, a DataLoader or a LightningDataModule, or something that returns one when it is called.
        count: Number of batches to take; by default all.
        check: Raises where the data cannot be read as batches; by default for one batch or a data set.

    Returns:
        The batches.

    Raises:
        LandscapeError: There are none, or the data are no batches.
    """
    source = call(target, {}, "the data") if callable(target) and not isinstance(target, Iterable) else target
    if hasattr(source, "train_dataloader") and hasattr(source, "setup"):
        source.prepare_data()
        source.setup("fit")
        source = source.train_dataloader()
    if not isinstance(source, Iterable):
        raise LandscapeError(
            f"--data must name batches, a DataLoader or a LightningDataModule, or something that returns one; it gave "
            f"{type(source).__name__}"
        )
    try:
        check(source)
    except TypeError as error:
        raise LandscapeError(f"--data: {error}") from None
    batches = list(itertools.islice(source, count))
    if not batches:
        raise LandscapeError("the data hold no batches; give at least one batch of examples")
    return batches


def make_objective(model: nn.Module, loss: Any, batches: list[Any]) -> Objective:
    """Make the objective of a model: by its own training_step where no loss is named and it has one.

    Args:
        model: The model.
        loss: A loss function of (output, target), a class of such, or None.
        batches: The batches.

    Returns:
        The objective.

    Raises:
        LandscapeError: The model and the data do not fit.
    """
    made = loss() if isinstance(loss, type) else loss  # a class such as torch.nn.CrossEntropyLoss: with its defaults
    try:
        if loss is None and hasattr(model, "training_step"):
            return Objective.from_lightning(model, batches)
        return Objective(model, F.cross_entropy if made is None else made, batches)
    except LandscapeError:
        raise
    except Exception as error:  # whatever a model raises on examples that are not for it
        reason = str(error).splitlines()[0] if str(error) else "no reason given"
        raise LandscapeError(
            f"{type(model).__name__} cannot be evaluated on these examples ({type(error).__name__}: {reason}); check "
            "that the model and the loss take the batches that --data gives"
        ) from error


def call(target: Callable[..., Any], settings: Mapping[str, Any], what: str) -> Any:
    """Call what the user named; whatever it raises becomes a sentence.

    Args:
        target: What to call.
        settings: Keyword arguments.
        what: What it makes, for the sentence.

    Returns:
        What it returns.

    Raises:
        LandscapeError: It raised, or is nothing to call.
    """
    try:
        return target(**settings)
    except LandscapeError:
        raise
    except Exception as error:
        name = getattr(target, "__name__", repr(target))
        raise LandscapeError(f"{what} could not be made by {name}: {type(error).__name__}: {error}") from error


def _new_model(target: Any, settings: Mapping[str, Any]) -> nn.Module:
    model = call(target, constructor_settings(target, settings), "the model")
    if not isinstance(model, nn.Module):
        raise LandscapeError(
            f"--model must name a LightningModule class or something that returns a module when called; it gave "
            f"{type(model).__name__}"
        )
    return model


def _accepted(target: Callable[..., Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyper-parameters that are arguments: a checkpoint may hold more, such as the command line's own."""
    parameters = inspect.signature(target).parameters.values()
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    names = {parameter.name for parameter in parameters}
    return {name: value for name, value in settings.items() if name in names or (anything and not name.startswith("_"))}


def _from_module(name: str) -> Any:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(name)


def _from_file(path: Path) -> Any:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
