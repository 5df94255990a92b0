"""What a run holds, in plain data: provenance, groups, first and last values, failures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from landscape.analysis._error_bars import error_bars
from landscape.analysis._labels import base_of, is_error, label_of
from landscape.analysis._reading import RunLike, as_run, group_tables
from landscape.analysis._state import run_state
from landscape.record import COMMON as _COMMON_VARIABLES

_COMMON = frozenset(variable.name for variable in _COMMON_VARIABLES)
_OF_THE_TRAINING = ("learning_rate", "train_loss", "train_error", "held_out_loss", "held_out_error")
# Details of a measure, which a first look does not need.
_DETAILS = frozenset(
    {"ideal_bits", "bits_per_parameter", "loss_rise", "relative_step", "knob", "reached", "predicted_step"}
    | {"n_matvecs", "n_averaged", "kept", "tensor_bits", "step_size", "by_chain", "flag", "layer_flag", "nbeta"}
    | {"layer_residual", "layer_converged", "acceptance", "equilibrium", "stiffness", "gradient_noise"}
)
_OF_THE_DATA = {
    "n_examples": "n_examples",
    "source": "source",
    "mode": "mode",
    "weighting": "weighting",
    "evidence": "weighting_evidence",
}
_DETAILED = ("eigenvalues_", "residuals_", "converged_")


def summarize(run: RunLike) -> dict[str, Any]:
    """Return what `landscape show` prints, as plain data; the recorded weights are not read.

    Args:
        run: Path of a run file, or an open run.

    Returns:
        A dictionary of plain values:

        - `path`, and `attributes` (provenance).
        - `state`: how the run stands (`state`, `reason`, `last_sign_of_life` and a `sentence` of them); None in files
          of older versions.
        - `groups`: name, description, number of rows, of failed ones and of partial ones, first and last step, seconds
          of measuring, attributes (settings).
        - `values`: group, name, label, whether it is a main one, first and last finite value with step and standard
          error. A missing error is NaN.
        - `failures`: group, step, status (failed, partial or surrogate), reason.
        - `measured`: for each set of measured examples its groups, number, source, what the loss divides by
          (weighting) and how that was found (evidence).

    Raises:
        FileError: The file cannot be read.
    """
    run = as_run(run)
    groups, values, failures = [], [], []
    for name, (table, settings) in group_tables(run).items():
        groups.append(_group(name, table, settings))
        incomplete = table[table["status"] != "ok"]
        failures += [
            {"group": name, "step": int(step), "status": str(status), "reason": str(reason)}
            for step, status, reason in zip(*(incomplete[key] for key in ("step", "status", "reason")), strict=True)
        ]
        values += [found for column in table if column not in _COMMON if (found := _value(name, table, str(column)))]
    whole = run.table()
    training = [found for column in _OF_THE_TRAINING if column in whole if (found := _value("", whole, column))]
    attributes = dict(run.attributes)
    return {
        "path": str(run.path),
        "attributes": attributes,
        "state": run_state(attributes),
        "groups": groups,
        "values": training + values,
        "failures": failures,
        "measured": _measured(groups),
    }


def _measured(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what was measured, once for all groups that share it; files of older versions tell less."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for group in groups:
        described = group["attributes"].get("measured")
        if not isinstance(described, dict) or "weighting" not in described:
            continue
        key = tuple(str(described.get(name)) for name in ("fingerprint", "mode", "weighting", "noise_seed"))
        entry = found.setdefault(key, {"groups": []} | {name: described.get(of) for name, of in _OF_THE_DATA.items()})
        entry["groups"].append(group["name"])
    return list(found.values())


def value_text(entry: dict[str, Any]) -> str:
    """Write a value of a summary with its standard error over draws and examples, where it has one.

    Args:
        entry: `first` or `last` of a value.

    Returns:
        The text.
    """
    value, stderr = entry["value"], entry["stderr"]
    text = f"{value:.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.4g}"
    # An error of 0 says that nothing was sampled.
    return text if np.isnan(stderr) or stderr == 0 else f"{text} ± {stderr:.2g}"


def _group(name: str, table: pd.DataFrame, settings: dict[str, Any]) -> dict[str, Any]:
    seconds = table["wall_seconds"].to_numpy(dtype=np.float64)
    return {
        "name": name,
        "description": str(settings.get("description", "")),
        "rows": len(table),
        "failed": int((table["status"] == "failed").sum()),
        "partial": int(table["status"].isin(("partial", "surrogate")).sum()),
        "first_step": int(table["step"].iloc[0]) if len(table) else None,
        "last_step": int(table["step"].iloc[-1]) if len(table) else None,
        "wall_seconds": float(np.nansum(seconds)),
        "attributes": {key: value for key, value in settings.items() if key != "description"},
    }


def _value(group: str, table: pd.DataFrame, column: str) -> dict[str, Any] | None:
    """Return the first and last finite value of a column; None for texts and for what holds a standard error."""
    if not pd.api.types.is_numeric_dtype(table[column]) or is_error(column):
        return None
    values = table[column].to_numpy(dtype=np.float64)
    errors = error_bars(table, column)
    known = np.flatnonzero(np.isfinite(values))
    if len(known) == 0:
        return None
    first, last = (
        {"step": int(table["step"].iloc[at]), "value": float(values[at]), "stderr": float(errors[at])}
        for at in known[[0, -1]]
    )
    return {
        "group": group,
        "name": column,
        "label": label_of(column),
        # A flag that was ever raised is no detail.
        "main": _is_main(column) or (base_of(column) == "flag" and bool((values > 0).any())),
        "first": first,
        "last": last,
    }


def _is_main(column: str) -> bool:
    if column.startswith("barrier_"):
        return column.endswith("[linear,interpolated]")
    return base_of(column) not in _DETAILS and not column.startswith(_DETAILED)
