"""Names, descriptions and logged scalars of what `SharpnessMonitor` records."""

from __future__ import annotations

from collections.abc import Sequence

from landscape.record import Variable

LAMBDA_MAX, PRECONDITIONED = "lambda_max", "preconditioned_sharpness"
CRITICAL, DIRECTIONAL, NOISE = "critical_sharpness", "directional_sharpness", "gradient_noise_scale"

# measure -> (variable, type, description), the first of each being the one that is logged
_VARIABLES: dict[str, tuple[tuple[str, str, str], ...]] = {
    CRITICAL: (
        ("critical_sharpness", "f8", "2/eta_c, eta_c: smallest learning rate at which the last update raises the loss"),
        ("critical_sharpness_lower", "f8", "lower end of the bracket of critical_sharpness"),
        ("critical_sharpness_upper", "f8", "upper end of the bracket of critical_sharpness"),
        ("critical_sharpness_stderr_sample", "f8", "standard error of critical_sharpness over examples"),
        ("n_evaluations", "i8", "forward passes over the measured examples that critical_sharpness took"),
    ),
    DIRECTIONAL: (
        ("directional_sharpness", "f8", "d'Hd/d'd, the curvature along the last update d"),
        ("directional_sharpness_stderr_sample", "f8", "standard error of directional_sharpness over examples"),
        ("critical_sharpness_quadratic", "f8", "-d'Hd/(eta d'g): critical_sharpness if the loss were quadratic"),
        ("critical_sharpness_quadratic_stderr_sample", "f8", "its standard error over examples"),
        ("update_slope", "f8", "d'g, the change of the loss along the last update to first order"),
        ("update_slope_stderr_sample", "f8", "standard error of update_slope over examples"),
        ("update_norm", "f8", "l2 norm of the last update d"),
    ),
    LAMBDA_MAX: (
        ("lambda_max", "f8", "largest eigenvalue of the Hessian, without weight decay"),
        ("lambda_max_residual", "f8", "norm of Hv - lambda v of its unit eigenvector"),
        ("lambda_max_converged", "i1", "1: within the tolerance"),
        ("lambda_max_stderr_sample", "f8", "standard error of lambda_max over examples"),
    ),
    PRECONDITIONED: (
        ("preconditioned_sharpness", "f8", "largest eigenvalue of P^-1/2 (H + coupled decay) P^-1/2"),
        ("preconditioned_sharpness_residual", "f8", "norm of Av - lambda v of its unit eigenvector"),
        ("preconditioned_sharpness_converged", "i1", "1: within the tolerance"),
        ("preconditioned_sharpness_stderr_sample", "f8", "standard error over examples, P held fixed"),
    ),
    NOISE: (
        ("gradient_noise_scale", "f8", "tr S/|G|^2 in examples, S the covariance of one example's gradient"),
        ("gradient_noise_scale_stderr", "f8", "standard error of gradient_noise_scale over groups of examples"),
        ("gradient_noise", "f8", "unbiased estimate of tr S"),
        ("gradient_signal", "f8", "unbiased estimate of |G|^2"),
    ),
}
MEASURES = tuple(_VARIABLES)


def monitor_variables(measures: Sequence[str]) -> list[Variable]:
    """Return the variables of some measures, with the number of products."""
    listed = [Variable(name, (), kind, description=text) for one in measures for name, kind, text in _VARIABLES[one]]
    return [*listed, Variable("n_matvecs", (), "i8", description="Hessian-vector products of the row")]


def monitor_columns(measure: str) -> tuple[str, ...]:
    """Return the names of a measure's variables."""
    return tuple(name for name, _, _ in _VARIABLES[measure])


def monitor_scalars(measures: Sequence[str]) -> tuple[str, ...]:
    """Return the logged scalars: one of each measure."""
    return tuple(_VARIABLES[one][0][0] for one in measures)
