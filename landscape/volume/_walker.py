"""A point that moves in place: a step of Langevin dynamics with hardly more work than one of gradient descent."""

from __future__ import annotations

import math

import torch

from landscape.volume._noise import Noise
from landscape.volume._posterior import LocalPosterior


class Walker:
    """The free parameters of a chain, as a vector and as the tensors that the model is evaluated with.

    Attributes:
        free: The vector, shape (d,); the tensors are views of it.
    """

    def __init__(self, posterior: LocalPosterior, step: float, scale: torch.Tensor | None):
        self._posterior = posterior
        self.free = posterior.start()
        self._tensors, self._moving = posterior.tensors(self.free)
        self._views = [part.detach() for part in self._moving]
        self._pace, self._spread = -step / 2 * posterior.nbeta, math.sqrt(step)
        self._pull: float | torch.Tensor = step / 2 * posterior.gamma
        self._scales: list[torch.Tensor] | None = None
        if scale is not None:
            self._pull = scale * self._pull
            self._root = scale.sqrt()
            self._scales = [part.view_as(view) for part, view in zip(self._split(scale), self._views, strict=True)]

    def look(self, batch: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return a batch's loss minus its value at w*, and its gradient in the tensors."""
        loss, gradients = self._posterior.loss_and_gradients(self._tensors, self._moving, batch)
        return loss - self._posterior.base[batch], gradients

    def move(self, gradients: list[torch.Tensor], noise: Noise) -> None:
        """Take the step w ← w − ε/2 G (nβ ∇L_b + γ (w − w*)) + √(εG) ξ, without a vector for the gradient."""
        if self._posterior.gamma:
            self.free.lerp_(self._posterior.anchor, self._pull)
        if self._scales is None:
            for view, part in zip(self._views, gradients, strict=True):
                view.add_(part, alpha=self._pace)
            for places, xi, sign in noise.parts():
                self.free[places].add_(xi, alpha=sign * self._spread)
            return
        for view, scale, part in zip(self._views, self._scales, gradients, strict=True):
            view.addcmul_(scale, part, value=self._pace)
        for places, xi, sign in noise.parts():
            self.free[places].addcmul_(self._root[places], xi, value=sign * self._spread)

    def jump(self, free: torch.Tensor) -> None:
        """Move to a point, shape (d,)."""
        self.free.copy_(free)

    def _split(self, vector: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return vector.split([view.numel() for view in self._views])
