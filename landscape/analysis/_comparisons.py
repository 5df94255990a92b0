"""Which runs a hyper-parameter alone tells apart, and resamples of them: what granulated statistics are made of."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

SETTINGS, SEEDS = "settings", "seeds"
_BLOCK = 4_000_000  # numbers held in memory at once by a bootstrap


@dataclasses.dataclass(frozen=True, eq=False)
class Comparisons:
    """Pairs of runs in pairs of settings that differ in one hyper-parameter.

    A setting is what runs have in common that differ in their seed alone; an environment is a pair of settings that
    differ in one axis alone; a group is all environments of one axis with the same values of everything else.

    Attributes:
        axes: The hyper-parameters.
        setting: Number of each run's setting, shape (n,).
        first: One run of each pair, shape (pairs,).
        second: The other one.
        environment: Number of each pair's environment, shape (pairs,).
        ends: The two settings of each environment, shape (environments, 2).
        group: Number of each environment's group, shape (environments,).
        axis: Place of each group's axis among the axes, shape (groups,).
    """

    axes: tuple[str, ...]
    setting: np.ndarray
    first: np.ndarray
    second: np.ndarray
    environment: np.ndarray
    ends: np.ndarray
    group: np.ndarray
    axis: np.ndarray

    @property
    def compared(self) -> np.ndarray:
        """The runs that are in a pair, shape (runs,)."""
        return np.unique(np.concatenate([self.first, self.second]))

    @property
    def groups_by_axis(self) -> tuple[int, ...]:
        """Number of groups of each axis."""
        return tuple(int((self.axis == place).sum()) for place in range(len(self.axes)))

    def resampling(self, asked: str | None) -> str:
        """Return what is resampled: by default seeds where every compared setting has two or more.

        Raises:
            ValueError: It is neither of the two.
        """
        if asked not in {None, SETTINGS, SEEDS}:
            raise ValueError(f"resample is {asked!r}; expected {SETTINGS!r} or {SEEDS!r}")
        return asked or (SEEDS if self.has_seeds else SETTINGS)

    @property
    def has_seeds(self) -> bool:
        """Whether every compared setting has two runs or more."""
        return bool(len(self.first)) and bool(np.bincount(self.setting)[self.setting[self.compared]].min() > 1)

    def products(self, measure: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Return sign(μ_1 − μ_2) sign(g_1 − g_2) of each pair: 1 concordant, −1 discordant, 0 where either is tied."""
        return self._sign(measure) * self._sign(target)

    def _sign(self, values: np.ndarray) -> np.ndarray:
        one, other = values[self.first], values[self.second]
        return (one > other).astype(np.float64) - (one < other)  # infinities have no difference, but an order

    def whole(self) -> np.ndarray:
        """Return the sample itself as counts: every run once, shape (1, n)."""
        return np.ones((1, len(self.setting)))

    def resamples(self, how: str, number: int, seed: int) -> Iterator[np.ndarray]:
        """Draw how often each run is in each resample, shape (block, n) at a time.

        "settings": as many settings as there are, with replacement, each with all its runs. "seeds": in each setting
        as many runs as it has, with replacement; all settings stay.

        Args:
            how: What is drawn.
            number: How many resamples in all.
            seed: Seed of the drawing.

        Yields:
            Counts.
        """
        rng = np.random.default_rng(seed)
        sizes = np.bincount(self.setting)
        block = max(1, _BLOCK // max(1, len(self.first)))
        for start in range(0, number, block):
            several = min(block, number - start)
            if how == SETTINGS:
                drawn = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=several)
                yield drawn[:, self.setting].astype(np.float64)
                continue
            counts = np.zeros((several, len(self.setting)))
            for place, size in enumerate(sizes):
                counts[:, self.setting == place] = rng.multinomial(size, np.full(size, 1 / size), size=several)
            yield counts

    def means(self, values: np.ndarray, weights: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the weighted mean over the pairs of each environment, and the weight it is of.

        Args:
            values: One a pair, shape (pairs,).
            weights: One a pair.
            counts: How often each run is there, shape (resamples, n).

        Returns:
            Means, NaN in environments without a pair, and sums of weights; shape (resamples, environments) each.
        """
        paired = counts[:, self.first] * counts[:, self.second] * weights
        to_environment = sparse.csr_array(
            (np.ones(len(self.first)), (np.arange(len(self.first)), self.environment)),
            shape=(len(self.first), len(self.ends)),
        )
        total, weight = (paired * values) @ to_environment, paired @ to_environment
        return np.divide(total, weight, out=np.full(total.shape, np.nan), where=weight > 0), weight


def compare(table: pd.DataFrame, axes: Sequence[str], within: Sequence[str] = ()) -> Comparisons:
    """Find all pairs of runs whose settings differ in one of the axes alone.

    Args:
        table: A row a run.
        axes: Columns of the hyper-parameters that were varied.
        within: Columns in which two runs must agree to be compared, though they are no axis.

    Returns:
        The pairs.

    Raises:
        ValueError: The table has no such column, or a column is named twice.
    """
    axes, columns = tuple(axes), [*axes, *within]
    if missing := [name for name in columns if name not in table]:
        raise ValueError(
            f"the table has no column {missing[0]!r}; axes and within name columns, a row a run; it has "
            f"{', '.join(map(str, table.columns))}"
        )
    if len(set(columns)) < len(columns):
        raise ValueError(f"axes and within name a column twice: {', '.join(columns)}")
    codes = np.array([_codes(table[name]) for name in columns], dtype=np.int64).reshape(len(columns), len(table)).T
    values, setting = np.unique(codes, axis=0, return_inverse=True)
    setting = setting.reshape(-1)
    runs = [np.flatnonzero(setting == place) for place in range(len(values))]
    axis: list[int] = []
    group: list[int] = []
    ends: list[tuple[int, int]] = []
    for place in range(len(axes)):
        others = np.delete(values, place, axis=1)
        _, number = np.unique(others, axis=0, return_inverse=True)
        for _, members in _by_number(number.reshape(-1)):
            if len(members) > 1:
                pairs = list(itertools.combinations(members, 2))
                group += [len(axis)] * len(pairs)
                ends += pairs
                axis.append(place)
    pairs_of = [np.array(list(itertools.product(runs[a], runs[b])), dtype=np.int64) for a, b in ends]
    stacked = np.concatenate(pairs_of) if pairs_of else np.zeros((0, 2), dtype=np.int64)
    return Comparisons(
        axes,
        setting,
        stacked[:, 0],
        stacked[:, 1],
        np.repeat(np.arange(len(ends)), [len(pairs) for pairs in pairs_of]).astype(np.int64),
        np.array(ends, dtype=np.int64).reshape(-1, 2),
        np.array(group, dtype=np.int64),
        np.array(axis, dtype=np.int64),
    )


def columns_of(table: pd.DataFrame, *names: str) -> list[np.ndarray]:
    """Return columns of numbers.

    Raises:
        ValueError: There is no such column, or it holds no numbers.
    """
    found = []
    for name in names:
        if name not in table:
            raise ValueError(f"the table has no column {name!r}; it has {', '.join(map(str, table.columns))}")
        try:
            found.append(table[name].to_numpy(dtype=np.float64))
        except (TypeError, ValueError):
            example = table[name].iloc[0]
            raise ValueError(f"the column {name!r} holds no numbers, so it has no order; found {example!r}") from None
    return found


def _codes(column: pd.Series[Any]) -> np.ndarray:
    """Number the distinct values of a column; a missing value is one of its own, and lists compare by their text."""
    plain = column.map(lambda value: str(value) if isinstance(value, (list, dict)) else value)
    return pd.factorize(plain, use_na_sentinel=False)[0]


def _by_number(numbers: np.ndarray) -> list[tuple[int, np.ndarray]]:
    return [(number, np.flatnonzero(numbers == number)) for number in range(numbers.max(initial=-1) + 1)]
