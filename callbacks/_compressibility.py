"""Record how few bits the network can be stored in during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from landscape.callbacks._arguments import one_of, positive
from landscape.callbacks._base import LandscapeCallback
from landscape.compression import bits
from landscape.compression._families import FAMILIES
from landscape.objective import Objective
from landscape.record import Coordinate, Variable


class Compressibility(LandscapeCallback):
    """Bits of a code that really decodes, for a ladder of allowed rises of the training loss.

    Group `compressibility`. For each tolerance the weights are rounded to a uniform grid with a step per tensor, as
    coarse as the loss allows, entropy-coded, decoded, and the loss evaluated again from the decoded weights. See
    `landscape.compression.bits`.

    Args:
        tolerances: Allowed rises of the training loss, in nats.
        family: The family of codes.
        every_n_epochs: Measure at the end of every n-th epoch; every epoch where no cadence is given.
        every_n_steps: Measure after every n-th optimizer step; with every_n_epochs too, at both.
        **common: Arguments of `LandscapeCallback`: examples, batch_size, path, on_error, mode, weights, noise_seed,
            seed, batches, log, name.
    """

    group = "compressibility"
    default_every_n_epochs = 1
    description = "length of the shortest decodable code of the weights at an allowed rise of the training loss"

    def __init__(
        self,
        tolerances: Sequence[float] = (0.003, 0.01, 0.03, 0.1, 0.3),
        family: str = "uniform-tensor",
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        **common: Any,
    ):
        super().__init__(every_n_epochs=every_n_epochs, every_n_steps=every_n_steps, **common)
        one_of(list(FAMILIES), family=family)
        if not tolerances:
            raise ValueError("tolerances is empty; give at least one allowed rise of the training loss")
        for tolerance in tolerances:
            positive(tolerance=tolerance)
        self.tolerances = tuple(tolerances)
        self.family = family

    def settings(self) -> dict[str, Any]:
        """Return the settings of the measure."""
        return {"tolerances": self.tolerances, "family": self.family}

    def scalar_names(self) -> tuple[str, ...]:
        """Return the names of the logged scalars, at the middle tolerance."""
        return ("bits", "bits_per_parameter")

    def logged(self, measured: Mapping[str, Any]) -> dict[str, float]:
        """Return the logged scalars at the middle tolerance."""
        middle = len(self.tolerances) // 2
        return {name: measured[name][middle] for name in self.scalar_names()}

    def schema(self, trainer: Any, module: Any) -> dict[str, Any]:
        """Return variables and coordinates of the group."""
        along = ("tolerance",)
        return {
            "variables": [
                Variable("bits", along, units="bit", description="length of the stream that was decoded: complexity"),
                Variable("ideal_bits", along, units="bit", description="its length under the code's probabilities"),
                Variable("bits_per_parameter", along, units="bit", description="bits over the number of parameters"),
                Variable("loss_rise", along, description="rise of the loss with the decoded weights"),
                Variable("relative_step", along, description="step of the grid over the rms of each tensor"),
                Variable("reached", along, "i1", description="1 where some code stays within the tolerance"),
            ],
            "coordinates": [Coordinate("tolerance", self.tolerances, "nat", "allowed rise of the training loss")],
        }

    def measure(self, objective: Objective, held_out: Objective | None, trainer: Any) -> Mapping[str, Any]:
        """Measure the bits at the present weights."""
        result = bits(objective, family=self.family, tolerances=self.tolerances)
        return {
            "bits": result.bits,
            "ideal_bits": result.ideal_bits,
            "bits_per_parameter": result.bits_per_parameter,
            "loss_rise": result.loss_rise,
            "relative_step": result.knob,
            "reached": result.reached.astype(np.int8),
        }
