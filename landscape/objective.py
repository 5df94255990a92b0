"""The loss over a fixed set of batches as a function of the parameters: what every measure measures."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from landscape import _batches, _distributed
from landscape._errors import MeasurementError
from landscape._observe import LossObserver
from landscape._parameters import MeasuredTensors
from landscape._results import Result
from landscape._second_order import plain_kernels
from landscape._step import ModelStep, TrainingStep
from landscape._weighing import probe_determinism, weigh
from landscape.isolation import isolated


@dataclasses.dataclass(frozen=True)
class Evaluation(Result):
    """Loss and error rate over all measured examples.

    Attributes:
        loss: Mean loss, in the loss function's unit (nats for a cross-entropy).
        error: Fraction of wrongly classified targets; NaN where the loss knows no classes.
    """

    loss: float
    error: float


class Objective:
    """The mean loss over all examples of some held batches, L(w), as a function of the trainable parameters w.

    L(w) = Σ_b s_b ℓ_b(w) / Σ_b s_b, where ℓ_b is the loss of batch b and s_b what that loss divides by: the number of
    examples, or of unignored targets, or the sum of their class weights. So cutting the same examples into other
    batches changes nothing. (A sum or a plain mean of batch losses, as other tools take, rescales the curvature.)

    Weight decay that lives in the optimizer is not part of L. Half-precision parameters are measured in float32. The
    model is never changed: parameters are substituted functionally, and everything else is restored (`isolation`).

    Args:
        model: A module; `loss_fn(model(input), target)` must give a scalar.
        loss_fn: The loss. A reduction "mean" or "sum" is understood; "none" is refused.
        batches: Iterable of (input, target) pairs, read once and held. Input and target may be any nested structure. Of
            a batch that is not a pair, model and loss both get the whole: `loss_fn(model(batch), batch)`.
        mode: "eval" (batch normalisation frozen, dropout off) or "train".
        dtype: Floating-point type to measure in; by default the parameters' own, at least float32. torch.float64 gives
            reference values.
        noise_seed: Where the model draws random numbers, fix them by this seed: the measured loss is then that of one
            draw per batch. By default nothing is fixed in eval mode (and random models are refused); 0 in train mode.

    Raises:
        MeasurementError: No batches, a loss that is not a scalar, or one that differs between two evaluations.
        ValueError: `mode` is unknown.
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
    ):
        step = ModelStep(model, loss_fn)
        self._setup(step, model, batches, mode, dtype, noise_seed)

    @classmethod
    def from_lightning(
        cls,
        module: nn.Module,
        batches: Iterable[Any],
        *,
        mode: str = "eval",
        dtype: torch.dtype | None = None,
        noise_seed: int | None = None,
    ) -> Objective:
        """Measure a LightningModule through its own `training_step`, or its `landscape_loss(batch)` if it has one.

        Args:
            module: The LightningModule, attached to a Trainer or not.
            batches: Iterable of batches as `training_step` receives them.
            mode: As in the class.
            dtype: As in the class.
            noise_seed: As in the class.

        Returns:
            The objective.

        Raises:
            MeasurementError: Manual optimisation without `landscape_loss`, or as in the class.
        """
        self = cls.__new__(cls)
        self._setup(TrainingStep(module), module, batches, mode, dtype, noise_seed)
        return self

    def _setup(
        self,
        step: ModelStep | TrainingStep,
        module: nn.Module,
        batches: Iterable[Any],
        mode: str,
        dtype: torch.dtype | None,
        noise_seed: int | None,
    ) -> None:
        if mode not in ("eval", "train"):
            raise ValueError(f"mode is {mode!r}; it must be 'eval' or 'train'")
        self.module = module
        self.mode = mode
        self.noise_seed = 0 if noise_seed is None and mode == "train" else noise_seed
        self._step = step
        self._depth = 0
        self._point: torch.Tensor | None = None
        self._point_buffers: dict[str, torch.Tensor] = {}
        self._shared_buffers: dict[str, torch.Tensor] = {}
        self.processes = _distributed.ALONE
        self._tensors = MeasuredTensors(module, dtype)
        self.layout = self._tensors.layout
        self.device = self._tensors.device
        self.dtype = self._tensors.dtype
        # A loader's own generators and counters are put back; of a plain list of data there is nothing to restore.
        with self._isolation(() if isinstance(batches, (list, tuple)) else (batches,)):
            self.batches = [_batches.cast(batch, self.device, self.dtype) for batch in batches]
            if not self.batches:
                raise MeasurementError("there are no batches to measure; give at least one batch of examples")
            self.batch_sizes = [_batches.n_examples(batch) for batch in self.batches]
            self.n_examples = sum(self.batch_sizes)
            if not self.n_examples:
                raise MeasurementError("the measurement batches hold no examples; give at least one batch of examples")
            parameters = self._tensors.parameters(None)
            self._scales = [1.0] * len(self.batches)
            self._weights, self._scales = weigh(
                lambda index: self.batch_loss(index, parameters), self.batch_sizes, step.summed
            )
            self.own = list(range(len(self.batches)))
            probe_determinism(lambda: self.batch_loss(self.counted[0], parameters))

    # ------------------------------------------------------------------ what it is

    @property
    def n_parameters(self) -> int:
        """Number P of trainable parameters; tied ones count once."""
        return self.layout.total

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the measured data, all of them also where processes share them."""
        return _batches.fingerprint(self.batches)

    def describe(self) -> dict[str, Any]:
        """Return the provenance of every number measured here, as plain values."""
        return {
            "model": type(self.module).__name__,
            "loss": f"{self._step.description}, mean over all measured examples, without weight decay",
            "mode": self.mode,
            "dtype": str(self.dtype).removeprefix("torch."),
            "noise_seed": self.noise_seed,
            "n_parameters": self.n_parameters,
            "n_examples": self.n_examples,
            "fingerprint": self.fingerprint,
        }

    def __repr__(self) -> str:
        name = type(self.module).__name__
        return f"Objective({name}, P={self.n_parameters}, examples={self.n_examples}, mode={self.mode!r})"

    # ------------------------------------------------------------------ what it computes

    def vector(self) -> torch.Tensor:
        """Return a copy of the present trainable parameters (or of the point of `at`) as one vector, shape (P,)."""
        return self._tensors.vector() if self._point is None else self._point.clone()

    def loss(self, vector: torch.Tensor | None = None, buffers: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
        """Return the mean loss over all examples.

        Args:
            vector: Flat parameters, shape (P,); by default the model's present ones.
            buffers: Buffers to substitute by name, such as recomputed batch-normalisation statistics.

        Returns:
            A scalar tensor without graph.
        """
        with self.session(), torch.no_grad():
            parameters = self._tensors.parameters(self._at(vector))
            total = torch.zeros((), device=self.device, dtype=torch.float64)
            with self.processes.summed(total):
                for index in self.counted:
                    total += self._weights[index] * self.batch_loss(index, parameters, buffers).double()
            return total.to(self.dtype)

    def gradient(self, vector: torch.Tensor | None = None) -> torch.Tensor:
        """Return the gradient of the mean loss, shape (P,).

        Args:
            vector: Flat parameters, shape (P,); by default the model's present ones.

        Returns:
            A flat tensor without graph.
        """
        return self.loss_and_gradient(vector)[1]

    def loss_and_gradient(self, vector: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean loss and its gradient, shape (P,), from one pass over the batches."""
        with self.session():
            parameters = self._tensors.parameters(self._at(vector), grad=True)
            found = torch.zeros(2, device=self.device, dtype=torch.float64)  # loss, batches with a graph
            gradient = torch.zeros(self.n_parameters, device=self.device, dtype=self.dtype)
            with self.processes.summed(found, gradient):
                for index in self.counted:
                    loss = self._weights[index] * self.batch_loss(index, parameters)
                    found[0] += loss.detach().double()
                    if loss.requires_grad:
                        gradient += self.flatten(
                            torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
                        )
                        found[1] += 1
            self.require_graph(bool(found[1]))
            return found[0].to(self.dtype), gradient

    def evaluate(
        self, vector: torch.Tensor | None = None, buffers: dict[str, torch.Tensor] | None = None
    ) -> Evaluation:
        """Return loss and error rate over all examples from one pass; arguments as in `loss`."""
        with self.session(), torch.no_grad():
            parameters = self._tensors.parameters(self._at(vector))
            sums = torch.zeros(3, device=self.device, dtype=torch.float64)
            with self.processes.summed(sums):
                for index in self.own:
                    with LossObserver() as observer:
                        loss = float(self.batch_loss(index, parameters, buffers))
                    share = self._weights[index] * loss if self._weights[index] else 0.0
                    sums += sums.new_tensor([share, observer.wrong, observer.counted])
            loss, wrong, counted = sums.tolist()
            return Evaluation(loss, wrong / counted if counted else float("nan"))

    def batch_loss(
        self,
        index: int,
        parameters: Sequence[torch.Tensor],
        buffers: dict[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Return the loss of one batch at the given parameter tensors, with its graph where gradients are enabled.

        Call it within `session()`. The mean over all examples is Σ_b `weights[b]` · `batch_loss(b)`.
        """
        if self.noise_seed is not None:
            torch.manual_seed(self.noise_seed + index)
            np.random.seed((self.noise_seed + index) % 2**32)
            random.seed(self.noise_seed + index)
        substitutes = dict(zip(self.layout.names, parameters, strict=True))
        given = self._point_buffers if buffers is None else buffers
        substitutes |= self._tensors.others(self._shared_buffers | given)
        with plain_kernels():
            loss = self._step(substitutes, _batches.fresh(self.batches[index]), index)
        return loss * self._scales[index] if self._scales[index] != 1.0 else loss

    def require_graph(self, differentiable: bool) -> None:
        """Refuse to differentiate where the loss of no batch has a graph that leads to parameters.

        Args:
            differentiable: Whether that of any batch has.

        Raises:
            MeasurementError: None has.
        """
        if not differentiable:
            raise MeasurementError(
                f"the loss of {type(self.module).__name__} does not depend on any trainable parameter; look for a "
                "detach(), an .item() or a torch.no_grad() on its way"
            )

    @property
    def weights(self) -> list[float]:
        """Weight of each batch in the mean; they sum to 1."""
        return self._weights

    @property
    def counted(self) -> list[int]:
        """Indices of the batches with a weight that this process evaluates, all unless sharded.

        Sums over them belong into `processes.summed(...)`.
        """
        return [index for index in self.own if self._weights[index] > 0]

    # ------------------------------------------------------------------ tools of the measures

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Isolate many evaluations at once; sessions inside a session cost nothing."""
        with self._isolation() if not self._depth else contextlib.nullcontext():
            yield

    def flatten(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Join tensors of the parameters' shapes into one flat vector of the measuring type (a copy), shape (P,)."""
        return self._tensors.flatten(tensors)

    def at(self, vector: torch.Tensor, buffers: dict[str, torch.Tensor] | None = None) -> Objective:
        """Return the same objective with another default point, so that any measure can be taken there.

        Args:
            vector: Flat parameters, shape (P,), that stand for the model's present ones; copied.
            buffers: Buffers by name that stand for the model's own, such as recomputed batch-norm statistics.

        Returns:
            An objective over the same batches of the same module, which is not changed.
        """
        other = copy.copy(self)
        other._depth = 0
        other._point = torch.as_tensor(vector).detach().to(self.device, self.dtype, copy=True)
        other._point_buffers = dict(buffers or {})
        self.layout.unflatten(other._point)  # refuses a vector of another length
        return other

    def buffers(self) -> dict[str, torch.Tensor]:
        """Return the buffers by name that the loss is taken with: those of `at`, else the module's own (no copies)."""
        return dict(self.module.named_buffers()) | self._shared_buffers | self._point_buffers

    def to(self, dtype: torch.dtype) -> Objective:
        """Return the same objective, at the same default point, measured in another floating-point type."""
        return self._over(self.batches, dtype).shard(self.processes)

    @property
    def at_module(self) -> bool:
        """Whether the default point is the module's own present weights, not one given by `at`."""
        return self._point is None

    def split(self, size: int) -> list[Objective]:
        """Cut the measured examples into groups of at most `size`, each an objective of its own.

        Args:
            size: Examples a group; batches are cut, never joined.

        Returns:
            One objective a group, over the same module; each process evaluates them whole.

        Raises:
            ValueError: `size` is not positive.
        """
        if size < 1:
            raise ValueError(f"size is {size}; a group needs at least one example")
        groups = [piece for batch in self.batches for piece in _batches.split(batch, size)]
        return [self._over([group], self.dtype) for group in groups]

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
        other = copy.copy(self)
        other._depth = 0
        processes = group if isinstance(group, _distributed.Processes) else _distributed.join(group, self.device)
        other.processes, other.own = processes, processes.share(self.batch_sizes)
        if processes.size == 1:
            return other
        if self.communicates:
            raise MeasurementError(
                f"{type(self.module).__name__} exchanges tensors between processes when it is evaluated (a gather in "
                "its step, or synchronised batch normalisation), so all must evaluate the same batches; measure "
                "without shard()"
            )
        _distributed.require_equal(processes, batches=self.fingerprint, weights=_distributed.checksum(self.vector()))
        other._shared_buffers = processes.first_tensors(dict(self.module.named_buffers()))
        return other

    @functools.cached_property
    def communicates(self) -> bool:
        """Whether the model exchanges tensors between processes by itself; then it cannot be sharded."""
        with self.session():
            parameters = self._tensors.parameters(None)
            return _distributed.communicates(self.module, lambda: self.batch_loss(0, parameters))

    # ------------------------------------------------------------------ inside

    def _over(self, batches: Iterable[Any], dtype: torch.dtype) -> Objective:
        """Make one over other batches, or in another type, at the same default point, for this process alone."""
        other = Objective.__new__(Objective)
        other._setup(self._step, self.module, batches, self.mode, dtype, self.noise_seed)
        other._point = None if self._point is None else self._point.to(dtype)
        other._point_buffers, other._shared_buffers = self._point_buffers, self._shared_buffers
        return other

    def _at(self, vector: torch.Tensor | None) -> torch.Tensor | None:
        return self._point if vector is None else vector

    @contextlib.contextmanager
    def _isolation(self, objects: Iterable[Any] = ()) -> Iterator[None]:
        with isolated(self.module, (*self._step.objects, *objects)):
            if self.mode == "train":
                self.module.train()  # the module's own word on what stays frozen
            else:
                # Not by eval(), which may do more than set flags, such as merge adapters into the weights.
                for part in self.module.modules():
                    part.training = False
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
