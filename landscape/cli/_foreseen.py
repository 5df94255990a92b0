"""Turn errors that no check foresaw into one sentence about the files that a command reads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from landscape._errors import FileError, LandscapeError, brief

_TRACEBACK = "LANDSCAPE_TRACEBACK"


@contextlib.contextmanager
def of_files(paths: Sequence[Path]) -> Iterator[None]:
    """Raise a FileError instead of any error that no check foresaw; LANDSCAPE_TRACEBACK=1 keeps the original error.

    The structure of a file is checked when it is opened. Its numbers and settings may still be ones that no measure
    writes. pandas and matplotlib may raise any error on those.

    Args:
        paths: The files that the command reads.

    Yields:
        Nothing.

    Raises:
        FileError: Instead of any error that is not meant for the user.
    """  # noqa: DOC501 - errors with a sentence of their own pass
    try:
        yield
    except (LandscapeError, click.ClickException, click.exceptions.Exit, click.Abort, OSError):
        raise
    except Exception as error:
        if os.environ.get(_TRACEBACK):
            raise
        named = str(paths[0]) if len(paths) == 1 else f"One of {len(paths)} files, {paths[0]} the first,"
        raise FileError(
            f"{named} holds what this command does not expect ({brief(error)}). If the toolkit wrote it, "
            f"this is a fault of the toolkit: {_TRACEBACK}=1 shows where."
        ) from error
