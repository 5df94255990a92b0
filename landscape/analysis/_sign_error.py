"""How often a measure ranks two trainings wrongly, in the mean and in the worst pair of settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from landscape._results import Result
from landscape.analysis._comparisons import SEEDS, SETTINGS, Comparisons, columns_of, compare
from landscape.analysis._correlation import check_resampling, percentile_interval


@dataclasses.dataclass(frozen=True)
class SignError(Result):
    """Sign errors over environments: 0 all pairs in the right order, 1 all in the wrong one, 1/2 by chance.

    Attributes:
        mean: Mean over the environments; NaN where a compared value is NaN or no environment is left.
        mean_low: Lower end of its bootstrap interval; NaN where there is none.
        mean_high: Upper end.
        worst: The largest over the environments: the robust sign error.
        worst_low: Lower end of its interval over seeds; NaN where settings have one run.
        worst_high: Upper end.
        worst_environment: The pair of settings where it is worst, in words.
        by_environment: The sign error of each environment; NaN for those discarded.
        environment_axis: The hyper-parameter in which each environment's settings differ.
        n_environments: Number of environments that count.
        n_discarded: Number discarded, for the differences of the target are within its noise.
        n: Number of runs compared.
        resampled: What a resample draws for the mean, "settings" or "seeds".
        confidence: Nominal coverage of the intervals.
        seed: Seed of the resampling.
    """

    mean: float
    mean_low: float
    mean_high: float
    worst: float
    worst_low: float
    worst_high: float
    worst_environment: str
    by_environment: tuple[float, ...]
    environment_axis: tuple[str, ...]
    n_environments: int
    n_discarded: int
    n: int
    resampled: str
    confidence: float
    seed: int

    def __str__(self) -> str:
        discarded = f", {self.n_discarded} discarded" if self.n_discarded else ""
        return (
            f"sign error {self.mean:.2f} [{self.mean_low:.2f}, {self.mean_high:.2f}] in the mean, {self.worst:.2f} "
            f"[{self.worst_low:.2f}, {self.worst_high:.2f}] at worst ({self.n_environments} environments{discarded}, "
            f"n = {self.n})"
        )


def sign_error(
    table: pd.DataFrame,
    measure: str,
    target: str,
    axes: Sequence[str],
    within: Sequence[str] = (),
    *,
    examples: int | None = None,
    least_weight: float = 0.5,
    least_pairs: float = 0.0,
    resample: str | None = None,
    n_bootstrap: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> SignError:
    """Count how often a measure orders two runs otherwise than the target does, by pair of settings.

    An environment e is a pair of settings that differ in one hyper-parameter. Over the pairs of their seeds,

        SE_e = ½ E[1 − sign(μ_1 − μ_2) sign(g_1 − g_2)],

    a tie in either counting ½. Given are the mean over environments and the largest. A measure that explains
    generalisation has a small one everywhere; the mean alone can hide an intervention that it gets wrong always.

    Where the target is an error rate on `examples` examples (or its gap to the training error), small differences are
    noise of that sample: a pair weighs w = max(0, 1 − 2 exp(−2 m (Δg/2)²))², by Hoeffding's inequality a
    lower bound on the probability that both rates are off by less than |Δg|/2 (so that the order is right) where each
    was measured on m examples of its own.

    Intervals are of percentiles; see `granulated_kendall` for "settings" and "seeds". Another choice of settings can
    hide the worst environment but not make a worse one, so resampling settings would tell the largest error little:
    its interval is always over seeds, and there is none where a compared setting has one run. As a largest value of
    noisy ones it lies too high, and so does its interval.

    Args:
        table: A row a run.
        measure: Column of the measure.
        target: Column of what it is to rank.
        axes: Columns of the hyper-parameters.
        within: Columns in which two runs must agree to be compared, though they are no axis.
        examples: m, number of examples behind a target that is an error rate; None for a target without such noise.
        least_weight: Environments whose pairs weigh less in the mean are discarded (with `examples`).
        least_pairs: Environments of fewer effective pairs, (Σw)²/Σw², are discarded.
        resample: "settings" or "seeds", for the mean.
        n_bootstrap: Number of resamples.
        seed: Seed of the resampling.
        confidence: Nominal coverage of the intervals, between 0 and 1.

    Returns:
        Mean and worst sign error with intervals, and every environment's.

    Raises:
        ValueError: No axis, an unknown column or one without numbers, `examples` with a target outside [−1, 1], or an
            argument out of range.

    Source: Dziugaite et al. 2020, arXiv:2010.11924.

    Where we differ: they discard environments of less than 12 effective pairs (of 100), which settings of one seed
    never have, and keep those whose pairs all weigh little; by default we discard by the mean weight of a pair. Theirs
    is `least_weight=0, least_pairs=12`.
    """  # noqa: DOC503 - the columns and the resampling raise some of it
    check_resampling(n_bootstrap, confidence)
    if not axes:
        raise ValueError("axes is empty; name the hyper-parameters that were varied")
    if not 0 <= least_weight <= 1:
        raise ValueError(f"least_weight is {least_weight}; it is a mean weight of pairs, between 0 and 1")
    pairs = compare(table, axes, within)
    mu, g = columns_of(table, measure, target)
    how, used = pairs.resampling(resample), pairs.compared
    weights = _weights(pairs, g, examples)
    wrong = (1 - pairs.products(mu, g)) / 2
    known = len(used) > 0 and not np.isnan([mu[used], g[used]]).any()
    errors, total = pairs.means(wrong, weights, pairs.whole())
    sizes = np.bincount(pairs.environment, minlength=len(pairs.ends))
    _, squared = pairs.means(wrong, weights**2, pairs.whole())
    enough = (total[0] >= least_weight * sizes) & (total[0] ** 2 >= least_pairs * squared[0]) & (total[0] > 0)
    counts_as = enough if known else np.ones(len(sizes), dtype=bool)
    errors = np.where(counts_as & known, errors[0], np.nan)
    mean = worst = mean_low = mean_high = worst_low = worst_high = np.nan
    where = ""
    if known and counts_as.any():
        mean, worst = float(errors[counts_as].mean()), float(errors[counts_as].max())
        where = _in_words(table, pairs, int(np.nanargmax(errors)))
        drawn = {
            kind: np.concatenate(
                [
                    _resampled(pairs, wrong, weights, counts_as, counts, kind)
                    for counts in pairs.resamples(kind, n_bootstrap, seed)
                ]
            )
            for kind in {how} | ({SEEDS} if pairs.has_seeds else set())
        }
        mean_low, mean_high = percentile_interval(drawn[how][:, 0], confidence)
        if SEEDS in drawn:
            worst_low, worst_high = percentile_interval(drawn[SEEDS][:, 1], confidence)
    return SignError(
        mean,
        mean_low,
        mean_high,
        worst,
        worst_low,
        worst_high,
        where,
        tuple(map(float, errors)),
        tuple(pairs.axes[place] for place in pairs.axis[pairs.group]),
        int(counts_as.sum()),
        int((~counts_as).sum()),
        len(used),
        how,
        confidence,
        seed,
    )


def _weights(pairs: Comparisons, target: np.ndarray, examples: int | None) -> np.ndarray:
    if examples is None:
        return np.ones(len(pairs.first))
    if examples < 1:
        raise ValueError(f"examples is {examples}; an error rate needs at least one example")
    outside = np.abs(target) > 1
    if outside.any():
        raise ValueError(
            f"the target holds {target[outside][0]:g}, which is no error rate; leave `examples` out for a target "
            "without the noise of a sample"
        )
    gap = np.abs(target[pairs.first] - target[pairs.second])
    return np.maximum(0.0, 1 - 2 * np.exp(-2 * examples * (gap / 2) ** 2)) ** 2


def _resampled(
    pairs: Comparisons, wrong: np.ndarray, weights: np.ndarray, counts_as: np.ndarray, counts: np.ndarray, how: str
) -> np.ndarray:
    """Return mean and largest sign error of each resample, shape (resamples, 2), over the same environments."""
    errors, weight = pairs.means(wrong, weights, counts)
    errors, weight = errors[:, counts_as], weight[:, counts_as]
    there = weight > 0
    times = there.astype(np.float64)
    if how == SETTINGS:
        times = weight / pairs.means(wrong, weights, pairs.whole())[1][:, counts_as]  # how often the pair was drawn
    total = times.sum(axis=1)
    mean = np.divide(
        (times * np.nan_to_num(errors)).sum(axis=1), total, out=np.full(len(total), np.nan), where=total > 0
    )
    largest = np.where(there, errors, -np.inf).max(axis=1)
    return np.column_stack([mean, np.where(np.isfinite(largest), largest, np.nan)])


def _in_words(table: pd.DataFrame, pairs: Comparisons, environment: int) -> str:
    """Name an environment: the two values of its axis, and those of the other axes."""
    one, other = (int(np.flatnonzero(pairs.setting == end)[0]) for end in pairs.ends[environment])
    axis = pairs.axes[pairs.axis[pairs.group[environment]]]
    rest = ", ".join(f"{name} = {table[name].iloc[one]}" for name in pairs.axes if name != axis)
    return f"{axis}: {table[axis].iloc[one]} against {table[axis].iloc[other]}" + (f", at {rest}" if rest else "")
