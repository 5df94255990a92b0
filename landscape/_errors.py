"""The errors that the toolkit raises on purpose: each message is a sentence for the person who reads it."""

from __future__ import annotations


class LandscapeError(Exception):
    """Base of all errors that say what was found, what was expected, and what to do."""


class MeasurementError(LandscapeError):
    """A measure cannot be taken on this model, loss or data (a NaN loss, more eigenvalues than parameters, ...)."""


class SurrogateError(MeasurementError):
    """A derivative of this model is not that of its loss, so a measure that rests on it is refused."""


class WeightingWarning(UserWarning):
    """A loss is no mean over examples, so it is measured as the mean over the batches as they are given."""


class FileError(LandscapeError):
    """A run file is missing, damaged, of a newer schema, held by somebody else, or cannot be written."""


class OtherWriterError(FileError):
    """A run file is written by another training, or was exchanged for another file while this one wrote it."""


def words_of(error: BaseException) -> str:
    """Return an error's message; a sentence where the error's own `__str__` fails, as that of a user's class may."""
    try:
        return str(error)
    except Exception:
        return "no message that can be printed"


def brief(error: BaseException) -> str:
    """Return an error's kind and its message on one line, of 200 characters at most."""
    return f"{type(error).__name__}: {' '.join(words_of(error).split())[:200]}"
