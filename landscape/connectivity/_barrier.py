"""The barrier on a path: how far the loss rises between two solutions, by three definitions in use."""

from __future__ import annotations

import numpy as np

from landscape.connectivity._profile import PathProfile

DEFINITIONS = ("interpolated", "mean_of_ends", "worse_end")


def barrier(profile: PathProfile, definition: str = "interpolated", which: str = "loss") -> float:
    """Measure the height of the barrier along a path γ from its values at the points of the t grid.

    - "interpolated": max_t [L(γ(t)) − ((1−t) L(γ(0)) + t L(γ(1)))], the rise over the straight line between the ends'
      losses (Entezari et al. 2022, arXiv:2110.06296).
    - "mean_of_ends": max_t L(γ(t)) − (L(γ(0)) + L(γ(1)))/2, the rise over their mean; ends of unequal loss alone make
      it half their difference (Frankle et al. 2020, arXiv:1912.05671).
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
    first, last = values[np.argmin(t)], values[np.argmax(t)]
    # inf − inf has no value and comes out as NaN; that is the answer, not an accident to warn about.
    with np.errstate(invalid="ignore"):
        if definition == "interpolated":
            return float(np.max(values - ((1 - t) * first + t * last)))
        base = (first + last) / 2 if definition == "mean_of_ends" else np.maximum(first, last)
        return float(np.max(values) - base)
