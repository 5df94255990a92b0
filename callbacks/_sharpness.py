"""Record sharpness measures during training."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from landscape.callbacks._arguments import counts, listed, positive
from landscape.callbacks._base import LandscapeCallback
from landscape.callbacks._effort import Work
from landscape.callbacks._sharpness_forms import sharpness_forms, sharpness_work
from landscape.callbacks._sharpness_measures import Recorded, read
from landscape.curvature import SymmetricOperator, hessian
from landscape.objective import Objective

_DEFAULT = ("gradient_norm", "sam", "average_case", "worst_case")


class Sharpness(LandscapeCallback):
    """Sharpness measures, any of `landscape.sharpness`; by default SAM's, and adaptive average and worst case.

    Group `sharpness`. The adaptive ones are invariant to the rescaling of layers and neurons; the average case is the
    default axis of flatness. A measure that fails leaves its columns NaN, and the others stand. See
    `landscape.sharpness` for the functions and their sources, and docs/which-flatness.md for a choice among them.

    Args:
        rho_sam: Step of SAM's sharpness, in units of the weights' l2 norm, where the measure's settings give none.
        rho_average: Standard deviation of the average case's perturbation, relative to |w|; likewise.
        rho_worst: Radius of the worst case, l2 norm relative to |w|; likewise.
        draws: Perturbations of the average case; likewise.
        steps: Ascent steps of the worst case; likewise.
        worst_group: Examples a group of the worst case; None for all measured examples at once; likewise.
        every_n_epochs: Measure at the end of every n-th epoch; every epoch where no cadence is given.
        every_n_steps: Measure after every n-th optimizer step; with every_n_epochs too, at both.
        measures: What to measure: names, or pairs of a name and settings of the function, for example
            `["sam", "trace_chc", ("worst_case", {"rho": 0.1, "norm": "linf"})]` (in YAML also
            `worst_case: {rho: 0.1}`). The variable has the measure's name, with what makes it another quantity behind
            it (`worst_case_linf`, `average_case_plain`, ...), or the `name` among the settings. A sequence as `rho` is
            a ladder, recorded along a dimension of its own. `normalise_logits` among the settings measures the loss of
            scores brought to one scale. By default gradient_norm, sam, average_case and worst_case.
        **common: Arguments of `LandscapeCallback`: examples, batch_size, path, on_error, mode, weights, noise_seed,
            seed, batches, parameters, log, name, overhead.
    """

    group = "sharpness"
    default_every_n_epochs = 1
    description = "rise of the mean loss over the measured training examples when the weights move"

    def __init__(
        self,
        rho_sam: float = 0.05,
        rho_average: float = 0.1,
        rho_worst: float = 0.5,
        draws: int = 20,
        steps: int = 20,
        worst_group: int | None = None,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        measures: Sequence[Any] | None = None,
        **common: Any,
    ):
        super().__init__(every_n_epochs=every_n_epochs, every_n_steps=every_n_steps, **common)
        positive(rho_sam=rho_sam, rho_average=rho_average, rho_worst=rho_worst)
        counts(2, draws=draws)
        counts(1, steps=steps, worst_group=worst_group)
        if measures is not None:
            listed(measures=measures)
        self.rho_sam, self.rho_average, self.rho_worst = rho_sam, rho_average, rho_worst
        self.draws, self.steps, self.worst_group = draws, steps, worst_group
        self.measures = measures
        defaults: dict[str, dict[str, Any]] = {
            "sam": {"rho": rho_sam},
            "average_case": {"rho": rho_average, "draws": draws},
            "worst_case": {"rho": rho_worst, "steps": steps, "group": worst_group},
        }
        self._recorded = read(_DEFAULT if measures is None else measures, defaults)

    def settings(self) -> dict[str, Any]:
        """Return the settings of the measures."""
        names = ("rho_sam", "rho_average", "rho_worst", "draws", "steps", "worst_group")
        settings: dict[str, Any] = {name: getattr(self, name) for name in names}
        if self.measures is None:
            return settings
        # Readers look for a radius under its old name; it must be the one that was measured at.
        for name, key in (("sam", "rho_sam"), ("average_case", "rho_average"), ("worst_case", "rho_worst")):
            own = [one.settings["rho"] for one in self._recorded if one.name == name]
            settings |= {key: own[0]} if own and not np.ndim(own[0]) else {}
        return settings | {"measures": [recorded.described() for recorded in self._recorded]}

    def scalar_names(self) -> tuple[str, ...]:
        """Return the names of the logged scalars; a ladder has none."""
        return tuple(name for recorded in self._recorded for name in recorded.scalars())

    def forms(self) -> list[dict[str, Any]]:
        """Return the forms: as asked; 10 draws; 4 draws and 5 ascent steps."""
        return sharpness_forms(self._recorded)

    def work(self) -> Work:
        """Return the expected work of one event."""
        return sharpness_work(self._recorded)

    def schema(self, trainer: Any, module: Any) -> dict[str, Any]:
        """Return variables and coordinates of the group."""
        return {
            "variables": [variable for recorded in self._recorded for variable in recorded.variables()],
            "coordinates": [coordinate for recorded in self._recorded for coordinate in recorded.coordinates()],
        }

    def measure(self, objective: Objective, held_out: Objective | None, trainer: Any) -> Mapping[str, Any]:
        """Measure the sharpness at the present weights."""
        shared: list[SymmetricOperator] = []

        def row(recorded: Recorded) -> dict[str, Any]:
            if recorded.takes_operator and not shared:
                shared.append(hessian(objective))
            return recorded.row(objective, shared[0] if shared else None, self.seed)

        parts = self.parts(objective)
        for recorded in self._recorded:
            parts.take(recorded.name, functools.partial(row, recorded))
        return parts.result()
