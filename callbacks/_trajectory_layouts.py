"""Keep a trajectory's vectors in the group that fits the tensors of the module at each event.

The group of the trajectory is declared for the tensors that the training begins with. Where others train, are renamed,
or frozen ones move, the vectors of a row go to a further group, `<group>_layout_<n>`, and the row says n.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from landscape.callbacks._session import Session
from landscape.callbacks._state import ModuleState, stored_digests
from landscape.record import Coordinate, GroupSchema, Variable, open_run
from landscape.record._layouts import layout_group

ROUNDED = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclasses.dataclass
class _Kept:
    """The frozen parameters that a layout stored last: their digests, and the step of the row."""

    digests: dict[str, int]
    step: int


class TrajectoryLayouts:
    """Finds the group for the vectors of each event, and declares it where there is none.

    Memory: a digest for each frozen parameter.

    Args:
        group: The group of the trajectory.
        dtype: "float16" or "bfloat16" to round the stored weights to; None to keep them.
        evaluate: Whether rows hold buffers that were recomputed for the running mean.

    Attributes:
        first: The attributes that name the tensors of the first layout.
    """

    def __init__(self, group: str, dtype: str | None, evaluate: bool):
        self._group, self._dtype, self._evaluate = group, dtype, evaluate
        self.first: dict[str, Any] = {}
        self._known: list[dict[str, Any]] = []
        self._constants: dict[str, int] | None = None
        self._last: dict[int, _Kept] = {}

    def begin(self, session: Session, state: ModuleState) -> None:
        """Store what never changes, or take up what the file of a resumed run holds (the first process)."""
        self.first = described(state.attributes())
        if session.recorder is None:
            return
        run = open_run(session.path)
        while layout_group(self._group, len(self._known) + 1) in run.groups:
            data = run._source.read([layout_group(self._group, len(self._known) + 1)], lambda _: [])
            self._known.append(described(next(iter(data.values())).schema.attributes))
        self.first = self._known[0]
        first = run._source.read([self._group], lambda _: ["constants"])[self._group]
        if "constants" in first.statics:
            self._constants = stored_digests(first.schema.attributes, first.statics["constants"].values)
            return
        self._constants = state.constant_digests()
        values = state.constants()
        session.recorder.write_static(
            self._group, "constants", values, ("constant",), description="frozen parameters, flat"
        )

    def state(self, module: Any) -> ModuleState:
        """Return the present state of a module, its frozen parameters compared with those in the file."""
        return ModuleState(module, self._constants)

    def row(
        self, session: Session, state: ModuleState, vectors: dict[str, np.ndarray], step: int
    ) -> tuple[int, dict[str, np.ndarray]]:
        """Write the vectors of an event where they fit.

        Args:
            session: Whose file is written.
            state: The module's state.
            vectors: `weights`, `buffers`, and `swa_buffers` where the mean was measured.
            step: The event's step.

        Returns:
            The number of the layout, and the vectors that belong into the trajectory's own row.
        """
        if session.recorder is None:
            return 1, vectors
        now = described(state.attributes())
        if now not in self._known:
            self._known.append(now)
        number = self._known.index(now) + 1
        if number == 1:
            return 1, vectors
        group = layout_group(self._group, number)
        session.declare(self._schema(group, state))
        row: dict[str, Any] = {"step": step} | vectors
        if state.moving_layout.total:
            row |= self._moving(number, state, step)
        session.append(group, row)
        return number, {}

    def _moving(self, number: int, state: ModuleState, step: int) -> dict[str, Any]:
        """Return the frozen parameters that changed, or the step of the row where they stand already."""
        digests = state.moving_digests()
        last = self._last.get(number)
        if last is not None and last.digests == digests:
            return {"moving_at": last.step}
        self._last[number] = _Kept(digests, step)
        return {"moving": state.moving(), "moving_at": step}

    def _schema(self, group: str, state: ModuleState) -> GroupSchema:
        variables, axes = vector_variables(state, self._dtype, self._evaluate)
        if state.moving_layout.total:
            exact = "f8" if state.frozen_dtype == torch.float64 else "f4"
            about = "frozen parameters that changed, flat; missing where an earlier row holds the same"
            variables += [
                Variable("moving", ("moving_parameter",), exact, description=about),
                Variable("moving_at", (), "i8", description="step of the row that holds them"),
            ]
            axes.append(Coordinate("moving_parameter", state.moving_layout.total, description="index in that vector"))
        about = "weights of the trajectory at the steps whose rows name this layout"
        return GroupSchema(group, about, variables, axes, state.attributes())


def described(attributes: Any) -> dict[str, Any]:
    """Return the attributes that name the tensors of a state, in one form from a module and from a file."""
    kinds = ("parameter", "buffer", "moving", "constant")
    names = [f"{kind}_{what}" for kind in kinds for what in ("names", "shapes", "dtypes")]
    return {name: list(attributes.get(name, [])) for name in names} | {"aliases": dict(attributes.get("aliases", {}))}


def vector_variables(state: ModuleState, dtype: str | None, evaluate: bool) -> tuple[list[Variable], list[Coordinate]]:
    """Return variables and dimensions for the vectors of a state.

    Args:
        state: The state.
        dtype: "float16" or "bfloat16" to round the stored weights to.
        evaluate: Whether there are buffers of the mean.

    Returns:
        The variables, and the coordinates of their dimensions.
    """
    exact = "f8" if state.weight_dtype == torch.float64 else "f4"
    kind = {"float16": "f2", "bfloat16": "f4", None: exact}[dtype]
    about = "trainable parameters, flat; names and shapes in the attributes"
    storage = dtype if dtype == "bfloat16" else None
    variables = [
        Variable("weights", ("parameter",), kind, description=about, storage=storage),
        Variable("buffers", ("buffer",), description="buffers, flat; names and shapes in the attributes"),
    ]
    if evaluate:
        about = "the same with batch-norm statistics of the mean"
        variables.append(Variable("swa_buffers", ("buffer",), description=about))
    axes = [
        Coordinate("parameter", state.layout.total, description="index in the flat vector"),
        Coordinate("buffer", state.buffer_layout.total, description="index in the flat buffers"),
    ]
    return variables, axes
