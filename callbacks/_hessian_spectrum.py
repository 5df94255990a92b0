"""Record the Hessian's spectrum during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from landscape._errors import MeasurementError
from landscape.callbacks._arguments import at_least, one_of, positive
from landscape.callbacks._base import LandscapeCallback
from landscape.curvature import hessian, pyhessian_spectrum, spectrum, trace
from landscape.objective import Objective
from landscape.record import Coordinate, Variable

_ENGINES = ("lanczos", "pyhessian")


class HessianSpectrum(LandscapeCallback):
    """Eigenvalues at both ends, spectral density, trace and effective dimensionality of the loss's Hessian.

    Group `hessian_spectrum`. One Lanczos run with full reorthogonalisation gives the eigenpairs with residuals and the
    first probe of the density; further probes give its standard error; the trace comes from XTrace; N_eff from the
    density. See `landscape.curvature` for the functions themselves.

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
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        **common: Any,
    ):
        super().__init__(every_n_epochs=every_n_epochs, every_n_steps=every_n_steps, **common)
        at_least(1, k=k, k_bottom=k_bottom, probes=probes, steps=steps, max_matvecs=max_matvecs)
        at_least(8, trace_max_matvecs=trace_max_matvecs)
        positive(tol=tol, trace_tol=trace_tol)
        one_of(_ENGINES, engine=engine)
        self.k, self.k_bottom, self.tol = k, k_bottom, tol
        self.probes, self.steps = probes, steps
        self.max_matvecs = max_matvecs or max(100, 10 * k)
        self.trace_tol, self.trace_max_matvecs = trace_tol, trace_max_matvecs
        self.z = tuple(z)
        self.engine = engine

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
        )
        return {name: getattr(self, name) for name in names}

    def scalar_names(self) -> tuple[str, ...]:
        """Return the names of the logged scalars."""
        return ("lambda_max", "lambda_min", "trace", "trace_stderr")

    def schema(self, trainer: Any, module: Any) -> dict[str, Any]:
        """Return variables and coordinates of the group."""
        nodes = max(self.max_matvecs, self.steps)
        variables = [Variable("lambda_max", description="largest eigenvalue (not invariant to reparametrisation)")]
        variables += [Variable("lambda_min", description="smallest, most negative eigenvalue")]
        for end, dim in (("top", "eigenvalue"), ("bottom", "eigenvalue_bottom")):
            variables += [
                Variable(f"eigenvalues_{end}", (dim,), description=f"eigenvalues at the {end}, outermost first"),
                Variable(f"residuals_{end}", (dim,), description="norm of Hv - lambda v for the unit eigenvector v"),
                Variable(f"converged_{end}", (dim,), "i1", description="1 where the residual met the tolerance"),
            ]
        variables += [
            Variable("density_nodes", ("probe", "node"), description="quadrature nodes of the spectral density"),
            Variable("density_weights", ("probe", "node"), description="their weights; those of a probe sum to 1"),
            Variable("trace", description="trace of the Hessian (not invariant to reparametrisation)"),
            Variable("trace_stderr", description="standard error of the trace"),
            Variable(
                "n_eff", ("z",), description="effective dimensionality, the sum of l/(l+z) over eigenvalues l > 0"
            ),
            Variable("n_eff_stderr", ("z",), description="its standard error over probes"),
            Variable("n_matvecs", (), "i8", description="Hessian-vector products spent"),
        ]
        coordinates = [
            Coordinate("eigenvalue", np.arange(self.k), description="rank from the top"),
            Coordinate("eigenvalue_bottom", np.arange(self.k_bottom), description="rank from the bottom"),
            Coordinate("probe", np.arange(self.probes), description="probe of the quadrature"),
            Coordinate("node", np.arange(nodes), description="node of a probe's quadrature; unused ones have weight 0"),
            Coordinate("z", self.z, description="scale of the effective dimensionality, in units of eigenvalues"),
        ]
        return {"variables": variables, "coordinates": coordinates}

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
            probes=self.probes,
            steps=self.steps,
            max_matvecs=self.max_matvecs,
        )
        estimate = trace(operator, tol=self.trace_tol, seed=self.seed, max_matvecs=self.trace_max_matvecs)
        nodes = max(self.max_matvecs, self.steps)
        padding = ((0, 0), (0, nodes - result.density.nodes.shape[1]))
        n_eff = [result.density.n_eff(z) for z in self.z]
        return {
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
            "n_eff": [value.value for value in n_eff],
            "n_eff_stderr": [value.stderr for value in n_eff],
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
