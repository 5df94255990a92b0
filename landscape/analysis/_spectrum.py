"""The Hessian's spectrum over training: its density as a heat map, the outermost eigenvalues as lines over it."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.colors import LogNorm
from matplotlib.ticker import SymmetricalLogLocator

from landscape.analysis._density import cell_masses, step_edges
from landscape.analysis._labels import label_of
from landscape.analysis._reading import RunLike, as_run
from landscape.analysis._stability import stability_threshold
from landscape.analysis._style import BLACK, PURPLE, VERMILION, legend_above, mark_failed, new_axes, style

GROUP = "hessian_spectrum"
_CELLS = 140
_BANDWIDTH = 3.0  # half-width of the smoothing kernel, in cells
_COLOR_MAP = "viridis_r"  # reversed: next to the white of empty cells stands the lightest colour
# A threshold is drawn up to this far above the eigenvalues: decades of a symmetric-log axis, or a factor.
_DECADES, _REACH = 1.5, 4.0


def plot_spectrum(run: RunLike, ax: Any = None) -> Any:
    """Plot the spectral density over training, with the outermost eigenvalues and the edge of stability.

    Colour is the fraction of eigenvalues in a cell of the axis, on a logarithmic scale; cells without any (less than a
    hundredth of one) stay white. Bands around the outermost eigenvalues are one standard error over examples. The axis
    is symmetric-logarithmic where the bulk is much narrower than the spectrum.

    Args:
        run: Path of a run file, or an open run.
        ax: Axes to draw on; those of a new figure by default.

    Returns:
        The matplotlib axes.

    Raises:
        FileError: The file cannot be read, or the run has no spectrum.
    """
    run = as_run(run)
    data = run.dataset(GROUP)
    with style():
        ax = new_axes(size=(7.4, 4.8)) if ax is None else ax
        _set_scale(ax, data)
        _draw_density(ax, data, run.attributes.get("n_parameters"))
        _draw_eigenvalues(ax, data)
        _draw_threshold(ax, data, run.attributes.get("optimizer"))
        steps = data["step"].values
        mark_failed(ax, steps[np.isin(data["status"].values, ("failed", "surrogate"))])
        ax.use_sticky_edges = False  # room beside the cells, so that the markers at the ends are whole
        ax.margins(x=0.02)
        ax.set_xlabel(label_of("step"))
        ax.set_ylabel("Hessian eigenvalue (not invariant)")
        legend_above(ax, columns=3)
    return ax


def _set_scale(ax: Any, data: xr.Dataset) -> None:
    """Choose the axis: symmetric-logarithmic, linear inside the bulk, where the bulk is narrow."""
    ends = _ends(data)
    if len(ends) == 0:
        return
    extent = np.abs(ends).max()
    bulk = _bulk_width(*_quadrature(data), extent)
    if extent > 0 and bulk < extent / 30:
        threshold = 10 ** np.ceil(np.log10(max(bulk, extent * 1e-4)))
        ax.set_yscale("symlog", linthresh=threshold, linscale=0.6)
        ax.yaxis.set_minor_locator(SymmetricalLogLocator(base=10, linthresh=threshold, subs=range(2, 10)))
    to_axis = ax.yaxis.get_transform()
    low, high = to_axis.transform(np.array([min(ends.min(), 0.0), max(ends.max(), 0.0)]))
    margin = 0.05 * (high - low) or 1.0
    ax.set_ylim(*to_axis.inverted().transform(np.array([low - margin, high + margin])))


def _quadrature(data: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights, shape (step, probe, node); none where the density was not recorded."""
    if "density_nodes" not in data:
        return np.zeros((data.sizes["step"], 0, 0)), np.zeros((data.sizes["step"], 0, 0))
    return data["density_nodes"].values, data["density_weights"].values


def _ends(data: xr.Dataset) -> np.ndarray:
    """Return all recorded eigenvalues and the outermost nodes that carry weight."""
    names = [name for name in ("eigenvalues_top", "eigenvalues_bottom", "lambda_max", "lambda_min") if name in data]
    values = [data[name].values.ravel() for name in names]
    nodes, weights = _quadrature(data)
    values.append(nodes[weights > 0])
    found = np.concatenate(values)
    return found[np.isfinite(found)]


def _bulk_width(nodes: np.ndarray, weights: np.ndarray, default: float) -> float:
    """Return the scale below which the axis is linear: the bulk's typical |λ|, or the quadrature's own resolution.

    A logarithmic axis below the distance of neighbouring nodes would draw holes that are the quadrature's, not the
    spectrum's.
    """
    if nodes.size == 0:
        return default
    gaps, sizes, masses = [], [], []
    for at, mass in zip(nodes.reshape(-1, nodes.shape[-1]), weights.reshape(-1, weights.shape[-1]), strict=True):
        used = np.isfinite(at) & (mass > 0)
        order = np.argsort(at[used])
        if used.sum() > 1:
            gaps.append(np.gradient(at[used][order]))
            sizes.append(np.abs(at[used][order]))
            masses.append(mass[used][order])
    if not gaps:
        return default
    mass = np.concatenate(masses)
    return max(_weighted_median(np.concatenate(values), mass) for values in (gaps, sizes))


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def _draw_density(ax: Any, data: xr.Dataset, n_parameters: Any) -> None:
    to_axis = ax.yaxis.get_transform()
    low, high = to_axis.transform(np.array(ax.get_ylim()))
    edges = np.linspace(low, high, _CELLS + 1)
    width = edges[1] - edges[0]
    nodes, weights = _quadrature(data)
    masses = np.array(
        [
            cell_masses(to_axis.transform(at.ravel()).reshape(at.shape), weight, edges, _BANDWIDTH * width)
            for at, weight in zip(nodes, weights, strict=True)
        ]
    )
    # Less than a hundredth of one eigenvalue is rounding of the quadrature.
    least = 0.01 / float(n_parameters) if n_parameters else 1e-12
    shown = np.ma.masked_where(~(masses >= least), masses)
    if shown.count() == 0:
        return
    mesh = ax.pcolormesh(
        step_edges(data["step"].values),
        to_axis.inverted().transform(edges),
        shown.T,
        norm=LogNorm(shown.min(), shown.max()),
        cmap=_COLOR_MAP,
        rasterized=True,
        zorder=0,
    )
    ax.figure.colorbar(mesh, ax=ax, label="fraction of eigenvalues in a cell")


def _draw_eigenvalues(ax: Any, data: xr.Dataset) -> None:
    steps = data["step"].values
    for name, first, others, color in (
        ("eigenvalues_top", "largest eigenvalue", "next largest", VERMILION),
        ("eigenvalues_bottom", "smallest eigenvalue", "next smallest", PURPLE),
    ):
        values = data[name].values if name in data else np.zeros((len(steps), 0))
        for index in range(values.shape[1]):
            if not np.isfinite(values[:, index]).any():
                continue
            label = {0: first, 1: others}.get(index)
            width, alpha, marker = (1.8, 1.0, ".") if index == 0 else (0.8, 0.6, "")
            line = {"color": color, "linewidth": width, "alpha": alpha, "marker": marker, "label": label}
            ax.plot(steps, values[:, index], zorder=3, **line)
            errors = data[f"{name}_stderr_sample"].values[:, index] if f"{name}_stderr_sample" in data else np.nan
            if index == 0 and np.isfinite(errors).any():
                low, high = values[:, index] - errors, values[:, index] + errors
                ax.fill_between(steps, low, high, color=color, alpha=0.25, linewidth=0, zorder=2)
        _mark_unconverged(ax, steps, values, data, name.replace("eigenvalues", "converged"))


def _mark_unconverged(ax: Any, steps: np.ndarray, values: np.ndarray, data: xr.Dataset, flags: str) -> None:
    if flags not in data:
        return
    rows, columns = np.nonzero((data[flags].values == 0) & np.isfinite(values))
    if len(rows):
        seen = "not converged" in ax.get_legend_handles_labels()[1]
        label = None if seen else "not converged"
        ax.plot(steps[rows], values[rows, columns], "x", color=BLACK, markersize=5, label=label, zorder=4)


def _draw_threshold(ax: Any, data: xr.Dataset, optimizer: Any) -> None:
    threshold = stability_threshold(optimizer)
    rate = data["learning_rate"].values
    known = np.isfinite(rate) & (rate > 0)
    if threshold is None or not known.any():
        return
    factor, label = threshold
    edge = np.full(len(rate), np.nan)
    edge[known] = factor / rate[known]
    low, high = ax.get_ylim()
    lowest = np.nanmin(edge)
    if lowest > max(high, 0.0) * (10**_DECADES if ax.get_yscale() == "symlog" else _REACH):
        ax.plot([], [], "--", color=BLACK, label=f"{label} ≥ {lowest:.3g}, above the axis")
        return
    ax.plot(data["step"].values, edge, "--", color=BLACK, lw=1.5, label=label, zorder=5)
    if lowest > high:
        to_axis = ax.yaxis.get_transform()
        bottom, top = to_axis.transform(np.array([low, lowest]))
        high = float(to_axis.inverted().transform(np.array([top + 0.05 * (top - bottom)]))[0])
    ax.set_ylim(low, high)
