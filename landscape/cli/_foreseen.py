"""Every command that reads files of others ends with a sentence, whatever the files hold."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from landscape._errors import FileError, LandscapeError

_TRACEBACK = "LANDSCAPE_TRACEBACK"
_LONGEST = 200  # characters of a raw reason


@contextlib.contextmanager
def of_files(paths: Sequence[Path]) -> Iterator[None]:
    """Turn what no check foresaw into a sentence about the files; LANDSCAPE_TRACEBACK=1 shows where it was raised.

    The structure of a file is checked when it is opened. Its numbers and settings may still be such as no measure
    writes, and pandas or matplotlib raise anything on those.

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
        reason = " ".join(str(error).split())[:_LONGEST]
        raise FileError(
            f"{named} holds what this command does not expect ({type(error).__name__}: {reason}). If the toolkit wrote "
            f"it, this is a fault of the toolkit: {_TRACEBACK}=1 shows where."
        ) from error
