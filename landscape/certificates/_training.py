"""Train a network that takes few bits: whole coordinates in a subspace, by the straight-through estimator."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from landscape import _batches
from landscape._errors import MeasurementError
from landscape.averaging._batchnorm import batch_statistics, batchnorm_layers, recompute_batchnorm
from landscape.certificates._certificate import claimable
from landscape.certificates._counting import count_wrong, objective_of
from landscape.certificates._grids import GridTensor, nearest_step, step_at
from landscape.certificates._payload import payload_of
from landscape.certificates._projection import Projection
from landscape.certificates._skeleton import Architecture, Skeleton, array_of, construct
from landscape.certificates._subspace import LARGEST_DENSE, SubspaceCode, on_grid, require_levels, require_settings
from landscape.objective import Objective

FINENESS = range(2, 9)
"""Grids that are tried for running statistics: steps of 2^−k root mean squares."""

_TAPS = 8


def train_subspace(
    architecture: Architecture,
    batches: Iterable[Any],
    *,
    dimension: int | None = 200,
    start: str = "initial",
    levels: int = 7,
    seed: int = 0,
    taps: int | None = None,
    epochs: int = 60,
    batch_size: int | None = 100,
    learning_rate: float = 0.05,
    length_weight: float = 0.3,
    first_step: float = 1.0,
    delta: float = 0.05,
    loss_fn: Callable[..., Any] | None = None,
    order_seed: int = 0,
    progress: bool | None = None,
) -> SubspaceCode:
    """Train w = w0 + Aθ with θ on a few levels, so that few bits say which network it is.

    Adam on θ and on the logarithm of the step, with the learning rate falling along a half cosine. The loss is taken at
    the rounded θ and differentiated as if nothing had been rounded. After every epoch the network is coded and its
    errors counted; the best bound is kept. That search costs nothing, nor does any other way to a θ: the code is one of
    all θ at once. What costs is to try several seeds, dimensions, starts or taps (`best_of`), which the reader
    must be told beside the code.

    Batch normalisations use the statistics of each batch while training, all else is in eval mode. The network is coded
    with their running statistics over all examples, on grids.

    Memory: P·d floats and as many bytes for a dense A, 13 bytes·P·taps for a sparse one, beside the graph of one batch.

    Args:
        architecture: What builds the network when called without arguments: a class or a function.
        batches: The examples that the bound will be of.
        dimension: d; None to train every weight.
        start: w0: "initial", the weights as constructed under the seed, or "zero".
        levels: Number of levels of a coordinate, odd, 3 to 17. In the code, so nothing is charged for it.
        seed: Of the construction and of A.
        taps: How many coordinates each weight hears (`Projection`); by default all where P·d is at most 2^26, else 8.
        epochs: Passes over the examples.
        batch_size: Examples a training step, cut from the given batches; None for the batches as they are.
        learning_rate: Adam's first.
        length_weight: Weight, in nats, of the mean of |θ| in steps, which makes the code shorter; 0 for none.
        first_step: The step to begin with.
        delta: δ of the bound by which the best epoch is chosen.
        loss_fn: Loss of (output, target); by default a LightningModule's own `training_step`, else cross-entropy.
        order_seed: Seed of the order of the batches. It is no part of the code, and nothing is charged for it.
        progress: Whether to show a progress bar on stderr; by default only where that is a terminal.

    Returns:
        The code, for `certify`.

    Raises:
        MeasurementError: The loss is not finite, the network cannot be certified, or a setting is not possible.
        ValueError: A number is out of range.

    Source: Li et al. 2018, arXiv:1804.08838; Lotfi et al. 2022, arXiv:2211.13609; Bengio et al. 2013, arXiv:1308.3432
    (straight through).

    Where we differ: uniform levels with a learnt step and an adaptive code, where Lotfi et al. learn a codebook and
    send it with a table of probabilities.
    """
    largest = require_levels(levels)
    if epochs < 1 or not 0 < learning_rate < math.inf or not 0 < first_step < math.inf or not length_weight >= 0:
        raise ValueError(
            f"found epochs={epochs}, learning_rate={learning_rate}, first_step={first_step}, length_weight="
            f"{length_weight}; expected one epoch at least, positive finite numbers, and a weight of 0 or more"
        )
    skeleton = construct(architecture, seed)
    if taps is None and dimension is not None and dimension * skeleton.layout.total > LARGEST_DENSE:
        taps = min(_TAPS, dimension)
    given = {"start": start, "seed": seed, "dimension": dimension, "taps": taps}
    settings = require_settings(given, skeleton.layout)
    blank = SubspaceCode(**settings, largest=largest, step=nearest_step(first_step), integers=np.zeros(0, np.int64))
    objective = objective_of(skeleton.module, batches, loss_fn)
    run = _Run(skeleton, objective, _cut(objective, batch_size), blank, delta)
    run.look()
    hidden = None if progress is None else not progress
    with objective.session():
        for _ in tqdm(range(epochs), desc="training few bits", unit="epoch", disable=hidden, leave=False):
            run.epoch(learning_rate, length_weight, epochs, order_seed)
            run.look()
    return run.finish()


class _Run:
    """One training: the coordinates, and the best network met."""

    def __init__(
        self, skeleton: Skeleton, objective: Objective, training: Objective, blank: SubspaceCode, delta: float
    ):
        self.best: tuple[float, SubspaceCode] | None = None
        self._skeleton, self._objective, self._training = skeleton, objective, training
        self._blank, self._delta = blank, delta
        self._projection = blank.projection(skeleton.layout)
        self._start = skeleton.start(blank.start)
        self._subspace = _Subspace(self._projection, self._start, objective)
        self._normalised = bool(batchnorm_layers(skeleton.module))
        self._theta = torch.zeros(self._projection.length, dtype=objective.dtype, requires_grad=True)
        self._log_step = torch.tensor(math.log(step_at(blank.step)), dtype=objective.dtype, requires_grad=True)
        self._adam = torch.optim.Adam([self._theta, self._log_step])
        self._epochs = 0

    def epoch(self, learning_rate: float, length_weight: float, epochs: int, order_seed: int) -> None:
        """Take a step on every batch."""
        objective, largest = self._training, self._blank.largest
        counted = [index for index, weight in enumerate(objective.batch_weights) if weight > 0]
        order = np.random.default_rng((order_seed, self._epochs)).permutation(counted)
        self._adam.param_groups[0]["lr"] = learning_rate * (1 + math.cos(math.pi * self._epochs / epochs)) / 2
        self._epochs += 1
        with batch_statistics(objective.module) if self._normalised else contextlib.nullcontext():
            for index in order.tolist():
                rounded = self._theta + (self._theta.round() - self._theta).detach()
                step = self._log_step.exp()
                step = step * (step_at(nearest_step(step.item())) / step).detach()
                parameters = objective.layout.unflatten(self._subspace(rounded, step))
                loss = objective.batch_loss(index, parameters) * (objective.batch_weights[index] * len(counted))
                if not torch.isfinite(loss):
                    raise MeasurementError(
                        f"the loss is {loss.item()} in epoch {self._epochs} of training few bits; lower learning_rate "
                        "or first_step"
                    )
                total = loss + length_weight * self._theta.abs().mean()
                self._theta.grad, self._log_step.grad = torch.autograd.grad(total, [self._theta, self._log_step])
                self._adam.step()
                with torch.no_grad():  # not further beyond the last level than still rounds to it
                    self._theta.clamp_(-largest - 0.49, largest + 0.49)

    def look(self) -> None:
        """Code the present network, count its errors, and keep it if its bound is the best."""
        step = nearest_step(math.exp(self._log_step.item()))
        integers = on_grid(self._theta.detach().numpy(), self._blank.largest)
        self._consider(dataclasses.replace(self._blank, step=step, integers=integers), FINENESS[-1])

    def finish(self) -> SubspaceCode:
        """Return the best network, with its statistics on the grid that serves the bound best."""
        assert self.best is not None  # look() comes before training
        for fineness in FINENESS[:-1] if self.best[1].others else ():
            self._consider(dataclasses.replace(self.best[1], others={}), fineness)
        return self.best[1]

    def _consider(self, code: SubspaceCode, fineness: int) -> None:
        vector = torch.from_numpy(code.vector(self._projection, self._start)).to(self._objective.dtype)
        buffers = {}
        if self._normalised:
            statistics = recompute_batchnorm(self._objective, vector)
            grids = {name: GridTensor.of(array_of(value), fineness) for name, value in statistics.items()}
            code = dataclasses.replace(code, others=grids)
            buffers = {
                name: torch.from_numpy(grid.restore()).reshape(statistics[name].shape).to(statistics[name])
                for name, grid in grids.items()
            }
        count = count_wrong(self._objective, vector, buffers)
        bits = 8 * len(payload_of(code, self._skeleton))
        bound = claimable(wrong=count.wrong, n=count.n, payload_bits=bits, delta=self._delta, method="kl", choices={})
        if self.best is None or bound < self.best[0]:
            self.best = (bound, code)


class _Subspace:
    """w0 + step · c ⊙ Aθ/√k in torch, in the type that is measured in: for gradients, not for decoding."""

    def __init__(self, projection: Projection, start: np.ndarray[Any, np.dtype[np.float64]], objective: Objective):
        self._start = torch.from_numpy(start).to(objective.dtype)
        self._factors = torch.from_numpy(projection.factors).to(objective.dtype)
        self._heard = torch.from_numpy(projection.heard) if projection.is_sparse else None
        self._signs = None if projection.is_identity else torch.from_numpy(projection.signs).to(objective.dtype)

    def __call__(self, theta: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        if self._signs is None:
            sums = theta
        elif self._heard is None:
            sums = self._signs @ theta
        else:
            sums = (self._signs * theta[self._heard]).sum(0)
        return self._start + self._factors * step * sums


def _cut(objective: Objective, batch_size: int | None) -> Objective:
    if batch_size is None:
        return objective
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; a step needs at least one example")
    pieces = [piece for batch in objective.batches for piece in _batches.split(batch, batch_size)]
    if batchnorm_layers(objective.module):  # one example has no variance
        pieces = [piece for piece in pieces if _batches.n_examples(piece) > 1]
    return objective.restrict(pieces)
