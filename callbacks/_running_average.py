"""The running mean of a trajectory's weights, its batch-normalisation statistics, and the row that it makes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from landscape._layout import ParameterLayout
from landscape.averaging import RunningMean, recompute_batchnorm
from landscape.averaging._mean import PIECE
from landscape.callbacks._axes import over_examples
from landscape.callbacks._session import losses
from landscape.callbacks._state import ModuleState
from landscape.objective import Evaluation, Objective
from landscape.record import Variable
from landscape.record._layouts import States

MEAN_SCALARS = (
    ("swa_train_loss", "loss of the mean on the measured training examples"),
    ("swa_train_error", "fraction of wrong labels of the mean on them"),
    ("swa_held_out_loss", "loss of the mean on the measured held-out examples"),
    ("swa_held_out_error", "fraction of wrong labels of the mean on them"),
)


def mean_variables() -> list[Variable]:
    """Return the variables of a row about the mean."""
    return [
        Variable("n_averaged", (), "i8", description="snapshots in the mean"),
        Variable("distance", description="l2 distance of the iterate from the mean"),
        *(Variable(name, description=text) for name, text in MEAN_SCALARS),
        *(over_examples(name) for name, _ in MEAN_SCALARS),
    ]


class RunningAverage:
    """The mean of the kept weights since the same parameters train.

    Memory: P float64 numbers, and two vectors of the measuring type while the mean is evaluated.

    Attributes:
        mean: The mean.
        layout: Names and shapes of the parameters in it; None before the first weights.
        fresh: Batch-normalisation statistics of the mean by name; None where they were not recomputed.
    """

    def __init__(self) -> None:
        self.mean = RunningMean()
        self.layout: ParameterLayout | None = None
        self.fresh: dict[str, torch.Tensor] | None = {}

    def take_up(self, state: ModuleState, states: States, kept: np.ndarray) -> None:
        """Average the stored weights of a resumed run, back to where other parameters trained.

        Args:
            state: The module's state.
            states: The file's rows.
            kept: Indices of the rows whose weights count.
        """
        if not len(kept):
            return
        trainable = states.contents.rows["trainable"][kept]
        other = np.flatnonzero(trainable != trainable[-1])
        for index in kept[other[-1] + 1 if len(other) else 0 :]:
            self.mean.update(torch.from_numpy(states.read(int(index), "weights").rows["weights"][0]))
        last = int(kept[-1])
        self.layout = states.layout(last).parameters
        if states.layout(last).parts["buffer"].layout == state.buffer_layout:
            stored = states.read(last, "swa_buffers").rows["swa_buffers"][0]
            self.fresh = None if np.isnan(stored).any() else state.statistics(stored)

    def add(self, state: ModuleState, weights: torch.Tensor) -> int:
        """Add weights to the mean without evaluating it.

        Args:
            state: The module's state.
            weights: The weights, shape (P,).

        Returns:
            Snapshots in the mean.
        """
        self.mean, self.layout = self._begun(state.layout), state.layout
        self.mean.update(weights)
        self.fresh = None if state.buffer_layout.names else {}
        return self.mean.count

    def _begun(self, layout: ParameterLayout) -> RunningMean:
        """Return the mean so far, a new one where other parameters train."""
        return self.mean if layout == self.layout else RunningMean()

    def row(
        self, objective: Objective, held_out: Objective | None, layout: ParameterLayout, weights: torch.Tensor
    ) -> dict[str, Any]:
        """Add weights to the mean and evaluate it; where that fails the mean stays as it was.

        Args:
            objective: The loss over the training examples.
            held_out: That over the held-out examples.
            layout: Names and shapes of the parameters. The mean begins anew where they differ from before.
            weights: The weights, shape (P,).

        Returns:
            The values of `mean_variables`.
        """
        running = self._begun(layout)
        mean = running.with_vector(weights, objective.dtype).to(objective.device)
        fresh = recompute_batchnorm(objective, mean)
        train = objective.evaluate(mean, fresh)
        held = Evaluation(math.nan, math.nan) if held_out is None else held_out.evaluate(mean, fresh)
        row = {
            "n_averaged": running.count + 1,
            "distance": _distance(objective.vector(), mean),
            **{f"swa_{name}": value for name, value in losses(train, held).items()},
        }
        running.update(weights)
        self.mean, self.layout, self.fresh = running, layout, fresh
        return row


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the l2 distance of two vectors, summed in float64."""
    pieces = zip(one.split(PIECE), other.split(PIECE), strict=True)
    squares = [(first.double() - second.double()).square().sum() for first, second in pieces]
    return math.sqrt(float(torch.stack(squares).sum()))
