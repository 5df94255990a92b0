"""Record the Hessian's spectrum during training."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from landscape._batches import n_examples
from landscape._errors import MeasurementError
from landscape.callbacks._arguments import at_least, one_of, positive
from landscape.callbacks._base import LandscapeCallback
from landscape.callbacks._budget import TimeBudget
from landscape.callbacks._hessian_schema import hessian_schema
from landscape.callbacks._session import Session
from landscape.curvature import (
    effective_dimension,
    hessian,
    negative_share,
    pyhessian_spectrum,
    spectral_entropy,
    spectrum,
    trace,
)
from landscape.objective import Objective

_ENGINES = ("lanczos", "pyhessian")


class HessianSpectrum(LandscapeCallback):
    """Eigenvalues at both ends, spectral density, trace and effective dimensionality of the loss's Hessian.

    Group `hessian_spectrum`. One Lanczos run with full reorthogonalisation gives the eigenpairs with residuals and the
    first probe of the density; further probes give its standard error. The eigenpairs spare Hutch++ its sketch for the
    trace. N_eff, entropy and negative share come from the density. See `landscape.curvature` for the functions.

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
        engine: "lanczos", or "pyhessian" for PyHessian's own eigenvalues and trace (no density, no bottom end then).
        every_n_epochs: Measure at the end of every n-th epoch; every epoch where no cadence is given.
        every_n_steps: Measure after every n-th optimizer step; with every_n_epochs too, at both.
        **common: Arguments of `LandscapeCallback`: examples, batch_size, path, on_error, mode, weights, noise_seed,
            seed, batches, log, name.
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
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        **common: Any,
    ):
        super().__init__(every_n_epochs=every_n_epochs, every_n_steps=every_n_steps, **common)
        at_least(1, k=k, k_bottom=k_bottom, probes=probes, steps=steps, max_matvecs=max_matvecs)
        at_least(8, trace_max_matvecs=trace_max_matvecs)
        positive(tol=tol, trace_tol=trace_tol, budget=budget)
        one_of(_ENGINES, engine=engine)
        self.k, self.k_bottom, self.tol = k, k_bottom, tol
        self.probes, self.steps = probes, steps
        self.max_matvecs = max_matvecs or max(100, 10 * k)
        self.trace_tol, self.trace_max_matvecs = trace_tol, trace_max_matvecs
        self.z = tuple(z)
        self.engine = engine
        self.budget = budget
        self._budget: TimeBudget | None = None
        self._probes = probes
        self._fixed_products: float = self.max_matvecs + trace_max_matvecs

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
        )
        return {name: getattr(self, name) for name in names}

    def scalar_names(self) -> tuple[str, ...]:
        """Return the names of the logged scalars."""
        return ("lambda_max", "lambda_min", "trace", "trace_stderr")

    def schema(self, trainer: Any, module: Any) -> dict[str, Any]:
        """Return variables and coordinates of the group."""
        return hessian_schema(self.k, self.k_bottom, self.probes, self._nodes, self.z, self.budget is not None)

    @property
    def _nodes(self) -> int:
        return max(self.max_matvecs, self.steps)

    def on_training_start(self, session: Session, trainer: Any, module: Any) -> None:
        """Start the clock of the time budget."""
        self._budget = None if self.budget is None else TimeBudget(self.budget)

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
        for probes in range(self.probes, 0, -1):
            if self._budget.affords(self._work(probes), self._measured_examples(trainer)):
                self._probes = probes
                return True
        return False

    def _work(self, probes: int) -> float:
        """Products expected with that many probes: those of the last event, or the most of the first."""
        return self._fixed_products + (probes - 1) * self.steps

    def _measured_examples(self, trainer: Any) -> int:
        where = (trainer, trainer.lightning_module, self.measured, self.batches)
        try:
            return self._session.objectives(*where)[0].n_examples if self._session else 1
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
        return self._pyhessian(objective) if self.engine == "pyhessian" else self._lanczos(objective)

    def _lanczos(self, objective: Objective) -> dict[str, Any]:
        operator = hessian(objective)
        result = spectrum(
            operator,
            k=self.k,
            k_bottom=self.k_bottom,
            tol=self.tol,
            seed=self.seed,
            probes=self._probes,
            steps=self.steps,
            max_matvecs=self.max_matvecs,
        )
        # The eigenpairs just found stand in for the sketch: few products are left for the rest of the trace.
        estimate = trace(
            operator,
            method="hutch++",
            tol=self.trace_tol,
            seed=self.seed,
            max_matvecs=self.trace_max_matvecs,
            known=(result.top, result.bottom),
        )
        missing = (self.probes - self._probes, self._nodes - result.density.nodes.shape[1])
        padding = ((0, missing[0]), (0, missing[1]))
        n_eff = effective_dimension(result.density, self.z, objective.n_examples)
        negative = negative_share(result.density)
        entropy = spectral_entropy(result.density)
        chosen = {}
        if self._budget is not None:
            chosen = {"n_probes": self._probes, "overhead": self._budget.overhead}
        return chosen | {
            "lambda_max": result.top.values[0],
            "lambda_min": result.bottom.values[0],
            "eigenvalues_top": result.top.values,
            "residuals_top": result.top.residuals,
            "converged_top": result.top.converged_each.astype(np.int8),
            "eigenvalues_bottom": result.bottom.values,
            "residuals_bottom": result.bottom.residuals,
            "converged_bottom": result.bottom.converged_each.astype(np.int8),
            "density_nodes": np.pad(result.density.nodes, padding, mode="edge"),
            "density_weights": np.pad(result.density.weights, padding),
            "trace": estimate.value,
            "trace_stderr": estimate.stderr,
            "n_eff": n_eff.value,
            "n_eff_complement": n_eff.complement,
            "n_eff_stderr": n_eff.stderr,
            "negative_share": negative.value,
            "negative_share_stderr": negative.stderr,
            "spectral_entropy": entropy.value,
            "spectral_entropy_stderr": entropy.stderr,
            "n_matvecs": operator.n_matvecs,
        }

    def _pyhessian(self, objective: Objective) -> dict[str, Any]:
        if self.measured.mode != "eval":
            raise MeasurementError("PyHessian measures in eval mode only; use mode='eval' or engine='lanczos'")
        pairs, estimate = pyhessian_spectrum(objective, self.k, self.tol, self.seed)
        return {
            "lambda_max": pairs.values[0],
            "eigenvalues_top": pairs.values,
            "residuals_top": pairs.residuals,
            "converged_top": pairs.converged_each.astype(np.int8),
            "trace": estimate.value,
            "trace_stderr": estimate.stderr,
            "n_matvecs": pairs.n_matvecs,
        }
