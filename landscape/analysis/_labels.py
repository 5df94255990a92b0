"""What measures are called on axes and in tables, with units; and which column holds a measure's standard error."""

from __future__ import annotations

import re

# name -> (text, unit); an empty unit is a pure number that needs no remark
_KNOWN: dict[str, tuple[str, str]] = {
    "step": ("optimizer steps", ""),
    "epoch": ("epoch", ""),
    "learning_rate": ("learning rate", ""),
    "train_loss": ("training loss", ""),
    "train_error": ("training error", "fraction of labels"),
    "held_out_loss": ("held-out loss", ""),
    "held_out_error": ("held-out error", "fraction of labels"),
    "wall_seconds": ("time of the measurement", "s"),
    "lambda_max": ("largest Hessian eigenvalue", ""),
    "lambda_min": ("smallest Hessian eigenvalue", ""),
    "trace": ("Hessian trace", ""),
    "n_eff": ("effective dimensionality", ""),
    "n_eff_complement": ("complement of the effective dimensionality", ""),
    "negative_share": ("share of negative curvature", ""),
    "spectral_entropy": ("spectral entropy", "nat"),
    "condition_number": ("condition number of the top eigenvalues", ""),
    "layer_trace": ("Hessian trace", ""),
    "layer_lambda_max": ("largest Hessian eigenvalue", ""),
    "layer_residual": ("residual of the largest eigenvalue", ""),
    "layer_converged": ("largest eigenvalue converged", "1: yes"),
    "gap_frobenius": ("Hessian less Gauss-Newton matrix, relative norm", ""),
    "gap_trace": ("Hessian less Gauss-Newton matrix, relative trace", ""),
    "gap_cosine": ("cosine between Hessian and Gauss-Newton matrix", ""),
    "gradient_share": ("gradient's share in the top subspace", ""),
    "n_matvecs": ("Hessian-vector products", ""),
    "average_case": ("adaptive average-case sharpness", "rise in loss"),
    "worst_case": ("adaptive worst-case sharpness", "rise in loss"),
    "average_case_linf": ("adaptive average-case ℓ∞ sharpness", "rise in loss"),
    "average_case_plain": ("plain average-case sharpness", "rise in loss"),
    "average_case_plain_linf": ("plain average-case ℓ∞ sharpness", "rise in loss"),
    "worst_case_linf": ("adaptive worst-case ℓ∞ sharpness", "rise in loss"),
    "worst_case_plain": ("plain worst-case sharpness", "rise in loss"),
    "worst_case_plain_linf": ("plain worst-case ℓ∞ sharpness", "rise in loss"),
    "sam": ("SAM sharpness", "rise in loss"),
    "m_sharpness": ("m-sharpness", "rise in loss"),
    "asam": ("ASAM sharpness, the authors' variant", "rise in loss"),
    "asam_elementwise": ("ASAM sharpness, elementwise", "rise in loss"),
    "keskar": ("Keskar's sharpness", "%"),
    "keskar_subspace": ("Keskar's sharpness in random subspaces", "%"),
    "pac_bayes": ("1/σ² of the noise that the accuracy stands", ""),
    "pac_bayes_magnitude": ("1/σ² of the relative noise that the accuracy stands", ""),
    "random_radius": ("adaptive radius along random directions", ""),
    "random_radius_plain": ("radius along random directions", ""),
    "gradient_norm": ("gradient norm", ""),
    "gradient_norm_adaptive": ("adaptive gradient norm", ""),
    "fisher_rao": ("Fisher–Rao norm", ""),
    "lambda_max_chc": ("λmax(CHC)", ""),
    "critical_sharpness": ("critical sharpness 2/ηc", "1/learning rate"),
    "critical_sharpness_quadratic": ("critical sharpness of the quadratic model", "1/learning rate"),
    "directional_sharpness": ("curvature along the update", ""),
    "update_slope": ("first-order change of the loss along the update", ""),
    "update_norm": ("l2 norm of the update", ""),
    "preconditioned_sharpness": ("preconditioned sharpness", "1/learning rate"),
    "gradient_noise_scale": ("gradient noise scale", "examples"),
    "trace_chc": ("Tr(CHC)", ""),
    "relative_flatness": ("relative flatness κ_Tr (large: sharp)", ""),
    "relative_flatness_max": ("relative flatness κ_max (large: sharp)", ""),
    "learning_coefficient": ("local learning coefficient", ""),
    "layer_learning_coefficient": ("local learning coefficient", ""),
    "flag": ("speaks against the learning coefficient:", "1: yes"),
    "rhat": ("R̂ of the chains behind it", ""),
    "layer_rhat": ("R̂ of the chains", ""),
    "ess": ("effective sample size of the chains behind it", ""),
    "bits": ("code length", "bits"),
    "ideal_bits": ("ideal code length", "bits"),
    "bits_per_parameter": ("code length", "bits per parameter"),
    "loss_rise": ("loss rise of the decoded weights", ""),
    "relative_step": ("grid step over the rms of each tensor", ""),
    "knob": ("knob of the family of codes", ""),
    "noise_radius": ("noise that the loss stands, relative to the weights", ""),
    "bits_back": ("bits-back length", "bits"),
    "law_curvature": ("trace of the Hessian in units of each tensor's rms", ""),
    "predicted_step": ("grid step that the quantisation law foretells", ""),
    "reached": ("tolerance reached", "1: yes"),
    "n_averaged": ("averaged snapshots", ""),
    "distance": ("distance in weights", ""),
    "path_length": ("length of the path in weights", ""),
    "path_train_loss": ("mean training loss along the path", ""),
    "surface_max_train_loss": ("largest training loss on the surface", ""),
    "swa_train_loss": ("training loss of the average", ""),
    "swa_train_error": ("training error of the average", "fraction of labels"),
    "swa_held_out_loss": ("held-out loss of the average", ""),
    "swa_held_out_error": ("held-out error of the average", "fraction of labels"),
    "barrier_train_loss": ("barrier in training loss", ""),
    "barrier_train_error": ("barrier in training error", "fraction of labels"),
    "barrier_held_out_loss": ("barrier in held-out loss", ""),
    "barrier_held_out_error": ("barrier in held-out error", "fraction of labels"),
}
# These change when layers or neurons are rescaled without changing the function.
_NOT_INVARIANT = frozenset(
    {
        "lambda_max",
        "lambda_min",
        "trace",
        "layer_trace",
        "layer_lambda_max",
        "n_eff",
        "n_eff_complement",
        "sam",
        "m_sharpness",
        "asam",
        "gradient_norm",
        "directional_sharpness",
    }
    | {"average_case_plain", "average_case_plain_linf", "worst_case_plain", "worst_case_plain_linf", "keskar"}
    | {"keskar_subspace", "pac_bayes", "random_radius_plain"}
)
# What the loss's shape is called flat by, beside all rises of the loss; large is sharp, but for the radii.
_FLATNESS = frozenset(
    {"lambda_max", "trace", "n_eff", "keskar", "keskar_subspace", "pac_bayes", "pac_bayes_magnitude", "fisher_rao"}
    | {"lambda_max_chc", "trace_chc", "relative_flatness", "relative_flatness_max", "learning_coefficient"}
    | {"random_radius", "random_radius_plain"}
)
_LARGE_IS_FLAT = frozenset({"random_radius", "random_radius_plain"})
_SETTINGS = {"tolerance": "at a loss rise ≤ {}", "z": "at z = {}", "layer": "of {}", "path": "({})", "flag_name": "{}"}
# A ladder's dimension bears the name of its measure, which the label says already.
_LADDERS = {"rho_": "at ρ = {}", "drop_": "at a rise of the error of {}", "threshold_": "at a loss rise of {}"}
_ERRORS = {"_stderr_sample": "standard error over examples of {}", "_stderr": "standard error of {}"}
_COLUMN = re.compile(r"(?:(?P<group>[^/\[]+)/)?(?P<name>[^/\[]+)(?:\[(?P<setting>[^\]]*)\])?")


def label_of(name: str) -> str:
    """Return what a column of a run's table is called on an axis, with its unit.

    Measures that rescaling the layers changes, though the function stays the same, carry "(not invariant)".

    Args:
        name: A column, such as `average_case`, `bits[tolerance=0.03]` or `barrier_train_loss[linear,interpolated]`.

    Returns:
        The label; the name itself where the measure is not known.
    """
    parts = _COLUMN.fullmatch(name)
    base = parts["name"] if parts else name
    ending = next((end for end in _ERRORS if base.endswith(end) and base.removesuffix(end) in _KNOWN), "")
    base = base.removesuffix(ending)
    if parts is None or base not in _KNOWN:
        return name
    text, unit = _KNOWN[base]
    words = [_ERRORS[ending].format(text) if ending else text]
    if parts["setting"]:
        words.append(_setting(parts["setting"]))
    if unit:
        words.append(f"({unit})")
    if base in _NOT_INVARIANT:
        words.append("(not invariant)")
    return " ".join(words)


def base_of(name: str) -> str:
    """Return the measure behind a column: its name without group and setting."""
    parts = _COLUMN.fullmatch(name)
    return parts["name"] if parts else name


def is_rise(name: str) -> bool:
    """Return whether a column is a sharpness measured as a rise of the loss."""
    return _KNOWN.get(base_of(name), ("", ""))[1] == "rise in loss"


def is_flatness(name: str) -> bool:
    """Return whether a column is a measure of flatness that networks are compared by."""
    base = base_of(name)
    return base in _FLATNESS or is_rise(base)


def large_is_flat(name: str) -> bool:
    """Return whether a column is the larger, the flatter the loss is."""
    return base_of(name) in _LARGE_IS_FLAT


def is_error(name: str) -> bool:
    """Return whether a column holds standard errors."""
    return base_of(name).endswith(tuple(_ERRORS))


def stderr_column(name: str) -> str:
    """Return the column that holds the standard error of a column over random draws, where the run has one."""
    return _ending_in("_stderr", name)


def sample_column(name: str) -> str:
    """Return the column that holds the standard error of a column over examples, where the run has one."""
    return _ending_in("_stderr_sample", name)


def _ending_in(ending: str, name: str) -> str:
    stem, bracket, setting = name.partition("[")
    return f"{stem}{ending}{bracket}{setting}"


def _setting(setting: str) -> str:
    family, comma, rest = setting.partition(",")
    if comma and "=" in rest:
        return f"{_setting(rest)}, {family}"
    key, equals, value = setting.partition("=")
    if not equals:
        return f"[{setting.replace(',', ', ')}]"
    ladder = next((words for prefix, words in _LADDERS.items() if key.startswith(prefix)), f"at {key} = {{}}")
    return _SETTINGS.get(key, ladder).format(value)
