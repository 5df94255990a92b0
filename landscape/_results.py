"""Results of measures: small frozen dataclasses that print well and turn into a dict of plain values."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy.special import ndtri, stdtrit


class Result:
    """Mixin of all results: `to_dict` gives plain floats, integers, strings and numpy arrays, ready to be stored."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, tensors as numpy arrays; what only serves further estimates is left out."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {field.name: _plain(getattr(self, field.name)) for field in fields if field.metadata.get("stored", True)}


def aside() -> Any:
    """Declare a field of a result, None by default, that is neither stored nor printed nor compared."""
    return dataclasses.field(default=None, repr=False, compare=False, kw_only=True, metadata={"stored": False})


@dataclasses.dataclass(frozen=True)
class Estimate(Result):
    """A number with what is needed to trust it.

    Attributes:
        value: The estimate.
        stderr: Its standard error; 0 for a number computed without sampling, NaN where one sample leaves it unknown.
        n: Number of independent samples behind it (1 for a number computed without sampling).
        seed: Seed of the random generator, or None where nothing was drawn.
        dof: Degrees of freedom behind the standard error; infinite where the error itself is certain.
        spread: The standard error before it was widened for few degrees of freedom (`Estimate.student`), else None.
        stderr_sample: Standard error over examples: how the number would vary if other examples had been measured
            with the same draws. NaN where it is not known, as with a single batch. `stderr` does not include it.
    """

    value: float
    stderr: float
    n: int
    seed: int | None
    dof: float = dataclasses.field(default=float("inf"), kw_only=True)
    spread: float | None = dataclasses.field(default=None, kw_only=True)
    # Of two estimates with unknown errors: NaN is no difference.
    stderr_sample: float = dataclasses.field(default=float("nan"), kw_only=True, compare=False)

    @classmethod
    def exact(cls, value: float, stderr_sample: float = float("nan")) -> Estimate:
        """Wrap a number that involved no random draws."""
        return cls(float(value), 0.0, 1, None, stderr_sample=float(stderr_sample))

    @classmethod
    def from_samples(cls, samples: Any, seed: int | None) -> Estimate:
        """Mean and standard error of independent samples (one-dimensional); one sample leaves the error NaN."""
        samples = np.asarray(samples, dtype=np.float64)
        n = len(samples)
        stderr = float(samples.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
        return cls(float(samples.mean()), stderr, n, seed, dof=float(n - 1) if n > 1 else float("inf"))

    @classmethod
    def over_groups(cls, samples: Any, seed: int | None) -> Estimate:
        """Wrap the mean over groups of examples, each measured by itself.

        The groups are all of the measured examples, so nothing is drawn. Their spread is an error over examples.

        Args:
            samples: The groups' values, one-dimensional.
            seed: Seed of what was drawn, or None.

        Returns:
            The mean, with the standard error over examples, widened by Student's t; NaN for a single group.
        """
        if len(samples) == 1:
            return cls.exact(samples[0])
        found = cls.from_samples(samples, seed)
        widened = cls.student(found.value, found.stderr, found.n, seed, found.dof)
        return cls(found.value, 0.0, found.n, seed, stderr_sample=widened.stderr)

    @classmethod
    def student(cls, value: float, spread: float, n: int, seed: int | None, dof: float) -> Estimate:
        """Wrap an estimate whose standard error rests on few degrees of freedom.

        The standard error is widened, stderr = spread · t(0.975, dof) / 1.96, so that value ± 1.96·stderr is the 95 %
        interval, as it is where the error is known well.

        Args:
            value: The estimate.
            spread: Its standard error as found.
            n: Number of independent samples behind it.
            seed: Their seed.
            dof: Degrees of freedom behind `spread`.

        Returns:
            The estimate.
        """
        stderr = float(spread * student_quantile(0.975, dof) / ndtri(0.975))
        return cls(float(value), stderr, n, seed, dof=float(dof), spread=float(spread))

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the interval that covers the exact value with the given confidence, by Student's t.

        Args:
            confidence: Between 0 and 1.

        Returns:
            Its lower and upper end; both NaN where one sample leaves the error unknown.

        Raises:
            ValueError: The confidence is not between 0 and 1.
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence is {confidence}; it must lie between 0 and 1, for example 0.95")
        spread = self.stderr if self.spread is None else self.spread
        half = student_quantile((1 + confidence) / 2, self.dof) * spread
        return self.value - half, self.value + half

    def scaled(self, factor: float, offset: float = 0.0) -> Estimate:
        """Return offset + factor · self, with its error."""
        size = abs(factor)
        return dataclasses.replace(
            self,
            value=offset + factor * self.value,
            stderr=size * self.stderr,
            spread=None if self.spread is None else size * self.spread,
            stderr_sample=size * self.stderr_sample,
        )

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{self.value:.6g} ± {self.stderr:.2g} (n={self.n}, seed={self.seed})"

    def joined(self, error: float) -> Estimate:
        """Return the estimate with another error that is independent of its own added to it, as squares."""
        spread = None if self.spread is None else float(np.hypot(self.spread, error))
        return dataclasses.replace(self, stderr=float(np.hypot(self.stderr, error)), spread=spread)


def student_quantile(probability: float, dof: float) -> float:
    """Return the quantile of Student's t; of the normal distribution for infinite degrees of freedom."""
    return float(ndtri(probability) if np.isinf(dof) else stdtrit(dof, probability))


def _plain(value: Any) -> Any:
    if hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    return value


def with_error(value: float, stderr: float) -> str:
    """Write a number with its standard error, both to the second leading digit of that; alone where it has none."""
    if not np.isfinite(stderr) or not np.isfinite(value) or stderr <= 0:
        return f"{value:.3g}"
    digits = max(0, 1 - int(np.floor(np.log10(stderr))))
    return f"{value:.{digits}f} ± {stderr:.{digits}f}"


@dataclasses.dataclass(frozen=True)
class Evaluation(Result):
    """Loss and error rate over all measured examples.

    Attributes:
        loss: Mean loss, in the loss function's unit (nats for a cross-entropy).
        error: Fraction of wrongly classified targets; NaN where the loss knows no classes.
        loss_stderr_sample: Standard error of the loss over examples, from the losses of the batches; NaN where it is
            not known, as with a single batch.
        error_stderr_sample: That of the fraction.
    """

    loss: float
    error: float
    # Of two evaluations with unknown errors: NaN is no difference.
    loss_stderr_sample: float = dataclasses.field(default=float("nan"), compare=False)
    error_stderr_sample: float = dataclasses.field(default=float("nan"), compare=False)
