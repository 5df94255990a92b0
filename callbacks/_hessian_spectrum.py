"""Record the Hessian's spectrum during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from landscape._layout import ParameterLayout
from landscape._memory import budget_bytes
from landscape.callbacks._arguments import counts, listed, one_of, positive
from landscape.callbacks._axes import layer_labels
from landscape.callbacks._base import LandscapeCallback
from landscape.callbacks._effort import Work
from landscape.callbacks._hessian_forms import padded, spectrum_forms, spectrum_work
from landscape.callbacks._hessian_layers import gap_row, layer_row
from landscape.callbacks._hessian_rows import pyhessian_row, take_spectrum, tracked_row
from landscape.callbacks._hessian_schema import hessian_coordinates, hessian_variables
from landscape.callbacks._large_models import fitting, graphs_budget, unasked_budget
from landscape.callbacks._parts import Parts
from landscape.callbacks._session import Session
from landscape.curvature import SymmetricOperator, Tracked, hessian
from landscape.curvature._accuracy import Accuracy, check_tolerance
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
        tol: Relative accuracy of the eigenvalues, or "sample": a tenth of each value's error over examples, and 10⁻³
            where that is not known, as with a single measurement batch. `eigenvalue_tolerance` records it.
        probes: Probes of the density.
        steps: Lanczos steps of each probe after the first.
        max_matvecs: Most products of the eigenpair run; by default max(100, 10 k).
        trace_tol: Relative standard error of the trace to reach.
        trace_max_matvecs: Most products spent on the trace.
        z: Scales of the effective dimensionality N_eff(z), in units of the eigenvalues.
        track: Follow the top eigenpairs from event to event to 1 %, in k + 2 products where the subspace turns slowly
            and up to k + 21 where it does not (`landscape.curvature.track`), and record how far it turned and the
            gradient's share in it; nothing else of the spectrum is measured then.
        layers: Measure every layer's trace and largest eigenvalue too, of its diagonal block of the Hessian: tens of
            products a layer, `trace_max_matvecs` at most for each of the two.
        gap: Measure the distance of the Hessian to the Gauss-Newton matrix too, relative to the Hessian's own size: 20
            products with each, and the graphs of the second.
        memory_budget: What an event may take beside the model, its products' activations and one copy of the weights:
            bytes, a text such as "8GB", or "auto" for what is free when the event begins less a margin. Half of it at
            most goes to kept graphs, the rest to vectors: a basis where it fits, else eigenvalues without vectors. By
            default vectors take 1 GiB, or 8 vectors of larger models, at most. Above ten million parameters batches
            are cut where the graphs of a product would take more than a sixth of the budget.
        engine: "lanczos", or "pyhessian" for PyHessian's own eigenvalues and trace (no density, no bottom end then).
        every_n_epochs: Measure at the end of every n-th epoch; every epoch where no cadence is given.
        every_n_steps: Measure after every n-th optimizer step; with every_n_epochs too, at both.
        **common: Arguments of `LandscapeCallback`: examples, batch_size, path, on_error, mode, weights, noise_seed,
            seed, batches, parameters, log, name, overhead.
    """

    group = "hessian_spectrum"
    default_every_n_epochs = 1
    description = "spectrum of the Hessian of the mean loss over the measured training examples, without weight decay"

    def __init__(
        self,
        k: int = 10,
        k_bottom: int = 2,
        tol: float | str = "sample",
        probes: int = 4,
        steps: int = 25,
        max_matvecs: int | None = None,
        trace_tol: float = 0.05,
        trace_max_matvecs: int = 60,
        z: Sequence[float] = (0.001, 0.01, 0.1, 1.0, 10.0),
        engine: str = "lanczos",
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
        positive(trace_tol=trace_tol)
        check_tolerance(tol)
        one_of(_ENGINES, engine=engine)
        self.k, self.k_bottom, self.tol = k, k_bottom, tol
        self.probes, self.steps = probes, steps
        self.max_matvecs = max_matvecs or max(100, 10 * k)
        self.trace_tol, self.trace_max_matvecs = trace_tol, trace_max_matvecs
        self.z = tuple(z)
        self.engine = engine
        if track and engine != "lanczos":
            raise ValueError("track=True follows the eigenpairs by itself: leave engine as it is")
        if (layers or gap) and engine != "lanczos":
            raise ValueError(
                f"engine={engine!r} knows neither layers nor gap; leave engine as it is, or both of them out"
            )
        if engine == "pyhessian" and self.measured.parameters is not None:
            raise ValueError("engine='pyhessian' measures all trainable parameters; leave engine or parameters out")
        self.track = track
        self.layers, self.gap = layers, gap
        budget_bytes(memory_budget, torch.device("cpu"))  # refuses what is none
        if memory_budget is not None and (track or engine != "lanczos"):
            raise ValueError("track=True and engine='pyhessian' keep no budget of memory; leave memory_budget out")
        self.memory_budget = memory_budget
        self._tracked: Tracked | None = None
        self._tracked_layout: ParameterLayout | None = None
        self._layer_names: tuple[str, ...] = ()
        self._room = {"top": k, "bottom": k_bottom}
        self._shape = (probes, self._nodes)  # of the density in the file

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
        variables = hessian_variables(self.track, self.layers, self.gap)
        return {"variables": variables, "coordinates": coordinates}

    @property
    def _nodes(self) -> int:
        return max(self.max_matvecs, self.steps)

    def forms(self) -> list[dict[str, Any]]:
        """Return the forms: as asked; 2 probes, the trace to 10 %; one run of 10 products for all."""
        return spectrum_forms(self.settings())

    def work(self) -> Work:
        """Return the expected work of one event."""
        return spectrum_work(self.settings(), len(self._layer_names), _GAP_PROBES)

    def on_training_start(self, session: Session, trainer: Any, module: Any) -> None:
        """Forget what a former training was tracked by."""
        self._tracked = None

    def measure(self, objective: Objective, held_out: Objective | None, trainer: Any) -> Mapping[str, Any]:
        """Measure the spectrum at the present weights."""
        if self.engine == "pyhessian":
            return pyhessian_row(objective, self.k, Accuracy(self.tol, None).number, self.seed)
        budget = budget_bytes(self.memory_budget, objective.device) or unasked_budget(objective)
        named = self.memory_budget is not None
        graphs = min(MEMORY_BUDGET, budget // 2) if named else graphs_budget(objective, budget)
        objective = fitting(objective, budget)
        operator = hessian(objective, memory_budget=graphs)
        # Graphs are no part of a budget that nobody has named.
        left = max(budget - operator.kept_bytes, 1) if named else budget
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
        return padded(parts.result(), self._room) | {"n_matvecs": operator.n_matvecs + others}

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
            probes=self.probes,
            steps=self.steps,
            max_matvecs=self.max_matvecs,
            trace_tol=self.trace_tol,
            trace_max_matvecs=self.trace_max_matvecs,
            z=self.z,
            shape=self._shape,
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
