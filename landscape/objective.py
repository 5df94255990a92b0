"""The mean loss over a fixed set of batches as a function of the parameters; every measure takes one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from landscape import _batches, _distributed
from landscape._derivatives import Derivatives
from landscape._evaluations import Evaluations
from landscape._given import check_objective_inputs
from landscape._groups import groups
from landscape._results import Evaluation
from landscape._sharding import shard
from landscape._step import ModelStep, TrainingStep
from landscape._weighing import Weighting

__all__ = ["Evaluation", "Objective"]


class Objective(Evaluations):
    """The mean loss over all examples of some held batches, L(w), as a function of the trainable parameters w.

    L(w) = Σ_b s_b ℓ_b(w) / Σ_b s_b, where ℓ_b is the loss of batch b and s_b what that loss divides by: the number of
    examples, or of unignored targets, or the sum of their class weights. So cutting the same examples into other
    batches changes nothing. (A sum or a plain mean of batch losses, as other tools take, rescales the curvature.)

    What the loss divides by is measured at construction: a batch is cut, its parts are joined, and their losses are
    compared, at the present weights and at disturbed ones. A loss that is a sum over examples is divided by their
    number, so L is a mean here too. A loss that compares the examples of a batch with each other (contrastive losses,
    batch statistics) is no mean over examples: then L is the plain mean over the batches as they are given, and a
    warning says so. `weighting` names the outcome, and `describe()` its evidence.

    Weight decay that lives in the optimizer is not part of L. Half-precision parameters are measured in float32. The
    model is never changed: parameters are substituted functionally, and everything else is restored (`isolation`).

    Args:
        model: A module; `loss_fn(model(input), target)` must give a scalar.
        loss_fn: The loss, a scalar: a mean, a sum, or any other reduction.
        batches: Iterable of (input, target) pairs, read once and held. Input and target may be any nested structure. Of
            a batch that is not a pair, model and loss both get the whole: `loss_fn(model(batch), batch)`.
        mode: "eval" (batch normalisation frozen, dropout off) or "train".
        dtype: Floating-point type to measure in; by default the parameters' own, at least float32. torch.float64 gives
            reference values.
        noise_seed: Where the model draws random numbers, fix them by this seed: the measured loss is then that of one
            draw per batch. By default nothing is fixed in eval mode (and random models are refused); 0 in train mode.
        batch_weight: A function of a batch that says what its loss divides by, a number of 0 or more. Give it where
            the toolkit cannot find out; a module may have a method `landscape_batch_weight(batch)` instead.
        parameters: The part of the model to measure, by default all that trains: names of parameters or modules, or
            patterns such as `encoder.*`; one or several. "lora" stands for the adapters that peft adds (a part of the
            name begins with `lora_`), "last_layer" for the module whose trainable parameters the forward pass uses
            last, found by one evaluation. L is then a function of these alone, and every vector has their length. All
            other parameters are constants at their present values, and no graph is kept below the first of the part.

    Attributes:
        weighting: What the loss of a batch divides by: "examples", "targets", "weights" (class weights, masks, or
            `batch_weight`), or "batches" where it is no mean over anything.
        batch_weights: Weight of each batch in the mean; they sum to 1.
        batch_sizes: Number of examples in each batch; 0 for batches for which the step returns None.
        n_examples: Their sum.

    Raises:
        MeasurementError: No batches, a loss that is not a scalar, or one that differs between two evaluations.
        ValueError: `mode` is unknown, or `parameters` matches nothing that trains.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Callable[..., Any],
        batches: Iterable[Any],
        *,
        mode: str = "eval",
        dtype: torch.dtype | None = None,
        noise_seed: int | None = None,
        batch_weight: Callable[[Any], Any] | None = None,
        parameters: str | Iterable[str] | None = None,
    ):
        check_objective_inputs(model, loss_fn, batches)
        settings = (mode, dtype, noise_seed, batch_weight)
        self._setup(ModelStep(model, loss_fn), model, batches, *settings, parameters=parameters)

    @classmethod
    def from_lightning(
        cls,
        module: nn.Module,
        batches: Iterable[Any],
        *,
        mode: str = "eval",
        dtype: torch.dtype | None = None,
        noise_seed: int | None = None,
        batch_weight: Callable[[Any], Any] | None = None,
        parameters: str | Iterable[str] | None = None,
    ) -> Objective:
        """Measure a LightningModule through its own `training_step`, or its `landscape_loss(batch)` if it has one.

        Args:
            module: The LightningModule, attached to a Trainer or not.
            batches: Iterable of batches as `training_step` receives them.
            mode: As in the class.
            dtype: As in the class.
            noise_seed: As in the class.
            batch_weight: As in the class.
            parameters: As in the class.

        Returns:
            The objective.

        Raises:
            MeasurementError: Manual optimisation without `landscape_loss`, or as in the class.
        """
        check_objective_inputs(module, None, batches)
        self = cls.__new__(cls)
        settings = (mode, dtype, noise_seed, batch_weight)
        self._setup(TrainingStep(module), module, batches, *settings, parameters=parameters)
        return self

    # ------------------------------------------------------------------ what it computes

    def vector(self) -> torch.Tensor:
        """Return a copy of the present trainable parameters (or of the point of `at`) as one vector, shape (P,)."""
        return self._tensors.vector() if self._point is None else self._point.clone()

    # ------------------------------------------------------------------ tools of the measures

    @property
    def derivatives(self) -> Derivatives:
        """Verdicts on whether gradient and Hessian products are the loss's, shared by all that `at`, `to`, ... make."""
        return self._derivatives

    def at(self, vector: torch.Tensor, buffers: dict[str, torch.Tensor] | None = None) -> Objective:
        """Return the same objective with another default point, so that any measure can be taken there.

        Args:
            vector: Flat parameters, shape (P,), that stand for the model's present ones; copied.
            buffers: Buffers by name that stand for the model's own, such as recomputed batch-norm statistics.

        Returns:
            An objective over the same batches of the same module, which is not changed.
        """
        other = self._copied()
        other._point = torch.as_tensor(vector).detach().to(self.device, self.dtype, copy=True)
        other._point_buffers = dict(buffers or {})
        self.layout.unflatten(other._point)  # refuses a vector of another length
        return other

    def buffers(self) -> dict[str, torch.Tensor]:
        """Return the buffers by name that the loss is taken with: those of `at`, else the module's own (no copies)."""
        return dict(self.module.named_buffers()) | self._shared_buffers | self._point_buffers

    def to(self, dtype: torch.dtype) -> Objective:
        """Return the same objective, at the same default point, measured in another floating-point type."""
        held = _batches.DrawnBatches(self.batches, self._reading.counts, self.source)
        return self._over(held, dtype).shard(self.processes)

    @property
    def at_module(self) -> bool:
        """Whether the default point is the module's own present weights, not one given by `at`."""
        return self._point is None

    def split(self, size: int) -> list[Objective]:
        """Cut the measured examples into groups of at most `size`, each an objective of its own.

        Args:
            size: Examples a group; batches are cut, never joined.

        Returns:
            One objective a group, over the same module; each process evaluates them whole. A group in which no target
            counts has no loss and is left out.

        Raises:
            NoTargets: No target counts in any group.
            MeasurementError: A batch cannot be cut.
            ValueError: `size` is not positive.
        """
        return groups(self, size)

    def restrict(self, batches: Iterable[Any]) -> Objective:
        """Return the same loss over other batches, at the same default point."""
        return self._over(batches, self.dtype).shard(self.processes)

    # ------------------------------------------------------------------ many processes

    def shard(self, group: dist.ProcessGroup | _distributed.Processes | None = None) -> Objective:
        """Return the same objective, evaluated by several processes together: each takes some of the batches.

        All of them call this, and every measure of what they get, with equal arguments; all get the same numbers, which
        are those of one process but for rounding. What is not a sum over batches, each process does for itself. Batches
        are not cut, so that with fewer batches than processes some only listen. The weights must be equal in all
        processes while measuring, as in data-parallel training they are. Buffers, which there are not, are those of the
        first process at this moment: call it anew once they have moved.

        Memory: every process holds all batches; graphs only of its own.

        Args:
            group: A torch.distributed group, by default of all processes. Without torch.distributed nothing is shared.

        Returns:
            The objective; a measure of it that fails in one process fails in all.

        Raises:
            MeasurementError: Data or weights differ between the processes, or the model communicates by itself.
        """
        return shard(self, group)

    @functools.cached_property
    def communicates(self) -> bool:
        """Whether the model exchanges tensors between processes by itself; then it cannot be sharded."""
        with self.session():
            parameters = self._tensors.parameters(None)
            return _distributed.communicates(self.module, lambda: self.batch_loss(0, parameters))

    # ------------------------------------------------------------------ inside

    def _over(self, batches: Iterable[Any], dtype: torch.dtype, known: Weighting | None = None) -> Objective:
        """Make one over other batches, or in another type, at the same default point, for this process alone."""
        other = Objective.__new__(Objective)
        settings = (self.mode, dtype, self.noise_seed, self._batch_weight, known or self._weighting)
        other._setup(self._step, self.module, batches, *settings, parameters=self._part)
        other.parameters = self.parameters
        other._point = None if self._point is None else self._point.to(dtype)
        other._point_buffers, other._shared_buffers = self._point_buffers, self._shared_buffers
        other._derivatives = self._derivatives
        return other
