"""How a run stands, at the root of its file: running, finished, interrupted or failed; and who writes it.

All of it has a fixed size, so that it is changed in place: a change of structure would copy the file.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from landscape.record._schema import REASON_BYTES

RUNNING, FINISHED, INTERRUPTED, FAILED = STATES = ("running", "finished", "interrupted", "failed")
_SIZES = {"state": 16, "state_reason": REASON_BYTES, "last_sign_of_life": 32, "writer": 32}
NAMES = tuple(_SIZES)
"""The root attributes that the recorder keeps about the run's state."""


def beginning(writer: str) -> dict[str, str]:
    """Return the attributes of a run that begins, or goes on.

    Args:
        writer: The mark of its writer, up to 32 characters.

    Returns:
        Texts by name, for `write_in_place`.
    """
    return {"state": RUNNING, "state_reason": "", "writer": writer} | sign_of_life()


def sign_of_life() -> dict[str, str]:
    """Return the time of this moment, UTC, as the attribute that tells it."""
    return {"last_sign_of_life": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}


def fixed(values: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Return texts as HDF5 stores them in place: as bytes, cut at whole characters."""
    return {name: np.array(_cut(text, _SIZES[name]), dtype=_type(name)) for name, text in values.items()}


def write_in_place(file: Any, values: Mapping[str, str]) -> None:
    """Set attributes of this kind; one that is there keeps its place, so that few bytes change."""
    for name, text in fixed(values).items():
        if name in file.attrs and file.attrs.get_id(name).dtype == text.dtype:
            file.attrs.modify(name, text)
        else:
            file.attrs.create(name, text, dtype=text.dtype)


def writes(file: Any, writer: str) -> bool:
    """Return whether a file bears the mark of a writer, and no other writer's."""
    return h5py.h5a.exists(file.id, b"writer") and text_of(file.attrs["writer"]) == writer


def text_of(value: Any) -> str:
    """Return the text of such an attribute; "" where it is of another kind."""
    return bytes(value).decode("utf-8", errors="replace") if isinstance(value, bytes) else ""


def _type(name: str) -> np.dtype:
    return np.dtype(h5py.string_dtype("utf-8", _SIZES[name]))


def _cut(text: str, size: int) -> bytes:
    encoded = text.replace("\0", " ").encode("utf-8", errors="replace")[:size]
    return encoded.decode("utf-8", errors="ignore").encode("utf-8")
