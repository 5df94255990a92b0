"""Results of measures: small frozen dataclasses that print well and turn into a dict of plain values."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


class Result:
    """Mixin of all results: `to_dict` gives plain floats, integers, strings and numpy arrays, ready to be stored."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, tensors as numpy arrays."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {field.name: _plain(getattr(self, field.name)) for field in fields}


@dataclasses.dataclass(frozen=True)
class Estimate(Result):
    """A number with what is needed to trust it.

    Attributes:
        value: The estimate.
        stderr: Its standard error; 0 for a number computed without sampling, NaN where one sample leaves it unknown.
        n: Number of independent samples behind it (1 for a number computed without sampling).
        seed: Seed of the random generator, or None where nothing was drawn.
    """

    value: float
    stderr: float
    n: int
    seed: int | None

    @classmethod
    def exact(cls, value: float) -> Estimate:
        """Wrap a number that involved no sampling."""
        return cls(float(value), 0.0, 1, None)

    @classmethod
    def from_samples(cls, samples: Any, seed: int | None) -> Estimate:
        """Mean and standard error of independent samples (one-dimensional); one sample leaves the error NaN."""
        samples = np.asarray(samples, dtype=np.float64)
        n = len(samples)
        stderr = float(samples.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
        return cls(float(samples.mean()), stderr, n, seed)

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{self.value:.6g} ± {self.stderr:.2g} (n={self.n}, seed={self.seed})"


def _plain(value: Any) -> Any:
    if hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    return value
