"""The quantisation law: what curvature foretells of the rise of the loss on uniform grids, beside what was measured."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from landscape._errors import MeasurementError
from landscape._given import of_objective
from landscape._results import Estimate, Result
from landscape.compression._radii import radii
from landscape.compression._search import Bits, bits
from landscape.compression._tolerances import Floats
from landscape.curvature import SymmetricOperator, hessian, trace
from landscape.objective import Objective
from landscape.sharpness._congruence import stretched

# What the grid's step is relative to, in the families that are uniform grids.
GRIDS = {"uniform-tensor": "tensor"}


@dataclasses.dataclass(frozen=True, eq=False)
class QuantisationLaw(Result):
    """Predicted and measured rise of the loss on uniform grids.

    Attributes:
        tolerances: Allowed rises of the loss, shape (tolerance,).
        predicted_knob: The knob at which the law reaches each, √(24 ε / κ); NaN where κ is not positive.
        predicted_knob_stderr: Its standard error, to first order.
        measured_knob: The knob that the search found; NaN where none keeps the tolerance.
        rung_knob: The knobs at which the loss was evaluated, coarse to fine, shape (rung,).
        predicted_rise: κ knob² / 24 at each.
        predicted_rise_stderr: Its standard error.
        measured_rise: The rise of the loss there; infinite where it is no number.
        curvature: κ = Σ_t κ_t.
        curvature_stderr: Its standard error.
        tensor_curvature: κ_t = Tr((CHC)_tt), the share of each tensor, shape (tensor,).
        tensor_curvature_stderr: Their standard errors.
        names: The tensors' names, shape (tensor,).
        family: The family of codes.
        n_matvecs: How many products with the Hessian were taken.
        converged: Whether every trace reached its tolerance.
        seed: Seed of the test vectors.
    """

    tolerances: Floats
    predicted_knob: Floats
    predicted_knob_stderr: Floats
    measured_knob: Floats
    rung_knob: Floats
    predicted_rise: Floats
    predicted_rise_stderr: Floats
    measured_rise: Floats
    curvature: float
    curvature_stderr: float
    tensor_curvature: Floats
    tensor_curvature_stderr: Floats
    names: npt.NDArray[np.str_]
    family: str
    n_matvecs: int
    converged: bool
    seed: int


@of_objective
def quantisation_law(
    objective: Objective,
    curve: Bits | None = None,
    tol: float = 0.1,
    max_matvecs: int = 50,
    seed: int = 0,
) -> QuantisationLaw:
    """Compare E[L(w + e)] − L(w) = Σ_t Δ_t² Tr(H_tt) / 24, the law of rounding to steps Δ_t, with measured rises.

    Rounding errors of a fine grid are nearly independent, of mean zero and variance Δ²/12. With Δ_t = knob · c_t, c_t
    the root mean square of tensor t, the rise is κ knob² / 24, κ = Σ_t c_t² Tr(H_tt) = Tr(CHC): curvature that does not
    change when layers are rescaled. So flat is compressible, to second order.

    The law is for plots, not for guarantees: at tolerances that matter it holds to a factor of about two, and it fails
    where the loss is saturated or steps are no longer small beside the weights.

    Args:
        objective: The loss over the measured examples.
        curve: What `bits` measured of this objective, in a family of uniform grids; measured here by default.
        tol: Relative standard error of each tensor's trace.
        max_matvecs: Most products with the Hessian for each tensor, 8 at least.
        seed: Seed of the test vectors.

    Returns:
        Predictions with standard errors, beside what the search measured.

    Raises:
        ValueError: The curve is not of uniform grids, or of another network, or an argument is out of range.
        MeasurementError: The loss, a weight or a product is not finite.

    Source: Bennett 1948, "Spectra of quantized signals", for the errors of fine grids; the second-order expansion as in
    Hochreiter & Schmidhuber 1997, "Flat minima", who let every weight have a step of its own.
    """
    if curve is not None and curve.family not in GRIDS:
        raise ValueError(
            f"the law is of uniform grids, and the curve of the family '{curve.family}'; give one of: "
            f"{', '.join(sorted(GRIDS))}"
        )
    with objective.session():
        curve = bits(objective) if curve is None else curve
        if curve.names.tolist() != list(objective.layout.names) or curve.sizes.tolist() != list(objective.layout.sizes):
            raise ValueError(
                f"the curve is of {curve.n_parameters} parameters in {len(curve.names)} tensors, other ones than the "
                f"objective's {objective.n_parameters} in {len(objective.layout.names)}; give its own"
            )
        operator = hessian(objective)
        shares, converged = _shares(objective, operator, GRIDS[curve.family], tol, max_matvecs, seed)
    values, errors = (np.array([getattr(one, field) for one in shares]) for field in ("value", "stderr"))
    total, error = float(values.sum()), float(np.linalg.norm(errors))
    predicted = np.sqrt(24 * curve.allowed_rise / total) if total > 0 else np.full(len(curve.allowed_rise), math.nan)
    return QuantisationLaw(
        tolerances=curve.allowed_rise,
        predicted_knob=predicted,
        predicted_knob_stderr=predicted * (error / total if total > 0 else math.nan) / 2,
        measured_knob=curve.knob,
        rung_knob=curve.rung_knob,
        predicted_rise=total * curve.rung_knob**2 / 24,
        predicted_rise_stderr=error * curve.rung_knob**2 / 24,
        measured_rise=curve.rung_rise,
        curvature=total,
        curvature_stderr=error,
        tensor_curvature=values,
        tensor_curvature_stderr=errors,
        names=curve.names,
        family=curve.family,
        n_matvecs=operator.n_matvecs,
        converged=converged,
        seed=seed,
    )


def _shares(
    objective: Objective, operator: SymmetricOperator, per: str, tol: float, max_matvecs: int, seed: int
) -> tuple[list[Estimate], bool]:
    """Estimate Tr((CHC)_tt) of each tensor."""
    weights, layout = objective.vector(), objective.layout
    if not weights.isfinite().all():
        raise MeasurementError("a weight is NaN or infinite, so there is no curvature; check the training")
    found: list[Estimate] = []
    converged = True
    for index, (name, c) in enumerate(layout.named(radii(weights, layout, per)).items()):
        if not c.any():  # a tensor of zeros has no step, and none is needed
            found.append(Estimate.exact(0.0))
            continue
        # Streams of their own: equal test vectors in two tensors would have errors in common.
        own = int(np.random.SeedSequence((seed, index)).generate_state(1)[0])
        estimate = trace(stretched(operator.restrict(name), c.reshape(-1)), tol=tol, seed=own, max_matvecs=max_matvecs)
        found.append(estimate)
        converged &= estimate.converged
    return found, converged
