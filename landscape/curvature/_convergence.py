"""When Ritz values are known to be the extreme eigenvalues: errors, ranks, and which ones are wanted."""

from __future__ import annotations

import numpy as np

_SMALL = 4096


def select(values: np.ndarray, k: int, which: str) -> np.ndarray:
    """Return the indices of the wanted among ascending values, in the order of the result."""
    order = np.arange(len(values))
    if which == "LA":
        return order[::-1][:k]
    if which == "SA":
        return order[:k]
    if which == "LM":
        return np.argsort(-np.abs(values), kind="stable")[:k]
    bottom = min(k // 2, len(values))
    top = order[bottom:][::-1][: k - bottom]
    return np.concatenate([top, order[:bottom][::-1]])


def is_small(size: int) -> bool:
    """Whether products with an operator of this size cost next to nothing, so that caution is free."""
    return size <= _SMALL


def negligible(values: np.ndarray, tol: float) -> float:
    """Magnitude below which an eigenvalue counts as zero: its own size is no measure of accuracy there."""
    return tol * float(np.abs(values).max(initial=0.0))


def slack(values: np.ndarray, all_values: np.ndarray, tol: float | np.ndarray) -> np.ndarray:
    """Absolute error that is allowed for each of some values of a spectrum, by one tolerance or one a value."""
    least = tol * negligible(all_values, 1.0)
    allowed: np.ndarray = tol * np.maximum(np.abs(values), least)
    return allowed


def errors(values: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """Bounds on the errors of ascending Ritz values, residual²/gap with the gaps between them (Parlett 1998, §11.7)."""
    spacing = np.diff(values)
    gap = np.minimum(np.append(spacing, np.inf), np.insert(spacing, 0, np.inf))
    return np.minimum(residuals, residuals**2 / np.maximum(gap, 1e-300))


def ranked(values: np.ndarray, wanted: np.ndarray, met: np.ndarray, errors: np.ndarray, which: str) -> np.ndarray:
    """Tell which wanted Ritz pairs are known to be the ones they are taken for.

    Convergence goes from the ends inwards. A Ritz value inside of one that has not converged may belong to any
    eigenvalue, and so may one beyond the middle of the Krylov space. By magnitude, the outermost value of either sign
    that was left out must be known to be smaller.

    Args:
        values: All Ritz values, ascending, shape (m,).
        wanted: Indices of the wanted ones.
        met: Whether each Ritz pair met the tolerance, shape (m,).
        errors: Bounds on the errors of the Ritz values, shape (m,).
        which: "LA", "SA", "LM" or "BE".

    Returns:
        One flag a wanted pair.
    """
    count = len(values)
    from_bottom = np.logical_and.accumulate(met)
    from_top = np.logical_and.accumulate(met[::-1])[::-1]
    half = count // 2
    from_bottom[half:] = False
    from_top[: count - half] = False
    if which == "LA":
        return from_top[wanted]
    if which == "SA":
        return from_bottom[wanted]
    known = (from_top | from_bottom)[wanted]
    if which == "LM" and len(wanted) < count:
        left_out = np.setdiff1d(np.arange(count), wanted)[[0, -1]]
        rivals = (np.abs(values) + errors)[left_out].max()
        known &= np.abs(values[wanted]) + errors[wanted] >= rivals
    return known
