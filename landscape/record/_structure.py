"""How a schema stands in HDF5: datasets, dimension scales as netCDF4 has them, attributes; and the way back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np

from landscape._layout import ParameterLayout
from landscape.record import _bfloat16
from landscape.record._attributes import read_attributes, write_attributes
from landscape.record._budget import Budget
from landscape.record._schema import (
    COMMON,
    EVENT,
    LAYOUT,
    RESERVED_ATTRIBUTES,
    STATUS,
    Coordinate,
    GroupSchema,
    Variable,
)
from landscape.record._texts import attribute, text_attribute, texts
from landscape.record._validation import data_sets, steps_of

_UNLABELLED = "This is a netCDF dimension but not a netCDF variable."
_CHUNK_BYTES, _CHUNK_ROWS = 16 * 1024, 64
_LARGEST_CHUNK = 256 * 1024**2  # HDF5 refuses chunks of 4 GiB
_TEXT = h5py.string_dtype("utf-8")


def write_group(file: Any, schema: GroupSchema) -> None:
    """Create a group without rows.

    Small rows share a chunk: it is written in place, uncompressed, so that a row costs no new chunk. A large
    row has a chunk of its own. There is no compression: a compressed chunk moves when it is written again, and a
    kill between loses the rows in it.
    """
    group = file.create_group(schema.name)
    for coordinate in schema.coordinates:
        _write_coordinate(group, coordinate)
    for variable in schema.all_variables.values():
        shape = schema.shape(variable)
        dataset = _create(group, variable, shape)
        write_attributes(dataset, {"units": variable.units, "long_name": variable.description})
        if variable.name == EVENT:
            dataset.make_scale(EVENT)
            continue
        _attach(group, dataset, (EVENT, *variable.dims))
    group["status"].attrs["flag_values"] = np.arange(len(STATUS), dtype=np.int8)
    group["status"].attrs["flag_meanings"] = " ".join(STATUS)
    order = [variable.name for variable in schema.variables]
    write_attributes(group, {**schema.attributes, "description": schema.description, "variables": order})


def read_schema(group: Any, budget: Budget | None = None) -> GroupSchema:
    """Return the schema of a group of the file.

    Args:
        group: The h5py.Group.
        budget: What the call may still read.

    Returns:
        The schema.

    Raises:
        ValueError: The group is not what a schema describes: shapes disagree with dimensions or rows.
    """
    attributes = read_attributes(group, budget)
    common = {variable.name for variable in COMMON}
    found = {name: group[name] for name in data_sets(group) if name not in common}
    dims = {name: dims_of(data) for name, data in found.items()}
    _check_shapes(group, found, dims)
    coordinates = [_read_coordinate(name, data, budget) for name, data in found.items() if data.is_scale]
    variables = {
        name: Variable(
            name,
            dims[name][1:],
            data.dtype.str,
            text_attribute(data, "units", "1"),
            text_attribute(data, "long_name"),
            data.fillvalue,
            _bfloat16.NAME if _bfloat16.is_bfloat16(data) else None,
        )
        for name, data in found.items()
        if not data.is_scale and dims[name][:1] == (EVENT,)
    }
    listed = attributes.get("variables", ())
    order = [name for name in listed if name in variables] if isinstance(listed, (list, tuple)) else []
    settings = {name: value for name, value in attributes.items() if name not in RESERVED_ATTRIBUTES}
    return GroupSchema(
        group.name.strip("/"),
        str(attributes.get("description", "")),
        [variables[name] for name in dict.fromkeys((*order, *variables))],
        coordinates,
        settings,
    )


def dims_of(dataset: Any) -> tuple[str, ...]:
    """Return the names of a dataset's dimensions, from the dimension scales attached to it."""
    if dataset.is_scale:
        return (dataset.name.rsplit("/", 1)[-1],)
    return tuple(axis[0].name.rsplit("/", 1)[-1] if len(axis) else "" for axis in dataset.dims)


def statics_of(group: Any) -> list[str]:
    """Return the names of the arrays of a group that have no event dimension and are no coordinates."""
    common = {variable.name for variable in COMMON}
    others = {name: group[name] for name in data_sets(group) if name not in common}
    return [name for name, data in others.items() if not data.is_scale and EVENT not in dims_of(data)]


def write_static(group: Any, name: str, array: np.ndarray, dims: Sequence[str], units: str, text: str) -> None:
    """Create or replace an array without event dimension; a dimension that the group lacks is added."""
    for dim, size in zip(dims, array.shape, strict=True):
        if dim not in group:
            _write_coordinate(group, Coordinate(dim, size))
    if name in group:
        # The scales keep references to what is attached to them.
        for axis in group[name].dims:
            for scale in list(axis.values()):
                axis.detach_scale(scale)
        del group[name]
    if array.dtype.kind == "U":
        dataset = group.create_dataset(name, data=array.astype(object), dtype=_TEXT)
    else:
        dataset = group.create_dataset(name, data=array)
    write_attributes(dataset, {"units": units, "long_name": text})
    _attach(group, dataset, dims)


def write_layout(file: Any, layout: ParameterLayout) -> None:
    """Create the group `parameters`: where each tensor lies in the flat vector."""
    group = file.create_group(LAYOUT)
    write_attributes(group, {"description": "tensors behind the flat parameter vector, in its order"})
    _write_coordinate(group, Coordinate("name", layout.names, description="qualified name of the tensor"))
    rank = max((len(shape) for shape in layout.shapes), default=0)
    shapes = np.full((len(layout.names), max(1, rank)), -1, dtype=np.int64)
    for row, shape in zip(shapes, layout.shapes, strict=True):
        row[: len(shape)] = shape
    for name, array, dims, text in (
        ("offset", np.array(layout.offsets[:-1], dtype=np.int64), ("name",), "index of the first element"),
        ("numel", np.array(layout.sizes, dtype=np.int64), ("name",), "number of elements"),
        ("shape", shapes, ("name", "axis"), "sizes of the axes, row-major, then -1 where there is no axis"),
    ):
        write_static(group, name, array, dims, "1", text)


def read_layout(file: Any, budget: Budget | None = None) -> ParameterLayout | None:
    """Return the layout of the flat parameter vector, or None where the file has none.

    Args:
        file: The h5py.File.
        budget: What the call may still read.

    Returns:
        The layout.

    Raises:
        ValueError: Names and shapes do not fit together.
    """
    if LAYOUT not in file:
        return None
    group, budget = file[LAYOUT], budget or Budget()
    names: Any = texts(group["name"], budget) if len(group["name"]) else []
    budget.take(group["shape"].nbytes)
    table = group["shape"][()]
    if table.ndim != 2 or table.dtype.kind not in "iu" or len(table) != len(names):
        raise ValueError(f"{LAYOUT}/shape does not give the axes of {len(names)} tensors")
    shapes = tuple(tuple(int(size) for size in row if size >= 0) for row in table)
    return ParameterLayout(tuple(str(name) for name in names), shapes)


def _write_coordinate(group: Any, coordinate: Coordinate) -> None:
    if not coordinate.labelled:
        # As netCDF4 marks a dimension without labels; the dataset is never written and takes no space.
        dataset = group.create_dataset(coordinate.name, (coordinate.size,), dtype=">f4")
        dataset.make_scale(f"{_UNLABELLED} {coordinate.size:10d}")
        return
    if coordinate.has_strings:
        dataset = group.create_dataset(coordinate.name, data=coordinate.values.astype(object), dtype=_TEXT)
    else:
        dataset = group.create_dataset(coordinate.name, data=coordinate.values)
    write_attributes(dataset, {"units": coordinate.units, "long_name": coordinate.description})
    dataset.make_scale(coordinate.name)


def _read_coordinate(name: str, dataset: Any, budget: Budget | None) -> Coordinate:
    if dataset.ndim != 1:
        raise ValueError(f"{dataset.name.strip('/')} labels a dimension and has {dataset.ndim} of them")
    scale = attribute(dataset, "NAME", b"")
    if isinstance(scale, bytes) and scale.startswith(_UNLABELLED.encode()):
        return Coordinate(name, len(dataset))
    units, description = text_attribute(dataset, "units", "1"), text_attribute(dataset, "long_name")
    if h5py.check_string_dtype(dataset.dtype):
        return Coordinate(name, texts(dataset, budget), units, description)
    (budget or Budget()).take(dataset.nbytes, dataset.id.get_storage_size())
    return Coordinate(name, dataset[()], units, description)


def _check_shapes(group: Any, found: dict[str, Any], dims: dict[str, tuple[str, ...]]) -> None:
    """Check that all data sets have the lengths of their dimensions, and variables a value for each row."""
    sizes = {name: len(data) for name, data in found.items() if data.is_scale}
    rows = len(steps_of(group.id))
    for name, data in found.items():
        where, axes = f"{group.name.strip('/')}/{name}", dims[name]
        if data.is_scale:
            continue
        if len(set(axes)) < len(axes) or EVENT in axes[1:]:
            raise ValueError(f"{where} has a dimension twice, or not in its place")
        if axes[:1] == (EVENT,) and len(data) < rows:
            raise ValueError(f"{where} has {len(data)} of {rows} rows")
        for axis, size in zip(axes, data.shape, strict=True):
            if axis != EVENT and sizes.get(axis) != size:
                raise ValueError(f"{where} has {size} entries along {axis or 'an axis'!r}, which has {sizes.get(axis)}")


def _attach(group: Any, dataset: Any, dims: Sequence[str]) -> None:
    for axis, dim in zip(dataset.dims, dims, strict=True):
        axis.attach_scale(group[dim])


def _create(group: Any, variable: Variable, shape: tuple[int, ...]) -> Any:
    maxshape = (None, *(size or None for size in shape))
    if variable.storage:
        chunks = _chunks(shape, 2)
        return _bfloat16.create(group, variable.name, (0, *shape), maxshape, chunks, float("nan"))
    chunks = _chunks(shape, np.dtype(variable.dtype).itemsize)
    return group.create_dataset(
        variable.name, (0, *shape), dtype=variable.dtype, maxshape=maxshape, chunks=chunks, fillvalue=variable.fill
    )


def _chunks(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    sizes = [max(1, size) for size in shape]
    while math.prod(sizes) * itemsize > _LARGEST_CHUNK:
        largest = sizes.index(max(sizes))
        sizes[largest] = -(-sizes[largest] // 2)
    rows = _CHUNK_BYTES // (math.prod(sizes) * itemsize)
    return (min(_CHUNK_ROWS, max(1, rows)), *sizes)
