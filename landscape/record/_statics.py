"""Arrays of a group that do not depend on the event (the frozen tensors of a model, say)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from landscape.record._schema import GroupSchema, Variable


def check_static(
    schema: GroupSchema, name: str, array: Any, dims: Sequence[str], sizes: Mapping[str, int]
) -> np.ndarray:
    """Return the array as it is stored.

    Args:
        schema: The group.
        name: Name of the array.
        array: Numbers, booleans (stored as 0 and 1) or strings.
        dims: A name for each dimension.
        sizes: Lengths of the dimensions that the group has.

    Returns:
        The array, of a dtype that HDF5 and netCDF both have.

    Raises:
        ValueError: The name is taken, or the dimensions do not fit.
        TypeError: Neither numbers nor strings.
    """
    Variable(name)  # the same rules for names
    where = f"the static array {name!r} of group {schema.name!r}"
    if name in schema.all_variables or name in sizes or name in dims:
        raise ValueError(f"{where} needs another name: a variable or dimension of the group has that one")
    values = np.asarray(array)
    if values.dtype.kind == "b":
        values = values.astype(np.int8)
    if values.dtype.kind == "O" and all(isinstance(item, str) for item in values.flat):
        values = values.astype(str)
    if values.dtype.kind not in "iufU":
        raise TypeError(f"{where} holds {values.dtype}; expected numbers or strings")
    if len(dims) != values.ndim or len(set(dims)) != len(dims) or "step" in dims:
        raise ValueError(
            f"{where} has shape {values.shape}; expected a name for each dimension, all different and none "
            f"of them 'step', and found {tuple(dims)}"
        )
    for dim, size in zip(dims, values.shape, strict=True):
        if dim in schema.all_variables or sizes.get(dim, size) != size:
            raise ValueError(f"{where} has {size} entries along {dim!r}, which the group already has otherwise")
    return values


def same_array(dataset: Any, array: np.ndarray) -> bool:
    """Return whether an HDF5 dataset holds the array already."""
    if dataset.shape != array.shape:
        return False
    if array.dtype.kind == "U":
        return np.array_equal(np.asarray(dataset.asstr()[()], dtype=str), array)
    return dataset.dtype == array.dtype and np.array_equal(dataset[()], array, equal_nan=array.dtype.kind == "f")
