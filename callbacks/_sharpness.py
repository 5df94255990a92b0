"""Record sharpness measures during training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from landscape.callbacks._arguments import at_least, positive
from landscape.callbacks._base import LandscapeCallback
from landscape.objective import Objective
from landscape.record import Variable
from landscape.sharpness import average_case, sam, worst_case


class Sharpness(LandscapeCallback):
    """SAM's first-order sharpness, and adaptive average-case and worst-case sharpness.

    Group `sharpness`. The adaptive ones are invariant to the rescaling of layers and neurons; the average case is the
    default axis of flatness. See `landscape.sharpness` for the functions and their sources.

    Args:
        rho_sam: Step of SAM's sharpness, in units of the weights' l2 norm.
        rho_average: Standard deviation of the average case's perturbation, relative to |w|.
        rho_worst: Radius of the worst case, l2 norm relative to |w|.
        draws: Perturbations of the average case.
        steps: Ascent steps of the worst case.
        worst_group: Examples a group of the worst case; None for all measured examples at once.
        every_n_epochs: Measure at the end of every n-th epoch; every epoch where no cadence is given.
        every_n_steps: Measure after every n-th optimizer step; with every_n_epochs too, at both.
        **common: Arguments of `LandscapeCallback`: examples, batch_size, path, on_error, mode, weights, noise_seed,
            seed, batches, log, name.
    """

    group = "sharpness"
    default_every_n_epochs = 1
    description = "rise of the mean loss over the measured training examples when the weights move"

    def __init__(
        self,
        rho_sam: float = 0.05,
        rho_average: float = 0.1,
        rho_worst: float = 0.5,
        draws: int = 20,
        steps: int = 20,
        worst_group: int | None = None,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        **common: Any,
    ):
        super().__init__(every_n_epochs=every_n_epochs, every_n_steps=every_n_steps, **common)
        positive(rho_sam=rho_sam, rho_average=rho_average, rho_worst=rho_worst)
        at_least(2, draws=draws)
        at_least(1, steps=steps, worst_group=worst_group)
        self.rho_sam, self.rho_average, self.rho_worst = rho_sam, rho_average, rho_worst
        self.draws, self.steps, self.worst_group = draws, steps, worst_group

    def settings(self) -> dict[str, Any]:
        """Return the settings of the measures."""
        names = ("rho_sam", "rho_average", "rho_worst", "draws", "steps", "worst_group")
        return {name: getattr(self, name) for name in names}

    def scalar_names(self) -> tuple[str, ...]:
        """Return the names of the logged scalars."""
        return ("sam", "average_case", "average_case_stderr", "worst_case", "gradient_norm")

    def schema(self, trainer: Any, module: Any) -> dict[str, Any]:
        """Return the variables of the group."""
        return {
            "variables": [
                Variable("gradient_norm", description="l2 norm of the gradient (not invariant to reparametrisation)"),
                Variable("sam", description="rise after one ascent step of length rho_sam (SAM, first order)"),
                Variable("average_case", description="mean rise under N(0, rho_average^2 w^2): adaptive average case"),
                Variable("average_case_stderr", description="standard error of average_case over perturbations"),
                Variable(
                    "worst_case", description="largest rise found within |delta/w|_2 <= rho_worst: adaptive worst"
                ),
                Variable("worst_case_stderr", description="standard error of worst_case over groups; 0 for one group"),
            ]
        }

    def measure(self, objective: Objective, held_out: Objective | None, trainer: Any) -> Mapping[str, Any]:
        """Measure the sharpness at the present weights."""
        average = average_case(objective, self.rho_average, draws=self.draws, seed=self.seed)
        worst = worst_case(objective, self.rho_worst, steps=self.steps, group=self.worst_group, seed=self.seed)
        return {
            "gradient_norm": float(torch.linalg.vector_norm(objective.gradient().double())),
            "sam": sam(objective, self.rho_sam).value,
            "average_case": average.value,
            "average_case_stderr": average.stderr,
            "worst_case": worst.value,
            "worst_case_stderr": worst.stderr,
        }
