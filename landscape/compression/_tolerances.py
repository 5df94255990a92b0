"""The allowed rises of the loss that lengths and noise are measured at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

TOLERANCES = (0.003, 0.01, 0.03, 0.1, 0.3)
"""The allowed rises of the loss at which compressibility is recorded, in nats."""


def checked(tolerances: Sequence[float]) -> Floats:
    """Return the tolerances as an array, shape (m,).

    Args:
        tolerances: Positive finite numbers, one at least.

    Returns:
        The array.

    Raises:
        ValueError: There is none, or one is not a positive finite number.
    """
    asked = np.asarray(tolerances, dtype=np.float64)
    if asked.ndim != 1 or asked.size == 0 or not (np.isfinite(asked).all() and (asked > 0).all()):
        raise ValueError(f"found tolerances {tolerances}, expected a sequence of at least one positive finite number")
    return asked
