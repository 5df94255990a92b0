"""bfloat16 in HDF5: the upper half of a float32, as a floating-point type that every HDF5 library understands.

HDF5 describes a floating-point type by its bit fields, so any version converts these two bytes to the reader's float32
by itself; HDF5 2.0 names the same type H5T_FLOAT_BFLOAT16LE. Its conversion takes 50 to 80 ns a number. Here the bytes
are cut and put together by numpy, which takes 1, and handed over as they are.
"""

from __future__ import annotations

import sys
from typing import Any

import h5py
import numpy as np

NAME = "bfloat16"
_STORED = "<u2"
_BLOCK = 2**17  # numbers rounded at once: what stays in the processor's cache


def storage_type() -> Any:
    """Return the HDF5 type: sign at bit 15, 8 bits of exponent at bit 7 with bias 127, 7 bits of mantissa."""
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_precision(16)
    kind.set_size(2)
    kind.set_ebias(127)
    return kind


def is_bfloat16(dataset: Any) -> bool:
    """Return whether a dataset (h5py's, or its id) is stored so."""
    kind = (dataset.id if isinstance(dataset, h5py.Dataset) else dataset).get_type()
    return (
        isinstance(kind, h5py.h5t.TypeFloatID)
        and kind.get_size() == 2
        and kind.get_fields() == (15, 7, 8, 0, 7)
        and kind.get_ebias() == 127
    )


def rounded(values: np.ndarray) -> np.ndarray:
    """Return float32 values rounded to the nearest bfloat16, ties to even, NaN and infinities as they are."""
    source = np.ascontiguousarray(values, dtype=np.float32)
    if not _halves(source, lower=True).any():
        return source.reshape(np.shape(values))
    bits = source.reshape(-1).view(np.uint32)
    kept = np.empty_like(bits)
    for start in range(0, len(bits), _BLOCK):
        _round(bits[start : start + _BLOCK], kept[start : start + _BLOCK])
    return kept.view(np.float32).reshape(np.shape(values))


def _round(bits: np.ndarray, kept: np.ndarray) -> None:
    np.right_shift(bits, np.uint32(16), out=kept)
    kept &= np.uint32(1)
    kept += np.uint32(0x7FFF)
    kept += bits
    kept &= np.uint32(0xFFFF0000)
    lost = np.isnan(bits.view(np.float32))
    if lost.any():  # the carry may have made an infinity or a zero of them
        kept[lost] = (bits[lost] | np.uint32(0x400000)) & np.uint32(0xFFFF0000)


def create(group: Any, name: str, shape: tuple[int, ...], maxshape: Any, chunks: Any, fill: float) -> Any:
    """Create an empty dataset of this type in a group, and return it."""
    unlimited = h5py.h5s.UNLIMITED
    space = h5py.h5s.create_simple(shape, tuple(unlimited if size is None else size for size in maxshape))
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk(chunks)
    settings.set_fill_value(np.array(fill, dtype=np.float32))
    return h5py.Dataset(h5py.h5d.create(group.id, name.encode(), storage_type(), space, settings))


def stored(row: np.ndarray) -> np.ndarray:
    """Return float32 values that are bfloat16 numbers as the uint16 that stand in the file."""
    upper = _halves(np.ascontiguousarray(row, dtype=np.float32), lower=False)
    return np.ascontiguousarray(upper, dtype=_STORED).reshape(row.shape)


def _halves(values: np.ndarray, lower: bool) -> np.ndarray:
    first = lower == (sys.byteorder == "little")
    return values.reshape(-1).view(np.uint16)[0 if first else 1 :: 2]


def read_rows(dataset: Any, rows: slice) -> np.ndarray:
    """Return the rows of a slice (with start, stop and step within the dataset) as float32."""
    count = len(range(rows.start, rows.stop, rows.step))
    halves = np.empty((count, *dataset.shape[1:]), dtype=_STORED)
    if halves.size:
        rest = dataset.shape[1:]
        place = dataset.id.get_space()
        place.select_hyperslab((rows.start, *(0 for _ in rest)), (count, *rest), (rows.step, *(1 for _ in rest)))
        dataset.id.read(h5py.h5s.create_simple(halves.shape), place, halves, mtype=storage_type())
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)
