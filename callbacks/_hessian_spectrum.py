"""Record the Hessian's spectrum during training."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from landscape._batches import n_examples
from landscape._errors import MeasurementError
from landscape._layout import ParameterLayout
from landscape._memory import budget_bytes
from landscape.callbacks._arguments import counts, listed, one_of, positive
from landscape.callbacks._axes import layer_labels
from landscape.callbacks._base import LandscapeCallback
from landscape.callbacks._budget import TimeBudget
from landscape.callbacks._hessian_layers import gap_row, layer_row
from landscape.callbacks._hessian_rows import pyhessian_row, take_spectrum, tracked_row
from landscape.callbacks._hessian_schema import hessian_coordinates, hessian_variables
from landscape.callbacks._parts import Parts
from landscape.callbacks._session import Session
from landscape.curvature import SymmetricOperator, Tracked, hessian
from landscape.curvature._batchwise import MEMORY_BUDGET
from landscape.objective import Objective

_ENGINES = ("lanczos", "pyhessian")
_GAP_PROBES = 20


class HessianSpectrum(LandscapeCallback):
    """Eigenvalues at both ends, spectral density, trace and effective dimensionality of the loss's Hessian.

    Group `hessian_spectrum`. One Lanczos run with full reorthogonalisation gives the eigenpairs with residuals and the
    first probe of the density; further probes give its standard error. The eigenpairs spare Hutch++ its sketch for the
    trace. N_eff, entropy and negative share come from the density; the condition number is that of the eigenvalues at
    the top. See `landscape.curvature` for the functions.

    Args:
        k: Number of eigenvalues at the top.
        k_bottom: Number at the bottom.
        tol: Relative residual of the eigenpairs.
        probes: Probes of the density.
        steps: Lanczos steps of each probe after the first.
        max_matvecs: Most products of the eigenpair run; by default max(100, 10 k).
        trace_tol: Relative standard error of the trace to reach.
        trace_max_matvecs: Most products spent on the trace.
        z: Scales of the effective dimensionality N_eff(z), in units of the eigenvalues.
        budget: Seconds of measurement allowed for a second of training, such as 0.05: events are then left out, and
            probes of the density, until the measured overhead keeps below it. What was chosen is recorded.
        track: Follow the top eigenpairs from event to event to 1 %, in k + 2 products where the subspace turns slowly
            and up to k + 21 where it does not (`landscape.curvature.track`), and record how far it turned and the
            gradient's share in it; nothing else of the spectrum is measured then.
        layers: Measure every layer's trace and largest eigenvalue too, of its diagonal block of the Hessian: tens of
            products a layer, `trace_max_matvecs` at most for each of the two.
        gap: Measure the distance of the Hessian to the Gauss-Newton matrix too, relative to the Hessian's own size: 20
            products with each, and the graphs of the second.
        memory_budget: What an event may take beside the model, its products' activations and one copy of the weights:
            bytes, a text such as "8GB", or "auto" for what is free when the event begins less a margin. Half of it at
            most goes to kept graphs, the rest to vectors: a basis where it fits, else eigenvalues without vectors.
        engine: "lanczos", or "pyhessian" for PyHessian's own eigenvalues and trace (no density, no bottom end then).
        every_n_epochs: Measure at the end of every n-th epoch; every epoch where no cadence is given.
        every_n_steps: Measure after every n-th optimizer step; with every_n_epochs too, at both.
        **common: Arguments of `LandscapeCallback`: examples, batch_size, path, on_error, mode, weights, noise_seed,
            seed, batches, parameters, log, name.
    """

    group = "hessian_spectrum"
    default_every_n_epochs = 1
    description = "spectrum of the Hessian of the mean loss over the measured training examples, without weight decay"

    def __init__(
        self,
        k: int = 10,
        k_bottom: int = 2,
        tol: float = 1e-3,
        probes: int = 4,
        steps: int = 25,
        max_matvecs: int | None = None,
        trace_tol: float = 0.05,
        trace_max_matvecs: int = 60,
        z: Sequence[float] = (0.001, 0.01, 0.1, 1.0, 10.0),
        engine: str = "lanczos",
        budget: float | None = None,
        track: bool = False,
        layers: bool = False,
        gap: bool = False,
        memory_budget: int | str | None = None,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        **common: Any,
    ):
        super().__init__(every_n_epochs=every_n_epochs, every_n_steps=every_n_steps, **common)
        counts(1, k=k, k_bottom=k_bottom, probes=probes, steps=steps, max_matvecs=max_matvecs)
        counts(8, trace_max_matvecs=trace_max_matvecs)
        listed(z=z)
        positive(tol=tol, trace_tol=trace_tol, budget=budget)
        one_of(_ENGINES, engine=engine)
        self.k, self.k_bottom, self.tol = k, k_bottom, tol
        self.probes, self.steps = probes, steps
        self.max_matvecs = max_matvecs or max(100, 10 * k)
        self.trace_tol, self.trace_max_matvecs = trace_tol, trace_max_matvecs
        self.z = tuple(z)
        self.engine = engine
        if track and (engine != "lanczos" or budget is not None):
            raise ValueError("track=True follows the eigenpairs by itself: leave engine and budget as they are")
        if (layers or gap) and engine != "lanczos":
            raise ValueError(
                f"engine={engine!r} knows neither layers nor gap; leave engine as it is, or both of them out"
            )
        if engine == "pyhessian" and self.measured.parameters is not None:
            raise ValueError("engine='pyhessian' measures all trainable parameters; leave engine or parameters out")
        self.budget = budget
        self.track = track
        self.layers, self.gap = layers, gap
        budget_bytes(memory_budget, torch.device("cpu"))  # refuses what is none
        if memory_budget is not None and (track or engine != "lanczos"):
            raise ValueError("track=True and engine='pyhessian' keep no budget of memory; leave memory_budget out")
        self.memory_budget = memory_budget
        self._tracked: Tracked | None = None
        self._tracked_layout: ParameterLayout | None = None
        self._layer_names: tuple[str, ...] = ()
        self._budget: TimeBudget | None = None
        self._probes = probes
        self._fixed_products: float = 0.0

    def settings(self) -> dict[str, Any]:
        """Return the settings of the measure."""
        names = (
            "k",
            "k_bottom",
            "tol",
            "probes",
            "steps",
            "max_matvecs",
            "trace_tol",
            "trace_max_matvecs",
            "z",
            "engine",
            "budget",
            "track",
            "layers",
            "gap",
            "memory_budget",
        )
        return {name: getattr(self, name) for name in names}

    def scalar_names(self) -> tuple[str, ...]:
        """Return the names of the logged scalars."""
        if self.track:
            return ("lambda_max", "gradient_share")
        return ("lambda_max", "lambda_min", "trace", "trace_stderr")

    def schema(self, trainer: Any, module: Any) -> dict[str, Any]:
        """Return variables and coordinates of the group."""
        settings = (self.k, self.k_bottom, self.probes, self._nodes, self.z)
        self._layer_names = layer_labels(module) if self.layers else ()
        coordinates = hessian_coordinates(*settings, self._layer_names)
        variables = hessian_variables(self.budget is not None, self.track, self.layers, self.gap)
        return {"variables": variables, "coordinates": coordinates}

    @property
    def _nodes(self) -> int:
        return max(self.max_matvecs, self.steps)

    def on_training_start(self, session: Session, trainer: Any, module: Any) -> None:
        """Start the clock of the time budget, and forget what a former training was tracked by."""
        self._tracked = None
        self._budget = None if self.budget is None else TimeBudget(self.budget)
        traces = 1 + 2 * len(self._layer_names)
        self._fixed_products = self.max_matvecs + traces * self.trace_max_matvecs + 2 * _GAP_PROBES * self.gap

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count what the training does in its time, then measure where the cadence says so."""
        if self._budget is not None:
            try:
                examples = n_examples(batch)
            except MeasurementError:
                examples = 1  # uncounted: the first event is then expected to be dearer than it is
            self._budget.saw(examples)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _begun(self, trainer: Any) -> bool:
        """Whether there is something to measure, and time for it: as many probes as the budget affords."""
        if not super()._begun(trainer):
            return False
        if self._budget is None:
            return True
        examples = self._measured_examples(trainer)
        counts = range(self.probes, 0, -1)
        affordable = next((n for n in counts if self._budget.affords(self._work(n), examples)), 0)
        if self._session is not None:
            affordable = self._session.processes.first(affordable)  # clocks differ
        self._probes = affordable or self._probes
        return affordable > 0

    def _work(self, probes: int) -> float:
        """Products expected with that many probes: those of the last event, or the most of the first."""
        return self._fixed_products + (probes - 1) * self.steps

    def _measured_examples(self, trainer: Any) -> int:
        where = (trainer, trainer.lightning_module, self.measured, self.batches)
        if self._session is None:
            return 1
        try:
            with self._session.processes.together():
                return self._session.objectives(*where)[0].n_examples
        except Exception:
            return 1  # the event itself will fail, and say why

    def _record(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if self._budget is None:
            return super()._record(*args, **kwargs)
        started = time.perf_counter()
        measured = super()._record(*args, **kwargs)
        products = measured.get("n_matvecs", self._work(self._probes))
        self._budget.charge(time.perf_counter() - started, products)
        self._fixed_products = max(products - (self._probes - 1) * self.steps, 1)
        return measured

    def measure(self, objective: Objective, held_out: Objective | None, trainer: Any) -> Mapping[str, Any]:
        """Measure the spectrum at the present weights."""
        if self.engine == "pyhessian":
            return pyhessian_row(objective, self.k, self.tol, self.seed)
        budget = budget_bytes(self.memory_budget, objective.device)
        operator = hessian(
            objective, memory_budget=MEMORY_BUDGET if budget is None else min(MEMORY_BUDGET, budget // 2)
        )
        left = None if budget is None else max(budget - operator.kept_bytes, 1)
        parts = self.parts(objective)
        if self.track:
            parts.take("tracked eigenpairs", lambda: self._tracked_row(objective, operator))
        else:
            self._take_spectrum(parts, objective, operator, left)
        others = 0

        def gap() -> dict[str, Any]:
            nonlocal others
            distances, others = gap_row(operator, objective, _GAP_PROBES, self.seed)
            return distances

        if self.layers:
            settings = (self.tol, self.trace_tol, self.trace_max_matvecs, self.seed)
            parts.take("layers", lambda: layer_row(operator, self._layer_names, *settings))
        if self.gap:
            parts.take("gap", gap)
        row = parts.result() | {"n_matvecs": operator.n_matvecs + others}
        if self._budget is not None:
            row |= {"n_probes": self._probes, "overhead": self._budget.overhead}
        return row

    def _tracked_row(self, objective: Objective, operator: SymmetricOperator) -> dict[str, Any]:
        # Vectors of other parameters are no start, and no subspace to turn from.
        previous = self._tracked if objective.layout == self._tracked_layout else None
        row, self._tracked = tracked_row(objective, operator, previous, self.k, self.seed)
        self._tracked_layout = objective.layout
        return row

    def _take_spectrum(
        self, parts: Parts, objective: Objective, operator: SymmetricOperator, memory_budget: int | None
    ) -> None:
        take_spectrum(
            parts,
            objective,
            operator,
            k=self.k,
            k_bottom=self.k_bottom,
            tol=self.tol,
            seed=self.seed,
            probes=self._probes,
            steps=self.steps,
            max_matvecs=self.max_matvecs,
            trace_tol=self.trace_tol,
            trace_max_matvecs=self.trace_max_matvecs,
            z=self.z,
            shape=(self.probes, self._nodes),
            memory_budget=memory_budget,
        )

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Write what is buffered, and let go of the tracked vectors."""
        super().teardown(trainer, pl_module, stage)
        if stage == "fit":
            self._tracked = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the tracked vectors out of pickles and copies: a resumed training begins with a cold start."""
        return super().__getstate__() | {"_tracked": None}
