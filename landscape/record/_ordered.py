"""Writes that HDF5 makes, held back and then made in an order in which a kill after any of them does no harm.

HDF5 writes its changed metadata by address. Killed in the middle, it leaves an index node that points behind the
recorded end of the file, or a split whose parent is written and whose children are not: rows that were complete
can then no longer be read. So an append goes through this file object (h5py accepts any): it keeps what HDF5
writes in memory, and `commit` writes

1. what lies behind the old end of the file: new chunks and new nodes, to which nothing points yet;
2. the superblock, which tells the new end;
3. the nodes of chunk indices, parents before children: a parent that already points to the new half of a node
   that is still whole finds everything, the reverse loses the new half;
4. everything else from the end to the start, so that data comes before the header that makes it visible.

Large pieces of the first kind are not kept but written at once: nothing points to them before the commit, and a copy in
memory would cost as much as the write. Each write changes one such piece, and the file is whole after each.
"""

from __future__ import annotations

import bisect
import io

# Where the superblock tells its version and (in version 0, which the default library version writes) the file's end.
_VERSION, _EOF_ADDRESS = 8, slice(40, 48)
_NODE, _LEVEL = b"TREE", 5  # signature of an index node, and where it tells its level (0 for a leaf)

_LARGE = 1024**2  # bytes that are worth not copying

ALIGNMENT = {"alignment_threshold": 2048, "alignment_interval": 4096}
"""Options of h5py.File that keep an index node within one memory page, which the kernel writes in one piece."""


class OrderedFile(io.RawIOBase):
    """An open file whose writes wait for `commit`.

    Args:
        file: The file, open for reading and writing, unbuffered.
    """

    def __init__(self, file: io.FileIO) -> None:
        super().__init__()
        self._file = file
        self._position = 0
        self._writes: dict[int, bytes] = {}  # by offset; no two of them overlap
        self._offsets: list[int] = []  # of the writes, in ascending order
        self._size = file.seek(0, io.SEEK_END)
        file.seek(0)
        head = file.read(_EOF_ADDRESS.stop)
        # A file that some other tool has rewritten may have another superblock; its end is the file's end.
        version_0 = len(head) == _EOF_ADDRESS.stop and head[_VERSION] == 0
        self._fresh = int.from_bytes(head[_EOF_ADDRESS], "little") if version_0 else self._size
        self._end = self._size  # of the file as it was at the last commit
        self._refused: OSError | None = None

    def commit(self) -> None:
        """Write what has been held back, in order.

        Raises:
            OSError: The system refused a write; the file is as whole as before.
        """
        fresh = {offset: data for offset, data in self._writes.items() if offset >= self._fresh}
        try:
            if self._refused is not None:
                raise self._refused
            for offset, data in fresh.items():
                self._write(offset, data)
            if self._size > self._file.seek(0, io.SEEK_END):
                self._file.truncate(self._size)
        except OSError:
            self._file.truncate(self._end)
            raise
        for offset in sorted(self._writes.keys() - fresh.keys(), key=self._rank):
            self._write(offset, self._writes[offset])
        if self._size < self._file.seek(0, io.SEEK_END):
            self._file.truncate(self._size)
        self._writes, self._offsets = {}, []
        self._end = self._file.seek(0, io.SEEK_END)

    def _rank(self, offset: int) -> tuple[int, int, int]:
        data = self._writes[offset]
        if offset == 0:
            return 0, 0, 0
        if data.startswith(_NODE):
            return 1, -data[_LEVEL], offset
        return 2, 0, -offset

    def _write(self, offset: int, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            self._file.seek(offset)
            written = self._file.write(view)
            offset, view = offset + written, view[written:]

    # What follows is the file object that HDF5 sees: the file as it will be after the commit.

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Return the position after moving to it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Return how many bytes from the position on were copied into the buffer."""
        start = self._position
        stop = min(start + len(buffer), self._size)
        data = bytearray(max(0, stop - start))
        self._file.seek(start)
        stored = self._file.read(len(data))
        data[: len(stored)] = stored
        for offset in self._held(start, stop):
            held = self._writes[offset]
            low, high = max(start, offset), min(stop, offset + len(held))
            data[low - start : high - start] = held[low - offset : high - offset]
        buffer[: len(data)] = data
        self._position = start + len(data)
        return len(data)

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        """Return the number of bytes, which are held back."""
        start, stop = self._position, self._position + len(data)
        if start == stop:
            return 0
        if len(data) >= _LARGE and start >= self._fresh and not self._held(start, stop):
            # HDF5 cannot be told now that the disk is full: the commit does.
            try:
                if self._refused is None:
                    self._write(start, data)
            except OSError as error:
                self._refused = error
            self._position, self._size = stop, max(self._size, stop)
            return len(data)
        new = bytes(data)
        overlapping = self._held(start, stop)
        if overlapping != [start]:
            at = bisect.bisect_left(self._offsets, overlapping[0] if overlapping else start)
            self._offsets[at : at + len(overlapping)] = [min([start, *overlapping])]
        for offset in overlapping:
            held = self._writes.pop(offset)
            before, after = held[: max(0, start - offset)], held[max(0, stop - offset) :]
            new, start, stop = before + new + after, min(start, offset), max(stop, offset + len(held))
        self._writes[start] = new
        self._position += len(data)
        self._size = max(self._size, self._position)
        return len(data)

    def _held(self, start: int, stop: int) -> list[int]:
        """Return the offsets of the writes that overlap with an interval, in ascending order."""
        first, end = (bisect.bisect_left(self._offsets, edge) for edge in (start, stop))
        if first and start < (before := self._offsets[first - 1]) + len(self._writes[before]):
            first -= 1
        return self._offsets[first:end]

    def truncate(self, size: int | None = None) -> int:
        """Return the length that the file will have, after setting it."""
        self._size = self._position if size is None else size
        return self._size

    def flush(self) -> None:
        """Do nothing: only `commit` writes."""

    def readable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True
