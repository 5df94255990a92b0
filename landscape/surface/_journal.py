"""Evaluated points of a grid on disk, so that a surface that was interrupted goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from landscape._errors import FileError

_FORMAT = "landscape surface points 1"


class Journal:
    """A text file: a line that says which surface it is of, then a line "i j loss error" for every point.

    A line counts once its end is written, so a kill at any moment loses the point in work at most.

    Args:
        path: The file; one that exists is continued.
        key: Identifies the surface: `key_of`.
    """

    def __init__(self, path: str | Path, key: str) -> None:
        self.path = Path(path)
        self.values: dict[tuple[int, ...], tuple[float, float]] = {}
        complete = 0
        if self.path.exists():
            complete = self._read(key)
        self._file = self.path.open("ab", buffering=0)
        self._file.truncate(complete)
        if not complete:
            self._write(json.dumps({"format": _FORMAT, "key": key}))

    def add(self, index: tuple[int, ...], loss: float, error: float) -> None:
        """Write a point."""
        self._write(" ".join([*map(str, index), repr(float(loss)), repr(float(error))]))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, line: str) -> None:
        self._file.write(f"{line}\n".encode())

    def _read(self, key: str) -> int:
        """Take the complete lines in, and return their length in bytes."""
        content = self.path.read_bytes()
        complete = content.rfind(b"\n") + 1
        lines = content[:complete].decode("utf-8", errors="replace").splitlines()
        if not lines:
            return 0
        try:
            header = json.loads(lines[0])
            found = header["key"] if header["format"] == _FORMAT else None
        except (ValueError, KeyError, TypeError):
            found = None
        if found is None:
            raise FileError(f"{self.path} is no file of surface points; give another path, or move it away.")
        if found != key:
            raise FileError(
                f"{self.path} holds points of another surface (other weights, directions, axes, data or policy); give "
                "another path, or remove it."
            )
        for line in lines[1:]:
            *index, loss, error = line.split()
            self.values[tuple(int(part) for part in index)] = (float(loss), float(error))
        return complete


def key_of(arrays: Iterable[Any], settings: dict[str, Any]) -> str:
    """Return SHA-256 over the values of arrays and over settings."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for array in arrays:
        values = array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)
        digest.update(f"{values.dtype.str}{values.shape}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
