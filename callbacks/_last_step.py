"""Keep the weights that an optimizer step begins from, at the steps that will be measured."""

from __future__ import annotations

import torch
from torch.nn.parameter import is_lazy

from landscape.objective import Objective


class LastStep:
    """The weights before the optimizer steps of one batch.

    Memory: one copy of the trainable parameters, in their own type, from `keep` until `forget`.
    """

    def __init__(self) -> None:
        self._before: list[tuple[str, torch.Tensor]] = []
        self._longest = 1

    def keep(self, module: torch.nn.Module) -> None:
        """Copy the trainable parameters, unless this batch's are kept already: closures step several times."""
        if not self._before:
            trainable = [(n, p) for n, p in module.named_parameters() if p.requires_grad and not is_lazy(p)]
            self._before = [(name, parameter.detach().clone()) for name, parameter in trainable]

    def forget(self) -> None:
        """Let go of the copy."""
        self._before = []

    def saw(self, steps: int) -> None:
        """Note how many optimizer steps a batch took."""
        self._longest = max(self._longest, steps)

    def crosses(self, step: int, every: int) -> bool:
        """Tell whether the next batch may take the count of steps over a multiple of `every`."""
        return (step + self._longest) // every > step // every

    def weights(self, objective: Objective) -> torch.Tensor | None:
        """Return the kept weights as a flat vector, shape (P,), and let go of them.

        Args:
            objective: The loss over the parameters that train now.

        Returns:
            The vector in the objective's type; None where nothing was kept, or other parameters train now.
        """
        before, self._before = self._before, []
        names, shapes = tuple(name for name, _ in before), tuple(tuple(tensor.shape) for _, tensor in before)
        if not before or (names, shapes) != (objective.layout.names, objective.layout.shapes):
            return None
        return objective.flatten([tensor for _, tensor in before])
