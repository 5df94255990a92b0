"""The random numbers behind perturbations: the same on every device, one stream for each index."""

from __future__ import annotations

import numpy as np
import torch


def draw(size: int, norm: str, seed: int, index: int) -> torch.Tensor:
    """Draw independent numbers with the law of a norm: standard normal ("l2") or uniform in [−1, 1] ("linf").

    Args:
        size: How many.
        norm: "l2" or "linf".
        seed: The seed.
        index: Number of the draw; each has a stream of its own, so that a draw does not depend on how many came before.

    Returns:
        A vector on the CPU, shape (size,), float64.
    """
    generator = np.random.default_rng((seed, index))
    if norm == "linf":
        return torch.from_numpy(generator.uniform(-1.0, 1.0, size))
    return torch.from_numpy(generator.standard_normal(size))
