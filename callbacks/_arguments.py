"""Check the callbacks' arguments when a callback is made, not in the middle of a training."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, SequentialSampler

from landscape._given import check_batches as of_batches
from landscape._given import unknown_argument, whole


def at_least(least: float, **values: float | None) -> None:
    """Check numbers against a lower limit; None passes.

    Raises:
        ValueError: One is below it, or no number.
    """
    for name, value in values.items():
        _number(name, value)
        if value is not None and not value >= least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")


def counts(least: int, **values: int | None) -> None:
    """Check whole numbers against a lower limit; None passes.

    Raises:
        ValueError: One is below it, or no whole number.
    """
    whole(**values)
    at_least(least, **values)


def positive(**values: float | None) -> None:
    """Check that numbers are above zero; None passes.

    Raises:
        ValueError: One is not.
    """
    for name, value in values.items():
        _number(name, value)
        if value is not None and not value > 0:
            raise ValueError(f"{name} is {value}; it must be a positive number" + " or None" * (name in _OPTIONAL))


def whole_positive(**values: int | None) -> None:
    """Check that whole numbers are above zero; None passes.

    Raises:
        ValueError: One is not, or is no whole number.
    """
    whole(**values)
    positive(**values)


def seeds(**values: int | None) -> None:
    """Check seeds: whole numbers from 0 on; None passes.

    Raises:
        ValueError: One is negative or no whole number.
    """
    counts(0, **values)


def one_of(allowed: Sequence[str | None], **values: Any) -> None:
    """Check that values are among the allowed ones.

    Raises:
        ValueError: One is not.
    """
    for name, value in values.items():
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; it must be {' or '.join(map(repr, allowed))}")


def listed(**values: Any) -> None:
    """Check that arguments are lists, not single names or numbers.

    Raises:
        ValueError: One is a text, a number, or no iterable.
    """
    for name, value in values.items():
        single = getattr(value, "ndim", 1) == 0  # an array or tensor of one number
        if single or isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
            raise ValueError(f"{name} is {value!r}; give a list: {name}=[{value!r}]")


def check_path(path: str | Path | None) -> None:
    """Check that a run file is not asked for in the place of a folder.

    Raises:
        ValueError: The path is a folder.
    """
    if path is not None and Path(path).is_dir():
        raise ValueError(f"path={str(path)!r} is a folder; give a file in it, such as {Path(path) / 'landscape.h5'}")


def check_batches(batches: Any) -> None:
    """Check prepared measurement batches, which are read when the callback is made.

    Raises:
        TypeError: They are one batch or a data set.
        ValueError: They are a loader that shuffles, whose batches are other ones at every reading.
    """
    if batches is None:
        return
    of_batches(batches)
    if isinstance(batches, DataLoader) and not isinstance(batches.sampler, SequentialSampler):
        raise ValueError(
            "batches is a data loader that draws its examples at random, and reading it would change the training's "
            "random numbers; leave it out, as the callback draws from the training data by examples= and seed=, or "
            "give a list of batches"
        )


def accepted(cls: type) -> list[str]:
    """Return the names of all arguments that a callback's class takes, its own before those of its bases."""
    names: dict[str, None] = {}
    for base in cls.__mro__:
        if not hasattr(base, "default_every_n_epochs") or "__init__" not in vars(base):
            continue
        for name, parameter in list(inspect.signature(vars(base)["__init__"]).parameters.items())[1:]:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                names[name] = None
    return list(names)


def known_arguments(cls: type, unknown: Mapping[str, Any]) -> None:
    """Refuse arguments that no class of a callback takes.

    Raises:
        TypeError: There is one; the sentence says which name is probably meant.
    """
    if "budget" in unknown:
        raise TypeError("budget= of HessianSpectrum is now overhead= of every callback, for example overhead='5%'")
    for name in unknown:
        raise TypeError(unknown_argument(cls.__name__, name, accepted(cls)))


def _number(name: str, value: Any) -> None:
    if value is not None and (not isinstance(value, numbers.Real) or isinstance(value, bool)):
        raise ValueError(f"{name} is {value!r}; it must be a number")


_OPTIONAL = ("every_n_epochs", "every_n_steps", "examples", "batch_size")
