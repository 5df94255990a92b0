"""Record at every few steps how close the optimizer is to the edge of stability, at the cost of few products."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from landscape._layout import ParameterLayout
from landscape.callbacks._arguments import counts, listed, one_of, positive
from landscape.callbacks._base import LandscapeCallback
from landscape.callbacks._effort import Work
from landscape.callbacks._last_step import LastStep
from landscape.callbacks._monitor_rows import Step, critical_row, directional_row, noise_row, top_row
from landscape.callbacks._monitor_schema import (
    CRITICAL,
    DIRECTIONAL,
    LAMBDA_MAX,
    MEASURES,
    NOISE,
    PRECONDITIONED,
    monitor_scalars,
    monitor_variables,
)
from landscape.callbacks._session import Session, evaluate
from landscape.curvature import SymmetricOperator, Tracked, hessian
from landscape.objective import Evaluation, Objective
from landscape.sharpness._preconditioner import coupled_decay, kind_of
from landscape.sharpness._preconditioner import listed as optimizers_of

_EVERY_N_STEPS = 10


class SharpnessMonitor(LandscapeCallback):
    """Sharpness along the optimizer's own steps, cheap enough for every tenth step of a large training.

    Group `sharpness_monitor`. A row describes the last optimizer step: the weights that it began from, the update that
    it made, and the state that the optimizer made it with. All numbers of the row, the training loss too, are taken at
    the weights *before* that step; `step` counts it. The update is the difference of the weights after and before, so
    any optimizer will do; over a batch with several optimizer steps it is their sum. The held-out loss is left out. A
    step that moved nothing, as when a gradient scaler skips it, leaves the numbers along it NaN, with the reason.

    The line that each number is compared with: `critical_sharpness` with 2/η for every optimizer, `lambda_max` with
    2/η or (2+2β)/η for gradient descent, `preconditioned_sharpness` with (2+2β₁)/((1−β₁)η) for Adam. See
    `landscape.sharpness` for the functions, and `landscape plot --kind monitor` for the picture.

    Cost of an event: up to 7 forward passes (24 at the first), a gradient, the graph of one differentiation, a product
    along the update, and 3 to 5 for an eigenvalue, which the product along the update helps to find. In gradients over
    the measured examples that is about 2 for the critical sharpness, 4 with the directional one, and 12 with an
    eigenvalue. Measure fewer examples than a training batch holds, or more seldom, where that is too much.

    Memory: one copy of the parameters between the optimizer step and the end of its batch, at measured steps only;
    five vectors between events for the tracked eigenvalue; during an event some 30 more and the Hessian's graph.

    Args:
        measures: Any of "critical_sharpness", "directional_sharpness", "lambda_max", "preconditioned_sharpness" and
            "gradient_noise_scale". By default the first two, and the eigenvalue that has a stability line: the
            preconditioned one for Adam, AdamW, RMSprop and Adagrad, λmax for all others.
        max_matvecs: Most products for an eigenvalue once it is tracked, at least 4.
        tol: Relative accuracy of the eigenvalues at which fewer products suffice.
        noise_groups: Number of groups that the examples are cut into for the gradient noise scale, where there are
            fewer batches.
        examples: Number of training examples measured, drawn once with `seed` and held for the run.
        every_n_epochs: Measure at the end of every n-th epoch.
        every_n_steps: Measure after every n-th optimizer step; every 10th where no cadence is given.
        **common: Arguments of `LandscapeCallback`: batch_size, path, on_error, mode, noise_seed, seed, batches, log,
            name, overhead.
    """

    group = "sharpness_monitor"
    whole = "measures the optimizer's whole steps"
    description = "sharpness along the last optimizer step, at the weights before it, on measured training examples"

    def __init__(
        self,
        measures: Sequence[str] | None = None,
        max_matvecs: int = 5,
        tol: float = 1e-3,
        noise_groups: int = 8,
        examples: int | None = 256,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        **common: Any,
    ):
        if every_n_epochs is None and every_n_steps is None:
            every_n_steps = _EVERY_N_STEPS
        super().__init__(every_n_epochs=every_n_epochs, every_n_steps=every_n_steps, examples=examples, **common)
        counts(4, max_matvecs=max_matvecs)
        counts(2, noise_groups=noise_groups)
        positive(tol=tol)
        if self.weights != "iterate":
            raise ValueError(
                "weights='swa' has no meaning here: the monitor measures the optimizer's own steps; leave weights out"
            )
        if measures is not None:
            listed(measures=measures)
            for name in measures:
                one_of(MEASURES, measures=name)
        self.measures = None if measures is None else tuple(measures)
        self.max_matvecs, self.tol, self.noise_groups = max_matvecs, tol, noise_groups
        self._chosen: tuple[str, ...] = self.measures or ()
        self._last = LastStep()
        self._step: Step | None = None
        self._critical_rate: float | None = None
        self._tracked: dict[str, Tracked] = {}
        self._tracked_layout: ParameterLayout | None = None

    def settings(self) -> dict[str, Any]:
        """Return the settings of the measure."""
        return {name: getattr(self, name) for name in ("measures", "max_matvecs", "tol", "noise_groups")}

    def scalar_names(self) -> tuple[str, ...]:
        """Return the names of the logged scalars."""
        return monitor_scalars(self._chosen)

    def work(self) -> Work:
        """Return the expected work of one event."""
        return Work(products=1.0 + self.max_matvecs, gradients=3.0, evaluations=7.0, vectors=30)

    def schema(self, trainer: Any, module: Any) -> dict[str, Any]:
        """Return the variables of the group; what is measured by default depends on the optimizer."""
        kinds = {kind_of(optimizer) for optimizer in optimizers_of(trainer.optimizers)}
        adaptive = bool(kinds) and not kinds & {None, torch.optim.SGD}
        self._chosen = self.measures or (CRITICAL, DIRECTIONAL, PRECONDITIONED if adaptive else LAMBDA_MAX)
        return {"variables": monitor_variables(self._chosen), "attributes": {"weights": "before_step"}}

    def on_training_start(self, session: Session, trainer: Any, module: Any) -> None:
        """Forget what a former training was tracked by."""
        self._forget()

    # ------------------------------------------------------------------ the step

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Keep the weights where the step that follows will be measured."""
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        if self._session is not None and self._is_due(trainer):
            with self._failures.passing("keep the weights before a step"):
                self._last.keep(pl_module)

    def _is_due(self, trainer: Any) -> bool:
        if self.every_n_steps and self._last.crosses(self._seen_step, self.every_n_steps):
            return True
        last = self.every_n_epochs and trainer.is_last_batch
        return bool(last and (trainer.current_epoch + 1) % self.every_n_epochs == 0)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Measure where the cadence says so, and let go of weights that were kept in vain."""
        self._last.saw(trainer.global_step - self._seen_step)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._seen_step = trainer.global_step
        if not self.every_n_epochs or not trainer.is_last_batch:  # else the end of the epoch may need them
            self._last.forget()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure where the number of epochs says so."""
        super().on_train_epoch_end(trainer, pl_module)
        self._last.forget()

    # ------------------------------------------------------------------ one event

    def _placed(
        self, trainer: Any, objective: Objective, held_out: Objective | None
    ) -> tuple[Objective, Objective | None]:
        """Return the objective at the weights before the last step, or at the present ones where they are not known."""
        before, rate = self._last.weights(objective), _rate(self._learning_rate, trainer)
        update = None if before is None else objective.start() - before
        self._step = Step(update, rate, trainer.optimizers)
        return objective if before is None else objective.at(before), None

    def _evaluated(
        self, session: Session, objective: Objective, held_out: Objective | None, where: tuple[Any, ...]
    ) -> tuple[Evaluation, Evaluation]:
        return evaluate(objective, None)

    def measure(self, objective: Objective, held_out: Objective | None, trainer: Any) -> Mapping[str, Any]:
        """Measure the last step."""
        step, self._step = self._step, None
        assert step is not None
        if objective.layout != self._tracked_layout:  # vectors of other parameters are no start
            self._tracked, self._tracked_layout = {}, objective.layout
        operators: list[SymmetricOperator] = []
        slope: list[float] = []
        update: dict[str, Any] = {}

        def operator() -> SymmetricOperator:
            if not operators:
                operators.append(hessian(objective))
            return operators[0]

        def directional() -> dict[str, Any]:
            decay = coupled_decay(objective, trainer.optimizers)
            row, taken_in = directional_row(objective, step, operator(), decay)
            slope.append(row["update_slope"])
            update.update(taken_in)
            return row

        def critical() -> dict[str, Any]:
            decay = coupled_decay(objective, trainer.optimizers)
            row, self._critical_rate = critical_row(objective, step, self._critical_rate, slope, decay)
            return row

        def top(name: str) -> dict[str, Any]:
            settings = {"tol": self.tol, "max_matvecs": self.max_matvecs, "seed": self.seed, **update}
            optimizers = step.optimizers if name == PRECONDITIONED else None
            row, self._tracked[name] = top_row(
                name, objective, operator(), self._tracked.get(name), optimizers, **settings
            )
            return row

        takers = {
            DIRECTIONAL: directional,
            CRITICAL: critical,
            LAMBDA_MAX: lambda: top(LAMBDA_MAX),
            PRECONDITIONED: lambda: top(PRECONDITIONED),
            NOISE: lambda: noise_row(objective, self.noise_groups),
        }
        parts = self.parts(objective)
        for name in (name for name in takers if name in self._chosen):  # the slope comes before what it helps
            parts.take(name, takers[name])
        return parts.result() | {"n_matvecs": sum(operator.n_matvecs for operator in operators)}

    def _forget(self) -> None:
        self._last, self._step, self._critical_rate = LastStep(), None, None
        self._tracked, self._tracked_layout = {}, None

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Write what is buffered, and let go of all vectors."""
        super().teardown(trainer, pl_module, stage)
        if stage == "fit":
            self._forget()

    def __getstate__(self) -> dict[str, Any]:
        """Leave vectors and optimizers out of pickles and copies: a resumed training begins with a cold start."""
        return super().__getstate__() | {"_last": LastStep(), "_step": None, "_tracked": {}, "_tracked_layout": None}


def _rate(noted: float, trainer: Any) -> float:
    """Return the learning rate that η stands for: the first parameter group's, or the first one above 0, or NaN."""
    rates = [float(group["lr"]) for one in trainer.optimizers for group in one.param_groups if "lr" in group]
    return next((rate for rate in (noted, *rates) if rate > 0), math.nan)
