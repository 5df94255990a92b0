"""Take the parts of a row one by one, so that a part that fails leaves the others standing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from landscape._distributed import ALONE, Processes
from landscape._errors import MeasurementError, SurrogateError
from landscape.callbacks._failing import sentence
from landscape.record import REASON_BYTES, STATUS

_LEAST = 40  # bytes that every reason keeps, however many there are


class Parts:
    """One row, taken in parts that may fail alone.

    Args:
        processes: The processes that measure together: a part that fails in one fails in all.
        raising: Whether the first failure is raised instead of recorded.
        model: Class of the measured model, for the reasons.

    Attributes:
        row: What was measured so far, by variable name.
    """

    def __init__(self, processes: Processes = ALONE, raising: bool = False, model: str = ""):
        self.row: dict[str, Any] = {}
        self._processes = processes
        self._raising = raising
        self._model = model
        self._failed: dict[str, Exception] = {}
        self._taken = 0

    def take(self, name: str, measure: Callable[[], Mapping[str, Any]]) -> bool:
        """Take one part into the row.

        Args:
            name: What the reason calls it.
            measure: Returns the part's values by variable name.

        Returns:
            Whether it succeeded.
        """
        try:
            with self._processes.together():
                found = dict(measure())
        except Exception as error:
            if self._raising:
                raise
            self._failed[name] = error
            return False
        self.row |= found
        self._taken += 1
        return True

    def result(self) -> dict[str, Any]:
        """Return the row, with status and reason where a part failed.

        Returns:
            The row. Its `status` is absent where all parts succeeded.

        Raises:
            MeasurementError: No part succeeded.
        """
        if not self._failed:
            return self.row
        surrogate = any(isinstance(error, SurrogateError) for error in self._failed.values())
        if not self._taken:
            errors = list(self._failed.values())
            if len({sentence(error, self._model) for error in errors}) == 1:
                raise errors[0]
            raise (SurrogateError if surrogate else MeasurementError)(self._reason())
        return self.row | {
            "status": STATUS.index("surrogate" if surrogate else "partial"),
            "reason": self._reason(),
        }

    def _reason(self) -> str:
        named: dict[str, list[str]] = {}
        for name, error in self._failed.items():
            named.setdefault(sentence(error, self._model), []).append(name)
        return joined({", ".join(names): text for text, names in named.items()})


def joined(reasons: Mapping[str, str], size: int = REASON_BYTES) -> str:
    """Join the reasons of several parts into one text that the file has room for.

    Args:
        reasons: Reason by the name of the part, or of the parts that share it.
        size: Most bytes of the text in UTF-8. Where the reasons are longer, each is cut to an equal share, and what
            short ones leave over goes to the others.

    Returns:
        "name: reason; name: reason".
    """
    texts = [f"{name}: {reason}" for name, reason in reasons.items()]
    room = size - 2 * (len(texts) - 1)
    kept = dict.fromkeys(range(len(texts)), "")
    waiting = sorted(range(len(texts)), key=lambda index: len(texts[index].encode()))
    while waiting:
        share = max(room // len(waiting), _LEAST)
        index = waiting.pop(0)
        kept[index] = _shortened(texts[index], share)
        room -= len(kept[index].encode())
    return "; ".join(kept.values())


def _shortened(text: str, size: int) -> str:
    """Cut a text to so many bytes, between words, with an ellipsis."""
    if len(text.encode()) <= size:
        return text
    cut = text.encode()[: size - 3].decode(errors="ignore")
    words = cut.rsplit(" ", 1)[0]
    return (words if len(words) > len(cut) // 2 else cut).rstrip(" ,;:") + "..."
