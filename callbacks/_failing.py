"""What happens when recording fails: one warning, and the training goes on."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from landscape._errors import LandscapeError


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
        """Let every exception pass: at the end of a training another one may be on its way to the user.

        Yields:
            Nothing.
        """
        try:
            yield
        except Exception as error:
            with contextlib.suppress(Warning):  # where the user turns warnings into errors
                self.warn(f"could not {action}: {sentence(error)}")


def sentence(error: Exception) -> str:
    """Say what went wrong in one line; errors that are not the toolkit's own are named by their class."""
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, LandscapeError) else f"{type(error).__name__}: {text}"
