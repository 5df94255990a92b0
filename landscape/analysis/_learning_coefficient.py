"""The local learning coefficient over training, beside what it would be if the loss were its quadratic."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from landscape.analysis._groups import measured_rows
from landscape.analysis._labels import label_of
from landscape.analysis._reading import RunLike, as_run
from landscape.analysis._style import BLUE, VERMILION, caption, legend_below, log_where_positive, new_axes, style
from landscape.record import Run

GROUP, SPECTRUM = "learning_coefficient", "hessian_spectrum"
_STEADY = 1e-6  # relative spread below which recorded temperatures are one


def plot_learning_coefficient(run: RunLike, ax: Any = None) -> Any:
    """Plot λ̂ over training with its standard error, and ½ N_eff(H, γ/nβ) of the recorded spectral density.

    On a quadratic loss the two are equal: chains with tether γ at temperature nβ feel N_eff(z) = Σ h/(h + z) directions
    at z = γ/nβ. Where λ̂ is less, the loss is more degenerate than its Hessian says. Values that carry a flag are drawn
    open, and the caption says which flags. N_eff is taken from the recorded nodes, at that z and only within the
    recorded ladder of z (below it the quadrature does not resolve the density); its error is interpolated between the
    ladder's rungs, linearly in ln z. Where it cannot be had, the caption says why.

    Args:
        run: Path of a run file, or an open run.
        ax: Axes to draw on; those of a new figure by default.

    Returns:
        The matplotlib axes.

    Raises:
        FileError: The file cannot be read, or the run has no learning coefficient.
    """
    run = as_run(run)
    data = measured_rows(run, GROUP)
    steps, values, errors = data["step"].values, data[GROUP].values, data[f"{GROUP}_stderr"].values
    flagged = (data["flag"].values == 1).any(axis=1) if "flag" in data else np.zeros(len(steps), dtype=bool)
    with style():
        ax = new_axes(size=(7.0, 4.8)) if ax is None else ax
        ax.plot(steps, values, "-", color=BLUE, linewidth=1.2, zorder=2)
        for part, face, name in ((~flagged, BLUE, "λ̂ by chains"), (flagged, "white", "λ̂ by chains, flagged")):
            seen = part & np.isfinite(values)
            if seen.any():
                ax.errorbar(
                    steps[seen], values[seen], errors[seen], fmt="o", color=BLUE, markerfacecolor=face, markersize=6,
                    capsize=3, zorder=3, label=name,
                )  # fmt: skip
        texts, other = _draw_half_dimension(ax, run, data)
        log_where_positive(ax, np.concatenate([values, other]))
        if ax.get_yscale() == "linear":
            ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
        ax.set_xlabel(label_of("step"))
        ax.set_ylabel("local learning coefficient (parameters)")
        legend_below(ax, columns=3)
        caption(ax, [*_setting(run, data), *texts, *_flags(data, values)])
    return ax


def half_dimension(run: Run, z: float) -> tuple[np.ndarray, np.ndarray, np.ndarray] | str:
    """Return ½ N_eff(z) of the recorded density.

    Args:
        run: The run.
        z: The scale, in units of the eigenvalues.

    Returns:
        Steps, values and standard errors of the rows that did not fail; or a sentence that says why there are none.
    """
    if not any(name == SPECTRUM or name.startswith(f"{SPECTRUM}_") for name in run.groups):
        return "½ N_eff not drawn: no spectrum was recorded."
    data = measured_rows(run, SPECTRUM)
    if not {"density_nodes", "density_weights", "n_eff_stderr"} <= set(data):
        return "½ N_eff not drawn: no spectral density was recorded."
    ladder = data["z"].values
    if not ladder.min() <= z <= ladder.max():
        return (
            f"½ N_eff not drawn: z = {z:.3g} lies outside of the recorded ladder, {ladder.min():g} to {ladder.max():g}."
        )
    size = _n_parameters(run, data)
    if size is None:
        return "½ N_eff not drawn: the number of parameters was not recorded."
    positive = np.maximum(data["density_nodes"].values, 0.0)
    weights = data["density_weights"].values
    shares = np.where(weights > 0, weights * positive / (positive + z), 0.0).sum(axis=2)
    used = (weights > 0).any(axis=2)  # a row may have fewer probes than there is room for
    count = used.sum(axis=1)
    share = np.divide(shares.sum(axis=1), count, out=np.full(len(count), np.nan), where=count > 0)
    order = np.argsort(ladder)
    whole = data["n_eff_stderr"].values
    if "n_eff_stderr_sample" in data:
        whole = np.hypot(whole, np.nan_to_num(data["n_eff_stderr_sample"].values))
    errors = [np.interp(np.log(z), np.log(ladder[order]), row[order]) for row in whole]
    return data["step"].values, size * share / 2, np.array(errors) / 2


def _draw_half_dimension(ax: Any, run: Run, data: xr.Dataset) -> tuple[list[str], np.ndarray]:
    """Draw the quadratic's value where it can be had, and return what to say of it."""
    z = _scale(data)
    found = z if isinstance(z, str) else half_dimension(run, z)
    if isinstance(found, str):
        return [found], np.zeros(0)
    steps, values, errors = found
    ax.errorbar(
        steps, values, errors, fmt="s--", color=VERMILION, markersize=4.5, linewidth=1.2, capsize=3, zorder=2.5,
        label="½ N_eff of the Hessian",
    )  # fmt: skip
    return [f"½ N_eff at z = γ/nβ = {z:.3g}: what λ̂ were if the loss were quadratic."], values


def _scale(data: xr.Dataset) -> float | str:
    """Return z = γ/nβ of the chains, or why there is not one."""
    gamma = data.attrs.get("settings", data.attrs).get("gamma")
    if not isinstance(gamma, (int, float)) or "nbeta" not in data:
        return "½ N_eff not drawn: tether and temperature of the chains were not recorded."
    nbeta = data["nbeta"].values[np.isfinite(data["nbeta"].values)]
    if len(nbeta) == 0 or np.ptp(nbeta) > _STEADY * nbeta.max():
        return "½ N_eff not drawn: the temperature of the chains changed."
    return float(gamma) / float(nbeta[0])


def _n_parameters(run: Run, data: xr.Dataset) -> float | None:
    """Return the recorded number of parameters; None where there is none that is a number."""
    size = (data.attrs.get("measured") or {}).get("n_parameters", run.attributes.get("n_parameters"))
    return size if isinstance(size, (int, float)) else None


def _setting(run: Run, data: xr.Dataset) -> list[str]:
    size = _n_parameters(run, data)
    text = "" if size is None else f" (d/2 = {size / 2:,g} at a regular minimum without tether)"
    return [f"Bars: ± 1 standard error of the chains, without the bias of their step{text}."]


def _flags(data: xr.Dataset, values: np.ndarray) -> list[str]:
    texts = []
    if "flag" in data:
        counts = (data["flag"].values == 1).sum(axis=0)
        named = [
            f"{str(name).replace('_', ' ')} ({count})"
            for name, count in zip(data["flag_name"].values, counts, strict=True)
            if count
        ]
        if named:
            texts.append(f"Flags (rows): {', '.join(named)}.")
    if missing := int(np.isnan(values).sum()):
        texts.append(f"{missing} of {len(values)} rows without a value: their chains diverged.")
    return texts
