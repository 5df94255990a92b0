"""Points and directions near a model's weights, made tensor by tensor so that few vectors stand in memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from landscape.objective import Objective

# The point is moved off ties, exact zeros and minima by this share of each tensor's root mean square.
_MOVED = 1e-2
# Vectors up to this length are compared entry by entry, longer ones by their products with vectors of signs.
_WHOLE = 1 << 20
_SIGNS = 4
_PIECE = 1 << 20  # numbers drawn or multiplied at a time


class Surroundings:
    """The weights of an objective, their scales, and reproducible noise around them.

    Noise is drawn anew from its number wherever it is needed, so it takes no memory beyond one tensor.

    Args:
        objective: Whose parameters.
    """

    def __init__(self, objective: Objective):
        self._objective = objective
        self._scales = _scales(objective)
        self._size = objective.n_parameters

    def moved(self, seed: int) -> list[torch.Tensor]:
        """Return a point a little off the weights, where no tie, exact zero or minimum is left.

        Args:
            seed: Number of the point.

        Returns:
            Its tensors, of which none shares memory with the module's own.
        """
        objective = self._objective
        point = objective.layout.unflatten(objective.vector())
        for tensor, noise in zip(point, self.noise(2 * seed), strict=True):
            tensor.add_(noise, alpha=_MOVED)
        return point

    def noise(self, index: int) -> Iterator[torch.Tensor]:
        """Yield normal numbers in units of the weights, one tensor at a time; equal for equal `index`."""
        generator = torch.Generator().manual_seed(index)
        like = self._scales[0]
        for shape, scale in zip(self._objective.layout.shapes, self._scales, strict=True):
            drawn = torch.empty(shape, dtype=like.dtype, device=like.device)
            for piece in drawn.view(-1).split(_PIECE):
                piece.copy_(torch.randn(len(piece), generator=generator, dtype=torch.float32))
            yield drawn.mul_(scale)

    def squared_length(self, index: int) -> float:
        """Return the squared length of the noise with this number."""
        return math.fsum(float(tensor.double().square().sum()) for tensor in self.noise(index))

    def seen(self, tensors: Iterable[torch.Tensor]) -> torch.Tensor:
        """Return a vector of derivatives in units of the loss, whose entries may be compared.

        Long vectors are seen through four vectors of random signs in each tensor: the sum of the squares of those
        products has the squared length of the vector as its mean, of differences of vectors too.

        Args:
            tensors: Derivatives by each parameter, used up one by one.

        Returns:
            The vector in units of the weights, or its products with the signs over two.
        """
        if self._size <= _WHOLE:
            pairs = zip(tensors, self._scales, strict=True)
            return torch.cat([(tensor.detach() * scale).reshape(-1) for tensor, scale in pairs])
        generator = torch.Generator().manual_seed(self._size)
        found = [_signed(*pair, generator) for pair in zip(tensors, self._scales, strict=True)]
        return torch.cat(found) / math.sqrt(_SIGNS)


def _signed(tensor: torch.Tensor, scale: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return the products of a scaled tensor with vectors of signs, shape (`_SIGNS`,)."""
    tensor = tensor.detach()
    if scale.ndim:
        tensor, scale = tensor * scale, scale.new_ones(())
    total = tensor.new_zeros(_SIGNS)
    for piece in tensor.reshape(-1).split(_PIECE):
        bits = torch.randint(0, 2, (_SIGNS, len(piece)), generator=generator, dtype=torch.int8)
        total += (2 * bits.to(piece) - 1) @ piece
    return total * scale


def dot(one: Iterable[torch.Tensor], other: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return the scalar product of two vectors given by their tensors, in float64."""
    products = [torch.dot(a.reshape(-1).double(), b.reshape(-1).double()) for a, b in zip(one, other, strict=True)]
    return torch.stack(products).sum()


def shift(point: Sequence[torch.Tensor], direction: Iterable[torch.Tensor], step: float) -> None:
    """Move a point along a direction, in place; a graph made at the point serves again once it has been moved back."""
    for tensor, along in zip(point, direction, strict=True):
        tensor.data.add_(along, alpha=step)


def _scales(objective: Objective) -> list[torch.Tensor]:
    """Return the root mean square of each weight's tensor; 0 for padding rows, whose gradient torch leaves out."""
    names, tensors = objective.layout.names, objective.layout.unflatten(objective.vector())
    squares = [float(tensor.double().square().sum()) for tensor in tensors]
    overall = math.sqrt(math.fsum(squares) / max(objective.n_parameters, 1)) or 1.0
    scales = [
        tensor.new_tensor(math.sqrt(square / max(tensor.numel(), 1)) or overall)
        for tensor, square in zip(tensors, squares, strict=True)
    ]
    places = {id(parameter): name for name, parameter in objective.module.named_parameters()}
    for module in objective.module.modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.padding_idx is not None:
            name = places.get(id(module.weight), "")
            if name in names:
                place = names.index(name)
                scales[place] = scales[place].repeat(len(tensors[place]), 1)
                scales[place][module.padding_idx] = 0.0
    return scales
