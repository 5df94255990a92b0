"""One radius or a ladder of them: what a measure is given, and what it returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from landscape._results import Estimate, Result


@dataclasses.dataclass(frozen=True)
class Ladder(Result):
    """The estimates of one measure at several settings, in the order given; `ladder[i]` is an `Estimate`.

    Attributes:
        name: The setting that varies, such as "rho".
        at: Its values, shape (m,).
        estimates: The estimate at each.
    """

    name: str
    at: np.ndarray
    estimates: tuple[Estimate, ...]

    @property
    def value(self) -> np.ndarray:
        """The values, shape (m,)."""
        return np.array([estimate.value for estimate in self.estimates])

    @property
    def stderr(self) -> np.ndarray:
        """Their standard errors, shape (m,); those of one ladder rest on the same draws, so they are correlated."""
        return np.array([estimate.stderr for estimate in self.estimates])

    @property
    def stderr_sample(self) -> np.ndarray:
        """Their standard errors over examples, shape (m,); NaN where they are not known."""
        return np.array([estimate.stderr_sample for estimate in self.estimates])

    @property
    def n(self) -> int:
        """Number of independent samples behind each value."""
        return self.estimates[0].n

    @property
    def seed(self) -> int | None:
        """Seed of the draws; None where nothing was drawn."""
        return self.estimates[0].seed

    def to_dict(self) -> dict[str, Any]:
        """Return settings, values, standard errors, number of samples and seed by name."""
        errors = {"stderr": self.stderr, "stderr_sample": self.stderr_sample}
        return {self.name: self.at, "value": self.value, **errors, "n": self.n, "seed": self.seed}

    def __len__(self) -> int:
        return len(self.estimates)

    def __getitem__(self, index: int) -> Estimate:
        return self.estimates[index]

    def __iter__(self) -> Iterator[Estimate]:
        return iter(self.estimates)

    def __str__(self) -> str:
        return "\n".join(f"{self.name} = {at:g}: {one}" for at, one in zip(self.at, self.estimates, strict=True))


def rungs(setting: float | Sequence[float], name: str = "rho") -> list[float]:
    """Return the values of a setting, one or several.

    Raises:
        ValueError: There is none, or one is not a positive finite number.
    """
    values = [float(value) for value in np.atleast_1d(np.asarray(setting, dtype=np.float64))]
    if not values:
        raise ValueError(f"{name} is empty; give one value or a sequence of at least one")
    for value in values:
        if not 0 < value < float("inf"):
            what = "the radius" if name == "rho" else "it"
            raise ValueError(f"{name} is {value}; {what} must be a positive finite number")
    return values


def gather(setting: float | Sequence[float], estimates: Sequence[Estimate], name: str = "rho") -> Estimate | Ladder:
    """Return what a measure returns: one estimate for one value, a ladder for a sequence."""
    at = np.asarray(setting, dtype=np.float64)
    return estimates[0] if at.ndim == 0 else Ladder(name, at, tuple(estimates))
