"""Rows that cannot be written just now: kept in memory, in their order, up to a bound."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator

from landscape.record._rows import Row, is_missing, owned

_MOST = 256 * 1024**2  # bytes


class WaitingRows:
    """A queue of rows.

    A row that does not fit beside those that wait is lost. The first one always fits. So small rows go on being kept
    when large ones are not.

    Attributes:
        lost: Rows that did not fit, by group.
    """

    def __init__(self) -> None:
        self.lost: Counter[str] = Counter()
        self._rows: deque[tuple[str, Row]] = deque()
        self._bytes = 0
        self._borrowed = False

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        return iter(self._rows)

    def add(self, group: str, row: Row) -> bool:
        """Take a row, whose arrays may be the caller's until `keep`.

        Args:
            group: Its group.
            row: The row.

        Returns:
            False where it is lost.
        """
        size = _bytes(row)
        if self._rows and self._bytes + size > _MOST:
            self.lost[group] += 1
            return False
        self._rows.append((group, row))
        self._bytes += size
        self._borrowed = True
        return True

    def keep(self) -> None:
        """Copy what the last row has borrowed, as it must not change with the caller's arrays while it waits."""
        if self._rows and self._borrowed:
            group, row = self._rows[-1]
            self._rows[-1] = group, owned(row)
        self._borrowed = False

    def first(self) -> tuple[str, Row]:
        """Return the row that is next."""
        return self._rows[0]

    def drop_first(self) -> None:
        """Forget the row that is next, which has been written."""
        _, row = self._rows.popleft()
        self._bytes -= _bytes(row)

    def clear(self) -> None:
        """Forget all rows, which have been written."""
        self._rows.clear()
        self._bytes = 0

    def by_group(self) -> Counter[str]:
        """Return how many rows wait, by group."""
        return Counter(group for group, _ in self._rows)


def _bytes(row: Row) -> int:
    return sum(array.itemsize if is_missing(array) else array.nbytes for array in row.values())


def in_words(rows: Counter[str]) -> str:
    """Return counts of rows in words: `3 rows (2 of sharpness, 1 of swa_trajectory)`, `2 rows of sharpness`."""
    count = rows.total()
    what = f"{count} row{'s' if count != 1 else ''}"
    if len(rows) == 1:
        return f"{what} of {next(iter(rows))}"
    return f"{what} ({', '.join(f'{number} of {group}' for group, number in sorted(rows.items()))})"
