"""Turn a failure of a callback into one warning, and its error into a sentence; the training goes on."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from landscape._errors import LandscapeError, SurrogateError, words_of
from landscape.callbacks._advice import advice
from landscape.record import STATUS


class Failures:
    """Lets failures of one callback pass with a single warning, or through where they shall raise.

    Args:
        owner: Name of the callback, for the warning.
        raising: Whether a failure is raised instead.
    """

    def __init__(self, owner: str, raising: bool):
        self._owner = owner
        self.raising = raising
        self._warned = False

    def warn(self, message: str) -> None:
        """Warn, the first time only."""
        if not self._warned:
            self._warned = True
            warnings.warn(f"{self._owner} {message}", stacklevel=2)

    def renew(self) -> None:
        """Begin another training, which is warned about anew."""
        self._warned = False

    @contextlib.contextmanager
    def passing(self, action: str) -> Iterator[None]:
        """Let an exception pass with a warning that the action failed, unless failures shall raise.

        Yields:
            Nothing.
        """
        try:
            yield
        except Exception as error:
            if self.raising:
                raise
            self.warn(f"could not {action}: {sentence(error).rstrip('.')}. The training goes on")

    @contextlib.contextmanager
    def ending(self, action: str) -> Iterator[None]:
        """Let every exception pass, and warn whatever was said before: what is lost now is lost for good.

        At the end of a training another exception may be on its way to the user.

        Yields:
            Nothing.
        """
        try:
            yield
        except Exception as error:
            self.renew()
            with contextlib.suppress(Warning):  # where the user turns warnings into errors
                self.warn(f"could not {action}: {sentence(error)}")


def sentence(error: BaseException, model: str = "") -> str:
    """Say in one line what went wrong.

    Args:
        error: The error. The toolkit's own are sentences already; before others stands what to do about them.
        model: Class of the measured model, where a measure raised the error.

    Returns:
        The sentence. An error that is not the toolkit's own stands behind it by class and message.
    """
    text = " ".join(words_of(error).split()) or "no message"
    if isinstance(error, LandscapeError):
        return text
    raw = f"{type(error).__name__}: {text}"
    cure = advice(error, text, model)
    return f"{cure} ({raw})" if cure else raw


def failed_status(error: Exception, reason: str) -> dict[str, Any]:
    """Return status and reason of a row that failed altogether."""
    name = "surrogate" if isinstance(error, SurrogateError) else "failed"
    return {"status": STATUS.index(name), "reason": reason}
