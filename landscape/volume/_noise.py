"""The random numbers of a chain, equal for every device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

# Below, drawing is no cost beside a gradient.
_LARGE = 2**14
_TIMES = 4


def stream(*key: int) -> torch.Generator:
    """Return a generator of torch's on the CPU with a stream of its own for each key, equal for every device."""
    generator = torch.Generator()
    generator.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
    return generator


class Noise:
    """Normal vectors, one a step, independent of those of other steps.

    Drawing a million numbers takes half as long as the gradient of a small batch. So where it is allowed a vector of d
    numbers consists of one of d/4 that stands four times, each time with a random sign and turned round by a random
    number of places. Every number is exactly standard normal and E[ξξᵀ] = I exactly (by the signs), so means and
    covariances of a chain on a quadratic are those of normal noise; moments of fourth order are off by some 1/d.

    Memory: d/4 numbers, or d.

    Args:
        generator: On the CPU.
        like: The vector that it is for, shape (d,).
        times: How many times a number may stand; by default 4 in large vectors, 1 in others.
    """

    def __init__(self, generator: torch.Generator, like: torch.Tensor, times: int | None = None):
        self._generator, self._like = generator, like
        self._times = (_TIMES if len(like) >= _LARGE else 1) if times is None else times
        self._sheet = torch.empty(-(-len(like) // self._times))

    def parts(self) -> Iterator[tuple[slice, torch.Tensor, int]]:
        """Draw the next vector.

        Yields:
            A range of places, the numbers there, and the sign to take them with. They hold until the next is drawn.
        """
        sheet = self._sheet.normal_(generator=self._generator).to(self._like)
        if self._times == 1:
            yield slice(None), sheet, 1
            return
        size, start = len(sheet), 0
        for turn in torch.randint(2 * size, (self._times,), generator=self._generator).tolist():
            sign, middle = 2 * (turn % 2) - 1, turn // 2
            for numbers in (sheet[middle:], sheet[:middle]):
                stop = min(start + len(numbers), len(self._like))
                yield slice(start, stop), numbers[: stop - start], sign
                start = stop

    def vector(self) -> torch.Tensor:
        """Draw the next vector and put it together, shape (d,)."""
        vector = torch.empty_like(self._like)
        for places, numbers, sign in self.parts():
            torch.mul(numbers, sign, out=vector[places])
        return vector
