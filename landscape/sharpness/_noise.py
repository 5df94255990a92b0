"""The random numbers behind perturbations: the same on every device, one stream for each index."""

from __future__ import annotations

import numpy as np
import torch


def draw(size: int, norm: str, seed: int, index: int, out: torch.Tensor | None = None) -> torch.Tensor:
    """Draw independent numbers with the law of a norm: standard normal ("l2") or uniform in [−1, 1] ("linf").

    They come from torch's CPU generator in float32, whatever they are used in: numpy's normal numbers take more than
    three times as long, which shows beside the forward pass of a network with many weights.

    Args:
        size: How many.
        norm: "l2" or "linf".
        seed: The seed.
        index: Number of the draw; each has a stream of its own, so that a draw does not depend on how many came before.
        out: Where to put them, a vector on the CPU, shape (size,), float32; by default a new one.

    Returns:
        A vector on the CPU, shape (size,), float32.
    """
    generator = torch.Generator()
    generator.manual_seed(int(np.random.SeedSequence((seed, index)).generate_state(1)[0]))
    if norm == "linf":
        return torch.rand(size, generator=generator, out=out).mul_(2).sub_(1)
    return torch.randn(size, generator=generator, out=out)
