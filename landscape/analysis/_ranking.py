"""One measure of compressibility against all measures of flatness: rank correlations over runs, as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from landscape._errors import FileError
from landscape.analysis._comparisons import compare
from landscape.analysis._correlation import kendall
from landscape.analysis._granulated import granulated_kendall
from landscape.analysis._labels import base_of, is_flatness, label_of, large_is_flat
from landscape.analysis._members import Member, members, require_column, require_setting
from landscape.analysis._points import loss_range, track
from landscape.analysis._sign_error import sign_error

_SEEDS = ("seed",)  # a hyper-parameter whose name ends so gives repeats, no axis


def rank_correlations(
    runs: Any,
    measures: Sequence[str] | None = None,
    target: str = "bits[tolerance=0.03]",
    axes: Sequence[str] | None = None,
    *,
    matched_loss: float | None = None,
    examples: int | None = None,
    n_bootstrap: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Rank-correlate every flatness measure with one target over runs, three ways.

    Kendall's tau-b over all runs (`kendall`), which one varied hyper-parameter alone can make; granulated Kendall's Ψ
    (`granulated_kendall`), which looks along one hyper-parameter at a time; and the sign error over pairs of settings
    (`sign_error`), in the mean and at worst. A run stands at its last row with measure and target, or at the one with
    the training loss nearest to `matched_loss`. Measures that are large where the loss is flat enter with their sign
    turned, so that for all of them 1 means: the flatter, the smaller the target.

    Args:
        runs: Paths of run files, open runs, or a DataFrame of their tables with a column `run`.
        measures: Columns; by default all flatness measures that at least two runs have.
        target: Column of what they are to rank.
        axes: Hyper-parameters (or columns) that were varied; by default all that differ between runs and are no seed.
            What differs without ever differing alone gives no comparison, and is held equal in those of the others.
        matched_loss: Training loss at which the runs are compared.
        examples: Number of examples behind a target that is an error rate, for `sign_error`.
        n_bootstrap: Number of resamples.
        seed: Seed of the resampling.
        confidence: Nominal coverage of the intervals.

    Returns:
        A row a measure, ordered by tau: `label`, `tau`, `tau_low`, `tau_high`, `granulated` (Ψ) with its interval,
        `sign_error` and `worst_sign_error` with theirs, `worst_environment`, `n_groups`, `n_environments`, `n` (runs),
        `left_out` (runs without the measure), `turned` (the sign was). Statistics that have no comparison are NaN. Its
        `attrs` hold `target`, `axes`, `matched_loss`, the smallest and largest training loss `losses`, `resampled`,
        `confidence` and `seed`.

    Raises:
        FileError: A file cannot be read, or no run has what is asked for.
        ValueError: An argument is out of range.
    """  # noqa: DOC503 - what reads the runs raises some of it
    if matched_loss is not None and not math.isfinite(matched_loss):
        raise ValueError(f"matched_loss is {matched_loss}; expected a training loss")
    everyone = members(runs)
    require_column(everyone, target)
    for name in measures or ():
        require_column(everyone, name)
    for name in axes or ():
        require_setting(everyone, name)
    chosen = [name for name in _flatness(everyone) if name != target] if measures is None else list(measures)
    varied, held = _axes(everyone, axes)
    settings = {"n_bootstrap": n_bootstrap, "seed": seed, "confidence": confidence}
    rows, losses, resampled = [], [], set()
    for name in chosen:
        tracks = [found for run in everyone if (found := track(run, name, target, None, matched_loss))]
        if len(tracks) < 2 and measures is None:
            continue
        losses += [loss for loss in loss_range(tracks) if not math.isnan(loss)]
        sign = -1.0 if large_is_flat(name) else 1.0
        points = pd.DataFrame(
            {
                **{axis: [run.member.value(axis) for run in tracks] for axis in (*varied, *held)},
                "_measure": [sign * run.x[run.chosen] for run in tracks],
                "_target": [run.y[run.chosen] for run in tracks],
            }
        )
        row, how = _row(points, varied, held, examples, settings)
        resampled |= how
        extra = {"left_out": len(everyone) - len(tracks), "turned": sign < 0}
        rows.append({"measure": name, "label": label_of(name), **row, **extra})
    if not rows:
        raise FileError(
            f"No measure of flatness stands beside {target!r} in two runs or more; record sharpness and "
            "compressibility at the same steps, or name the measures."
        )
    table = pd.DataFrame(rows).set_index("measure").sort_values("tau", ascending=False, kind="stable")
    table.attrs = {
        "target": target,
        "axes": list(varied),
        "matched_loss": matched_loss,
        "losses": (min(losses), max(losses)) if losses else (math.nan, math.nan),
        "resampled": ", ".join(sorted(resampled)),
        "confidence": confidence,
        "seed": seed,
    }
    return table


def _row(
    points: pd.DataFrame, axes: Sequence[str], held: Sequence[str], examples: int | None, settings: dict[str, Any]
) -> tuple[dict[str, Any], set[str]]:
    """Return the statistics of one measure, and what was resampled for those of the axes."""
    plain = kendall(points["_measure"], points["_target"], **settings)
    row: dict[str, Any] = {"tau": plain.tau, "tau_low": plain.low, "tau_high": plain.high}
    nan = math.nan
    row |= dict.fromkeys(("granulated", "granulated_low", "granulated_high", "sign_error", "sign_error_low"), nan)
    row |= dict.fromkeys(("sign_error_high", "worst_sign_error", "worst_low", "worst_high"), nan)
    row |= {"worst_environment": "", "n_groups": 0, "n_environments": 0, "n": plain.n}
    # With runs left out an axis may have lost its last comparison, and a mean over the others would be another one.
    if not axes or not all(compare(points, axes, held).groups_by_axis):
        return row, set()
    granulated = granulated_kendall(points, "_measure", "_target", axes, held, **settings)
    errors = sign_error(points, "_measure", "_target", axes, held, examples=examples, **settings)
    row |= {"granulated": granulated.value, "granulated_low": granulated.low, "granulated_high": granulated.high}
    row |= {"sign_error": errors.mean, "sign_error_low": errors.mean_low, "sign_error_high": errors.mean_high}
    row |= {"worst_sign_error": errors.worst, "worst_low": errors.worst_low, "worst_high": errors.worst_high}
    row |= {"worst_environment": errors.worst_environment, "n_groups": sum(granulated.n_groups)}
    return row | {"n_environments": errors.n_environments}, {granulated.resampled}


def _flatness(everyone: Sequence[Member]) -> list[str]:
    columns = dict.fromkeys(str(column) for run in everyone for column in run.table.columns)
    return [name for name in columns if is_flatness(base_of(name))]


def _axes(everyone: Sequence[Member], asked: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Return the axes of the comparison, and what else differs and must be held equal in it."""
    names = dict.fromkeys(
        str(name)
        for run in everyone
        for name in run.attributes.get("hyper_parameters") or {}
        if not _is_seed(str(name))
    )
    values = pd.DataFrame({name: [run.value(name) for run in everyone] for name in (*names, *(asked or ()))})
    differing = [name for name in values if values[name].map(repr).nunique() > 1]
    if asked is not None:
        return list(asked), [name for name in differing if name not in asked]
    found = compare(values, differing)
    axes = [name for name, groups in zip(differing, found.groups_by_axis, strict=True) if groups]
    return axes, [name for name in differing if name not in axes]


def _is_seed(name: str) -> bool:
    return name.lower().endswith(_SEEDS)
