"""The barrier on a path: how far the loss rises between two solutions, by three definitions in use."""

from __future__ import annotations

import dataclasses

import numpy as np

from landscape._results import Result
from landscape.connectivity._profile import PathProfile

DEFINITIONS = ("interpolated", "mean_of_ends", "worse_end")


def barrier(profile: PathProfile, definition: str = "interpolated", which: str = "loss") -> float:
    """Measure the height of the barrier along a path γ from its values at the points of the t grid.

    - "interpolated": max_t [L(γ(t)) − ((1−t) L(γ(0)) + t L(γ(1)))], the rise over the straight line between the ends'
      losses (Entezari et al. 2022, arXiv:2110.06296).

    - "mean_of_ends": max_t L(γ(t)) − (L(γ(0)) + L(γ(1)))/2, the rise over their mean (Frankle et al. 2020,
      arXiv:1912.05671). Ends of unequal loss alone make it half their difference.

    - "worse_end": max_t L(γ(t)) − max(L(γ(0)), L(γ(1))), what a walker must climb beyond the worse solution.

    None can be negative, as both ends are on the grid; interpolated ≥ worse_end and mean_of_ends ≥ worse_end always. On
    a finer grid the maximum can only grow.

    Args:
        profile: Loss and error along the path; its grid must hold t = 0 and t = 1.
        definition: One of the three names.
        which: "loss" or "error".

    Returns:
        The barrier in units of the loss, or as a fraction of wrong labels. NaN where any value on the path is NaN, or
        where an end and the path are both infinite.

    Raises:
        ValueError: A name is unknown, or an end is missing on the grid.

    Example:
        >>> import numpy as np
        >>> path = PathProfile(np.array([0.0, 0.5, 1.0]), np.array([1.0, 3.0, 2.0]), np.full(3, np.nan))
        >>> [barrier(path, definition) for definition in ("interpolated", "mean_of_ends", "worse_end")]
        [1.5, 1.5, 1.0]
        >>> barrier(path, which="error")
        nan
    """
    return measure_barrier(profile, definition, which).value


@dataclasses.dataclass(frozen=True)
class Barrier(Result):
    """The height of a barrier, with its standard error over the measured examples.

    Attributes:
        which: "loss" or "error".
        definition: Name of the definition.
        value: The height, as `barrier` gives it.
        stderr: Standard error of the height over examples, at the place where it was found; NaN where the examples'
            shares in the loss are not known. That the place was chosen as the highest is not in it.
        t: The place of the maximum, NaN where the height is.
        n_examples: Number of examples behind the standard error, 0 where there is none.
    """

    which: str
    definition: str
    value: float
    stderr: float
    t: float
    n_examples: int

    @property
    def stderr_sample(self) -> float:
        """The same as `stderr`: a barrier has no other error than the one over examples."""
        return self.stderr


def barriers(profile: PathProfile) -> tuple[Barrier, ...]:
    """Measure the barriers in loss and error by all three definitions; `barrier` says what they are.

    The standard error is that of a mean of differences example by example: examples that are hard everywhere on the
    path count little in it.

    Args:
        profile: Loss and error along the path; its grid must hold t = 0 and t = 1.

    Returns:
        Six barriers: loss first, the definitions in the order of `DEFINITIONS`.

    Raises:
        ValueError: An end is missing on the grid.
    """  # noqa: DOC502 - measure_barrier raises it
    return tuple(measure_barrier(profile, name, which) for which in ("loss", "error") for name in DEFINITIONS)


def measure_barrier(profile: PathProfile, definition: str = "interpolated", which: str = "loss") -> Barrier:
    """Measure one barrier with its place and standard error; arguments as in `barrier`.

    Returns:
        The barrier.

    Raises:
        TypeError: What is given is no profile.
        ValueError: A name is unknown, or an end is missing on the grid.
    """
    if not hasattr(profile, "loss"):
        raise TypeError(
            f"a barrier is measured on the values along a path, not on a {type(profile).__name__}: give "
            "curve.evaluate(), or curve.evaluate(batches) for other examples"
        )
    if definition not in DEFINITIONS:
        raise ValueError(f"definition is {definition!r}; it must be one of {', '.join(DEFINITIONS)}")
    if which not in ("loss", "error"):
        raise ValueError(f"which is {which!r}; it must be 'loss' or 'error'")
    t = np.asarray(profile.t, dtype=np.float64)
    values = np.asarray(getattr(profile, which), dtype=np.float64)
    if not ((t == 0).any() and (t == 1).any()):
        raise ValueError(
            f"the t grid of {len(t)} points does not hold both ends, 0 and 1, which a barrier is measured against; "
            "evaluate the path on a grid such as numpy.linspace(0, 1, 21)"
        )
    first, last = int(np.argmin(t)), int(np.argmax(t))
    # inf − inf has no value and comes out as NaN; that is the answer, not an accident to warn about.
    with np.errstate(invalid="ignore"):
        weights = _base(definition, t, first, last, values)
        base = weights[:, 0] * values[first] + weights[:, 1] * values[last]
        if definition == "interpolated":
            heights = values - base
            top = int(np.argmax(heights))
            value = float(np.max(heights))
        else:
            top = int(np.argmax(values))
            value = float(np.max(values) - base[top])
    if np.isnan(value):
        return Barrier(which, definition, value, float("nan"), float("nan"), 0)
    if profile.examples is None or not np.isfinite(value):
        return Barrier(which, definition, value, float("nan"), float(t[top]), 0)
    shares = profile.examples[:, ("loss", "error").index(which)]
    differences = shares[top] - (weights[top, 0] * shares[first] + weights[top, 1] * shares[last])
    n = len(differences)
    stderr = float(differences.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return Barrier(which, definition, value, stderr, float(t[top]), n)


def _base(definition: str, t: np.ndarray, first: int, last: int, values: np.ndarray) -> np.ndarray:
    """Weights of both ends in what the height is measured from, at every t, shape (n, 2)."""
    if definition == "interpolated":
        return np.stack([1 - t, t], 1)
    if definition == "mean_of_ends":
        return np.full((len(t), 2), 0.5)
    return np.tile([1.0, 0.0] if not values[last] > values[first] else [0.0, 1.0], (len(t), 1))
