"""Kendall's coefficient one hyper-parameter at a time, so that no single one of them makes a measure look good."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from landscape._results import Result
from landscape.analysis._comparisons import SETTINGS, Comparisons, columns_of, compare
from landscape.analysis._correlation import check_resampling, percentile_interval


@dataclasses.dataclass(frozen=True)
class GranulatedKendall(Result):
    """Ψ and its parts, an entry for each axis.

    Attributes:
        value: Ψ, the mean of ψ over the axes; NaN where a compared value is NaN or an axis has no group.
        low: Lower end of its bootstrap interval; NaN where there is none.
        high: Upper end.
        axes: The hyper-parameters.
        psi: ψ_i of each axis.
        psi_low: Lower ends of their intervals.
        psi_high: Upper ends.
        n_groups: Number of groups behind each: settings of everything else at which the axis took two values or more.
        n: Number of runs compared.
        resampled: What a resample draws, "settings" or "seeds".
        confidence: Nominal coverage of the intervals.
        seed: Seed of the resampling.
    """

    value: float
    low: float
    high: float
    axes: tuple[str, ...]
    psi: tuple[float, ...]
    psi_low: tuple[float, ...]
    psi_high: tuple[float, ...]
    n_groups: tuple[int, ...]
    n: int
    resampled: str
    confidence: float
    seed: int

    def __str__(self) -> str:
        parts = ", ".join(
            f"{axis} {psi:.2f} ({count})" for axis, psi, count in zip(self.axes, self.psi, self.n_groups, strict=True)
        )
        text = (
            f"Ψ = {self.value:.2f} [{self.low:.2f}, {self.high:.2f}] ({100 * self.confidence:g} % bootstrap over "
            f"{self.resampled}, n = {self.n}); by axis (groups): {parts}"
        )
        return text.replace("-", "−")


def granulated_kendall(
    table: pd.DataFrame,
    measure: str,
    target: str,
    axes: Sequence[str],
    within: Sequence[str] = (),
    *,
    resample: str | None = None,
    n_bootstrap: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> GranulatedKendall:
    """Correlate two measures along one hyper-parameter at a time, and average.

    Within a group G, the settings that differ in axis i alone, with μ the measure and g the target,

        τ(G) = mean over pairs of settings of sign(μ_a − μ_b) sign(g_a − g_b),

    ψ_i is the mean of τ over the groups of axis i, and Ψ the mean of ψ over the axes. A pair tied in either counts 0,
    and counts as a pair (Kendall's tau-a). Nothing depends on more than the orders of the two measures.

    Runs that agree in all axes are seeds of one setting; a pair of settings then takes the mean over all pairs of
    their seeds. So name every hyper-parameter that was varied. A grid need not be full: a group counts from two
    settings on, and all groups of an axis count alike.

    The intervals are of percentiles. Resampling "seeds" draws each setting's runs anew: what another set of seeds on
    the same grid would give. Resampling "settings" draws whole settings with all their runs, so that a group changes
    in its pairs and may drop out; resamples that leave an axis without a group have no Ψ, and where these are half of
    them or more, there is no interval. By default seeds, where every compared setting has two or more.

    Args:
        table: A row a run.
        measure: Column of the measure.
        target: Column of what it is to rank.
        axes: Columns of the hyper-parameters.
        within: Columns in which two runs must agree to be compared, though they are no axis: a data set, or the seed
            to compare runs of equal seeds only.
        resample: "settings" or "seeds".
        n_bootstrap: Number of resamples.
        seed: Seed of the resampling.
        confidence: Nominal coverage of the intervals, between 0 and 1.

    Returns:
        Ψ and ψ with intervals and numbers of groups.

    Raises:
        ValueError: No axis, an unknown column or one without numbers, or an argument out of range.

    Source: Jiang et al. 2020, arXiv:1912.02178.

    Where we differ: they take the repeats of a grid one by one and average (`within=[seed]` does that); we take all
    pairs of seeds, which has the same expectation where seeds are independent, and less variance.
    """  # noqa: DOC503 - the columns and the resampling raise some of it
    check_resampling(n_bootstrap, confidence)
    if not axes:
        raise ValueError("axes is empty; name the hyper-parameters that were varied")
    pairs = compare(table, axes, within)
    mu, g = columns_of(table, measure, target)
    how = pairs.resampling(resample)
    nan = (np.nan,) * len(pairs.axes)
    value, low, high, psi, psi_low, psi_high = np.nan, np.nan, np.nan, nan, nan, nan
    used = pairs.compared
    if len(used) and not np.isnan([mu[used], g[used]]).any():
        products = pairs.products(mu, g)
        found = _psi(pairs, products, pairs.whole(), how)[0]
        psi, value = tuple(map(float, found)), float(found.mean())
        drawn = [_psi(pairs, products, counts, how) for counts in pairs.resamples(how, n_bootstrap, seed)]
        sample = np.concatenate(drawn)
        low, high = percentile_interval(sample.mean(axis=1), confidence)
        psi_low, psi_high = zip(*(percentile_interval(column, confidence) for column in sample.T), strict=True)
    return GranulatedKendall(
        value,
        low,
        high,
        pairs.axes,
        psi,
        psi_low,
        psi_high,
        pairs.groups_by_axis,
        len(used),
        how,
        confidence,
        seed,
    )


def _psi(pairs: Comparisons, products: np.ndarray, counts: np.ndarray, how: str) -> np.ndarray:
    """Return ψ of each axis in each resample, shape (resamples, axes); NaN for an axis without a group."""
    by_environment, _ = pairs.means(products, np.ones(len(products)), counts)
    times = np.ones(by_environment.shape)
    if how == SETTINGS:
        # The settings of a resample are counted; all runs of a setting are there as often.
        of_setting = np.zeros((len(counts), pairs.setting.max() + 1))
        of_setting[:, pairs.setting] = counts
        times = of_setting[:, pairs.ends[:, 0]] * of_setting[:, pairs.ends[:, 1]]
    tau = _grouped(np.nan_to_num(by_environment), times, pairs.group, len(pairs.axis))
    return _grouped(np.nan_to_num(tau), np.isfinite(tau).astype(np.float64), pairs.axis, len(pairs.axes))


def _grouped(values: np.ndarray, weights: np.ndarray, number: np.ndarray, count: int) -> np.ndarray:
    """Return the weighted means of the columns of each number, NaN where there is no weight."""
    member = (number[:, None] == np.arange(count)).astype(np.float64)
    total, weight = (values * weights) @ member, weights @ member
    return np.divide(total, weight, out=np.full(total.shape, np.nan), where=weight > 0)
