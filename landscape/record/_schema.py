"""What a group of the file holds: variables, dimensions and coordinates, declared before the first row."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

SCHEMA_VERSION = 1
"""Version of the file's structure; a reader refuses files of a newer one."""

EVENT = "step"
"""Name of the event dimension, and of the variable that labels it."""

LAYOUT = "parameters"
"""Name of the group that names the tensors behind the flat parameter vector."""

RESERVED_ATTRIBUTES = ("description", "variables", "json_attributes")
REASON_BYTES = 512
STATUS = ("ok", "failed", "partial", "surrogate")
"""What the numbers in the variable `status` mean, in their order. Older files hold the first two alone."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_LONGEST_NAME = 255
_FILL = {"f": np.nan, "i": -1, "S": b""}


def is_name(name: str) -> bool:
    """Return whether a group, variable or dimension may be called so."""
    return len(name) <= _LONGEST_NAME and bool(_NAME.fullmatch(name))


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a {what}: expected letters, digits, '_', '.' or '-', a letter first")


@dataclasses.dataclass(frozen=True)
class Variable:
    """A quantity with one value (or one array) a row.

    Attributes:
        name: Name of the HDF5 dataset.
        dims: Names of the dimensions besides the event dimension `step`, in order.
        dtype: numpy dtype: a float ("f4", "f8"), a signed integer ("i1" for flags, "i8")
            or fixed bytes ("S16").
        units: Units as UDUNITS writes them, "1" for a pure number.
        description: One line for the reader of the file.
        fill: Value of a missing entry; NaN for floats, -1 for integers, no bytes for bytes unless given.
        storage: "bfloat16" keeps an "f4" rounded to that, in half the space; readers see float32.
    """

    name: str
    dims: tuple[str, ...] = ()
    dtype: str = "f8"
    units: str = "1"
    description: str = ""
    fill: float | int | bytes | None = None
    storage: str | None = None

    def __post_init__(self) -> None:
        _check_name("variable", self.name)
        object.__setattr__(self, "dims", tuple(self.dims))
        kind = np.dtype(self.dtype).kind
        if kind not in _FILL:
            raise ValueError(
                f"variable {self.name!r} has dtype {self.dtype!r}; expected a float ('f4', 'f8'), a "
                "signed integer ('i1' for flags, 'i8') or fixed bytes ('S16')"
            )
        if self.storage is not None and (self.storage != "bfloat16" or np.dtype(self.dtype) != np.float32):
            raise ValueError(
                f"variable {self.name!r} is to be stored as {self.storage!r} with dtype {self.dtype!r}; only 'f4' has "
                "another storage, 'bfloat16'"
            )
        # A NaN read from a file may have other bits than the one that was declared, and so another checksum.
        if self.fill is None or (kind == "f" and np.isnan(self.fill)):
            object.__setattr__(self, "fill", _FILL[kind])


@dataclasses.dataclass(frozen=True, eq=False)
class Coordinate:
    """The labels along a dimension.

    Attributes:
        name: Name of the dimension.
        values: One-dimensional numbers or strings; or the length alone, for a dimension without labels.
        units: Units of the labels.
        description: One line for the reader of the file.
    """

    name: str
    values: Any
    units: str = "1"
    description: str = ""

    def __post_init__(self) -> None:
        _check_name("dimension", self.name)
        if isinstance(self.values, (int, np.integer)):
            object.__setattr__(self, "values", int(self.values))
            return
        values = np.asarray(self.values)
        if values.size == 0:
            values = values.astype(np.int64)
        if values.ndim != 1 or values.dtype.kind not in "iufUO":
            raise ValueError(f"the labels of {self.name!r} must be one-dimensional numbers or strings, or a length")
        if values.dtype.kind in "UO":
            values = np.array([str(value) for value in values], dtype=str)
        else:
            values = values.astype(np.float64 if values.dtype.kind == "f" else np.int64)
        object.__setattr__(self, "values", values)

    @property
    def labelled(self) -> bool:
        """Whether the dimension has labels, not a length alone."""
        return not isinstance(self.values, int)

    @property
    def size(self) -> int:
        """Length of the dimension."""
        return len(self.values) if self.labelled else self.values

    @property
    def has_strings(self) -> bool:
        """Whether the labels are strings."""
        return self.labelled and self.values.dtype.kind == "U"

    def agrees(self, other: Coordinate) -> bool:
        """Return whether the other one has the same labels."""
        if self.labelled != other.labelled or self.size != other.size or self.has_strings != other.has_strings:
            return False
        return not self.labelled or np.array_equal(self.values, other.values, equal_nan=not self.has_strings)


COMMON: tuple[Variable, ...] = (
    Variable("step", (), "i8", "1", "optimizer steps taken when the row was measured (trainer.global_step)"),
    Variable("epoch", (), "i8", "1", "epoch of the training, from 0"),
    Variable("batch_index", (), "i8", "1", "index of the batch within the epoch"),
    Variable("learning_rate", (), "f8", "1", "learning rate of the first parameter group"),
    Variable("train_loss", (), "f8", "1", "loss on the measured training examples"),
    Variable("train_error", (), "f8", "1", "fraction of wrong labels on the measured training examples"),
    Variable("held_out_loss", (), "f8", "1", "loss on the measured held-out examples"),
    Variable("held_out_error", (), "f8", "1", "fraction of wrong labels on the measured held-out examples"),
    *(
        Variable(f"{name}_stderr_sample", (), "f8", "1", f"standard error of {name} over examples")
        for name in ("train_loss", "train_error", "held_out_loss", "held_out_error")
    ),
    Variable("n_parameters", (), "i8", "1", "number of parameters that trained when the row was measured"),
    Variable("trainable", (), "S12", "1", "fingerprint of their names and shapes; it changes when others train"),
    Variable("measured_examples", (), "i8", "1", "number of training examples that the row was measured on"),
    Variable("wall_seconds", (), "f8", "s", "time that the measurement took"),
    Variable(
        "overhead", (), "f8", "1", "seconds of measurement by seconds of training so far, where overhead= is given"
    ),
    Variable("reduced", (), "S128", "1", "settings that were lowered for this row to keep the overhead"),
    Variable("left_out", (), "i8", "1", "events left out since the row before to keep the overhead"),
    Variable(
        "status",
        (),
        "i1",
        "1",
        "0: measured; 1: failed; 2: measured in part; 3: measured but for what needs derivatives, as those of this "
        "model are not its loss's (surrogate). The reason says what failed and why",
    ),
    Variable("checksum", (), "i8", "1", "CRC-32 of the row's other values, by which damage is found; -1 where unknown"),
    Variable("reason", (), f"S{REASON_BYTES}", "1", "what failed and why, or what the row leaves out, UTF-8"),
)
"""The variables that every row of every group has; `step` is also the coordinate of the event dimension.

Files of older versions lack some of them: these read as missing, and rows go on without them."""

_COMMON_NAMES = frozenset(variable.name for variable in COMMON)


@dataclasses.dataclass(frozen=True, eq=False)
class GroupSchema:
    """A group of the file: one measure, a row per event.

    Attributes:
        name: Name of the HDF5 group.
        description: One line for the reader of the file.
        variables: Its variables besides the common ones.
        coordinates: One for every dimension that the variables use.
        attributes: Settings of the measure, plain values; containers are stored as JSON.
    """

    name: str
    description: str
    variables: Sequence[Variable]
    coordinates: Sequence[Coordinate] = ()
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_name("group", self.name)
        object.__setattr__(self, "variables", tuple(self.variables))
        object.__setattr__(self, "coordinates", tuple(self.coordinates))
        items: list[Variable | Coordinate] = [*COMMON, *self.variables, *self.coordinates]
        names = [item.name for item in items]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"group {self.name!r} declares {', '.join(twice)} twice; a variable or dimension needs a name "
                f"of its own, and these are taken in every group: {', '.join(sorted(_COMMON_NAMES))}"
            )
        for variable in self.variables:
            if missing := [name for name in variable.dims if name not in self.dimensions]:
                raise ValueError(
                    f"variable {variable.name!r} of group {self.name!r} has the dimension {missing[0]!r}, for "
                    "which the group declares no Coordinate"
                )
        if reserved := [name for name in self.attributes if name in RESERVED_ATTRIBUTES]:
            raise ValueError(f"group {self.name!r}: the attribute name {reserved[0]!r} is reserved; choose another")

    @cached_property
    def dimensions(self) -> dict[str, Coordinate]:
        """The coordinates by name."""
        return {coordinate.name: coordinate for coordinate in self.coordinates}

    @cached_property
    def all_variables(self) -> dict[str, Variable]:
        """The common variables, then the group's own, by name."""
        return {variable.name: variable for variable in (*COMMON, *self.variables)}

    def shape(self, variable: Variable) -> tuple[int, ...]:
        """Return the shape of one row of a variable."""
        return tuple(self.dimensions[name].size for name in variable.dims)

    def difference(self, wanted: GroupSchema) -> str | None:
        """Return a clause on how another schema differs from this one, or None where the two agree."""
        mine, theirs = self.all_variables, wanted.all_variables
        if changed := sorted(mine.keys() ^ theirs.keys()):
            return f"{changed[0]!r} is declared in only one of the two"
        for name, variable in mine.items():
            other = theirs[name]
            if _form(variable) != _form(other):
                return f"{name!r} has {_signature(variable)} in the file and {_signature(other)} now"
        for name, coordinate in wanted.dimensions.items():
            if name not in self.dimensions or not self.dimensions[name].agrees(coordinate):
                return f"the labels of the dimension {name!r} are not the same"
        return None


def _form(variable: Variable) -> tuple[tuple[str, ...], np.dtype, str | None]:
    return variable.dims, np.dtype(variable.dtype), variable.storage


def _signature(variable: Variable) -> str:
    dtype = variable.storage or np.dtype(variable.dtype).str
    return f"dimensions ({', '.join(('step', *variable.dims))}) and dtype {dtype}"
