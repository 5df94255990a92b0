"""Read the state of one recorded row: which tensors its vectors hold, and their values by name.

The parameters that train may change during a run: layers are unfrozen, pruning renames tensors and adds buffers. Rows
whose tensors are those of the first row keep their vectors in the group of the trajectory. All others keep them in
`<group>_layout_<n>`, one group for each further set of tensors, and the variable `layout` of the row says n. Frozen
parameters that never changed stand once, in the static array `constants`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from landscape._errors import FileError
from landscape._layout import ParameterLayout
from landscape.record._contents import GroupContents, Source
from landscape.record._schema import GroupSchema

TRAJECTORY = "swa_trajectory"
_KINDS = ("moving", "buffer", "constant")


def layout_group(group: str, number: int) -> str:
    """Return the name of the group with the vectors of a layout; the first layout's stand in the trajectory's own."""
    return group if number <= 1 else f"{group}_layout_{number}"


@dataclasses.dataclass(frozen=True)
class Part:
    """Some tensors end to end in one vector.

    Attributes:
        layout: Their names and shapes.
        dtypes: Their types in the model.
    """

    layout: ParameterLayout
    dtypes: tuple[str, ...]

    def named(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """Cut a vector into arrays by name."""
        return self.layout.named(vector)


@dataclasses.dataclass(frozen=True)
class StateLayout:
    """The tensors that a row of the trajectory stands for.

    Attributes:
        group: The group that holds the row's vectors.
        schema: Its schema.
        parts: The trainable parameters ("parameter"), frozen ones that changed ("moving"), buffers ("buffer"), and
            frozen ones that did not change ("constant").
        aliases: Further names of tied tensors, and the names under which they are stored.
    """

    group: str
    schema: GroupSchema
    parts: Mapping[str, Part]
    aliases: Mapping[str, str]

    @property
    def parameters(self) -> ParameterLayout:
        """Names and shapes of the trainable parameters, in the order of the flat vector."""
        return self.parts["parameter"].layout

    @property
    def fixed(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters that did not train."""
        layouts = [self.parts[kind].layout for kind in ("moving", "constant")]
        return {name: shape for layout in layouts for name, shape in zip(layout.names, layout.shapes, strict=True)}

    @property
    def dtypes(self) -> dict[str, str]:
        """Types of all tensors in the model, by name."""
        return {name: dtype for part in self.parts.values() for name, dtype in self._typed(part)}

    @staticmethod
    def _typed(part: Part) -> list[tuple[str, str]]:
        return list(zip(part.layout.names, part.dtypes, strict=True))


class States:
    """The rows of a trajectory, whatever group holds their vectors.

    Args:
        source: The run.
        variables: Names of further variables to read of all rows.
        group: Name of the trajectory's group.
    """

    def __init__(self, source: Source, variables: Sequence[str] = (), group: str = TRAJECTORY):
        self.source = source
        self._group = group
        chosen = ("status", "kept", "layout", "trainable", *variables)
        self.contents = source.read([group], lambda _: chosen)[group]
        rows = self.contents.rows
        self.steps = rows["step"]
        self.numbers = np.maximum(rows.get("layout", np.ones(len(self.steps), dtype=np.int64)), 1)
        self._layouts: dict[int, StateLayout] = {}
        self._steps: dict[str, np.ndarray] = {group: self.steps}

    def layout(self, index: int) -> StateLayout:
        """Return the tensors of a row."""
        number = int(self.numbers[index])
        if number not in self._layouts:
            self._layouts[number] = read_layout(self.source, number, self._group)
        return self._layouts[number]

    def place(self, index: int) -> tuple[str, int]:
        """Return the group that holds the vectors of a row, and the row's index in it.

        Raises:
            FileError: The group is missing from the file, or lacks the row.
        """
        group = layout_group(self._group, int(self.numbers[index]))
        step = self.steps[index]
        if group not in self._steps:
            if group not in self.source.groups():
                raise FileError(
                    f"{self.source.path} is damaged: it lacks the group {group!r} with the weights of step {step}."
                )
            self._steps[group] = self.source.read([group], lambda _: [])[group].rows["step"]
        if group == self._group:
            return group, index
        found = np.flatnonzero(self._steps[group] == step)
        if len(found) == 0:
            raise FileError(f"{self.source.path} is damaged: its group {group!r} lacks the weights of step {step}.")
        return group, int(found[0])

    def read(self, index: int, *variables: str) -> GroupContents:
        """Return variables of a row, out of the group that holds its vectors."""
        group, at = self.place(index)
        return self.source.read([group], lambda _: variables, slice(at, at + 1))[group]

    def values(self, index: int, weights: np.ndarray | None = None, buffers: str = "buffers") -> dict[str, np.ndarray]:
        """Return all tensors of a row by name, each as it is stored.

        Args:
            index: Index of the row in the trajectory.
            weights: Other values of the trainable parameters, shape (P,); by default those of the row.
            buffers: The variable that holds the buffers; "buffers" where the row's group has no such variable.

        Returns:
            Arrays by name, in the model's shapes.

        Raises:
            FileError: The row has no such buffers.
        """
        layout = self.layout(index)
        contents = self.read(index, "buffers", buffers, "moving_at", *(("weights",) if weights is None else ()))
        chosen = contents.rows.get(buffers, contents.rows.get("buffers", np.zeros((1, 0))))[0]
        weights = contents.rows["weights"][0] if weights is None else weights
        if chosen.size and np.isnan(chosen).all() and not np.isnan(weights).any():
            raise FileError(f"{self.source.path} has no {buffers} at step {self.steps[index]}; choose another step.")
        vectors = {
            "parameter": weights,
            "buffer": chosen,
            "moving": self._moving(layout, contents),
        }
        named: dict[str, np.ndarray] = {}
        for kind, vector in vectors.items():
            named |= layout.parts[kind].named(vector)
        return named | self._constants(layout)

    def _moving(self, layout: StateLayout, contents: GroupContents) -> np.ndarray:
        """Return the frozen parameters that changed: stored with the row, or with an earlier one where they rested."""
        if not layout.parts["moving"].layout.total:
            return np.zeros(0)
        steps = self.source.read([layout.group], lambda _: [])[layout.group].rows["step"]
        at = int(np.flatnonzero(steps == contents.rows["moving_at"][0])[0])
        return self.source.read([layout.group], lambda _: ["moving"], slice(at, at + 1))[layout.group].rows["moving"][0]

    def _constants(self, layout: StateLayout) -> dict[str, np.ndarray]:
        wanted = layout.parts["constant"].layout.names
        if not wanted:
            return {}
        first = self.source.read([self._group], lambda _: ["constants"], slice(0))[self._group]
        part = _part(first.schema, "constant")
        named = part.named(first.statics["constants"].values)
        return {name: named[name] for name in wanted}


def read_layout(source: Source, number: int, group: str = TRAJECTORY) -> StateLayout:
    """Return the tensors of the rows with a layout number.

    Args:
        source: The run.
        number: 1 for the tensors that the run began with.
        group: Name of the trajectory's group.

    Returns:
        The layout.

    Raises:
        FileError: The file does not name them.
    """
    group = layout_group(group, number)
    schema = source.read([group], lambda _: [], slice(0))[group].schema
    parts = {kind: _part(schema, kind) for kind in _KINDS}
    if "parameter_names" in schema.attributes:
        parts["parameter"] = _part(schema, "parameter")
    else:
        parts["parameter"] = _unnamed(source, schema)
    return StateLayout(group, schema, parts, dict(schema.attributes.get("aliases", {})))


def _unnamed(source: Source, schema: GroupSchema) -> Part:
    """Return the trainable parameters of a file of an older version, which names them in the group `parameters`."""
    layout = source.layout()
    if layout is None:
        raise FileError(
            f"{source.path} has no group 'parameters', so its weights have no names; read them as one "
            "vector with run.weights()."
        )
    recorded = np.dtype(schema.all_variables["weights"].dtype).name
    return Part(layout, tuple(schema.attributes.get("parameter_dtypes") or [recorded] * len(layout.names)))


def _part(schema: GroupSchema, kind: str) -> Part:
    settings = schema.attributes
    names = tuple(settings.get(f"{kind}_names", ()))
    shapes = tuple(tuple(shape) for shape in settings.get(f"{kind}_shapes", ()))
    dtypes = tuple(settings.get(f"{kind}_dtypes") or ["float64"] * len(names))
    return Part(ParameterLayout(names, shapes), dtypes)
