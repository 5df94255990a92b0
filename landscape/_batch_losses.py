"""The loss of one of some held batches as a function of the parameters: what the mean over them is made of."""

from __future__ import annotations

import contextlib
import functools
import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from landscape import _batches, _distributed
from landscape._additivity import Experiment, Look, disturbed, require_number, tolerance
from landscape._errors import MeasurementError
from landscape._examples import Reading, readings
from landscape._observe import LossObserver
from landscape._parameters import MeasuredTensors
from landscape._second_order import forward_kernels, plain_kernels
from landscape._step import ModelStep, SkippedBatch, TrainingStep
from landscape._weighing import Watch, Weighting, agree, require_function, weigh
from landscape.isolation import isolated


class BatchLosses:
    """Held batches, a model and its loss, prepared for measuring: weights, types, isolation, the loss of each batch.

    Attributes:
        weighting: What the loss of a batch divides by: "examples", "targets", "weights" or "batches".
        batch_sizes: Number of examples in each batch; 0 for a batch that the step skips.
        n_examples: Their sum.
    """

    _step: ModelStep | TrainingStep

    def _setup(
        self,
        step: ModelStep | TrainingStep,
        module: nn.Module,
        batches: Iterable[Any],
        mode: str,
        dtype: torch.dtype | None,
        noise_seed: int | None,
        batch_weight: Callable[[Any], Any] | None = None,
        known: Weighting | None = None,
    ) -> None:
        if mode not in ("eval", "train"):
            raise ValueError(f"mode is {mode!r}; it must be 'eval' or 'train'")
        self.module = module
        self.mode = mode
        self.noise_seed = 0 if noise_seed is None and mode == "train" else noise_seed
        self._step = step
        self._batch_weight = batch_weight or getattr(module, "landscape_batch_weight", None)
        self._depth = 0
        self._within_kernels = False
        self._differentiates = ""  # what the step takes derivatives by: nothing, "inputs" or "parameters"
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
            held = batches if isinstance(batches, list) else list(batches)
            self.source = getattr(held, "source", "given")
            self.batches = [self._cast(batch) for batch in held]
            if not self.batches:
                raise MeasurementError("there are no batches to measure; give at least one batch of examples")
            self._weigh(held, known)
            self.own = list(range(len(self.batches)))

    def _weigh(self, held: list[Any], known: Weighting | None) -> None:
        """Take the first look at the batches: what is an example, what the loss divides by, is it a function."""
        found = readings(self.batches, getattr(held, "items", None))
        if not sum(found[0].counts):
            raise MeasurementError("the measurement batches hold no examples; give at least one batch of examples")
        self._step.pairs = self._step.pairs and not found[0].lists_examples
        self._scales = [1.0] * len(self.batches)
        self._require_function()
        looks = [self._look(batch, index, self._tensors.parameters(None)) for index, batch in enumerate(self.batches)]
        given = None
        if self._batch_weight is not None:
            say, name = self._batch_weight, getattr(self._batch_weight, "__name__", "batch_weight")
            given = [require_number(say(_batches.fresh(batch)), name, batch) for batch in self.batches]

        def experiment(reading: Reading) -> Experiment:
            return Experiment(self.batches, reading, held, looks, self._look_at_piece(), self._cast)

        noisy = self.noise_seed is not None and self._is_random()
        with self._quiet():
            weighed = weigh(found, looks, experiment, tolerance(self.dtype, self.device), noisy, given, known)
        self._weighting, self._reading, self._watch = weighed.weighting, weighed.reading, weighed.watch
        self._weights, self._scales = weighed.weights, weighed.scales
        counts = zip(weighed.reading.counts, looks, strict=True)
        self.batch_sizes = [0 if look.loss is None else count for count, look in counts]
        self.n_examples = sum(self.batch_sizes)
        if self.weighting == "batches" and known is None:
            warnings.warn(
                f"the loss of {type(self.module).__name__} is measured as the mean over the batches as they are "
                "given, so it depends on how the examples are cut into batches. The reason: "
                f"{weighed.weighting.evidence}. If the loss of a batch does divide by something, say by what with "
                "batch_weight=, or with a method landscape_batch_weight(self, batch) on the module",
                stacklevel=4,
            )

    def _require_function(self) -> None:
        """Evaluate one batch twice, without gradients and with them; find out whether the step itself differentiates.

        Raises:
            SkippedBatch: The step skips every batch.
            MeasurementError: The loss is not a function of the parameters.
            RuntimeError: The model itself failed.
        """
        index = self._first_counted()
        losses = []
        for gradients in (False, True, True):
            try:
                losses.append(self._value(self.batches[index], index, gradients))
            except RuntimeError as error:
                if self._differentiates == "parameters" or "does not require grad" not in str(error):
                    raise
                # The step takes derivatives: by its inputs (physics-informed networks, gradient penalties), or if that
                # fails too, by its parameters (inner loops of meta-learning).
                self._differentiates = "parameters" if self._differentiates else "inputs"
                return self._require_function()
            if len(losses) == 2 and agree(*losses):
                return None
        if agree(losses[1], losses[2]):  # a step that looks whether gradients are enabled
            self._differentiates = self._differentiates or "inputs"
            return None
        return require_function(losses[1:])

    def _first_counted(self) -> int:
        """Return the number of the first batch that the step does not skip."""
        for index, batch in enumerate(self.batches):
            try:
                self._value(batch, index, gradients=True)
            except SkippedBatch:
                if index + 1 == len(self.batches):
                    raise
            except RuntimeError:
                return index
            else:
                return index
        raise AssertionError("no batches")

    def _value(self, batch: Any, index: int, gradients: bool) -> torch.Tensor:
        parameters = self._tensors.parameters(None, grad=self._differentiates == "parameters")
        with torch.set_grad_enabled(gradients or bool(self._differentiates)):
            return self._evaluated(batch, index, parameters, None, None).detach()

    def _look(self, batch: Any, index: int, parameters: Sequence[torch.Tensor]) -> Look:
        """Evaluate a batch and watch the loss functions that are called, in the given loss function and elsewhere."""
        inside = LossObserver()
        with LossObserver() as observer, self.without_graph():
            try:
                loss = float(self._evaluated(batch, index, parameters, None, inside))
            except SkippedBatch:
                return Look(None)
        return Look(loss, tuple(observer.calls), observer.classifies, len(observer.calls) != len(inside.calls))

    def _look_at_piece(self) -> Callable[[Any, int, int], Look]:
        """Return what evaluates pieces of batches at the present point (number 0) and at disturbed ones."""
        kept: dict[int, list[torch.Tensor]] = {}

        def evaluate(batch: Any, index: int, point: int) -> Look:
            if point not in kept:
                kept.clear()  # one vector at a time
                start = self._tensors.vector()
                kept[point] = self._tensors.parameters(disturbed(start, self.layout, point) if point else None)
            return self._look(batch, index, self.differentiable(kept[point]))

        return evaluate

    def _is_random(self) -> bool:
        """Whether the loss changes with the seed of its noise."""
        index, seed = self._first_counted(), self.noise_seed
        with self._quiet():
            first = self._value(self.batches[index], index, gradients=False)
            try:
                self.noise_seed = int(seed or 0) + 7919
                return not agree(first, self._value(self.batches[index], index, gradients=False))
            finally:
                self.noise_seed = seed

    def _cast(self, batch: Any) -> Any:
        return _batches.cast(batch, self.device, self.dtype)

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
            "weighting": self.weighting,
            "weighting_evidence": self._weighting.evidence,
            "source": self.source,
            "fingerprint": self.fingerprint,
        }

    def __repr__(self) -> str:
        name = type(self.module).__name__
        return f"Objective({name}, P={self.n_parameters}, examples={self.n_examples}, mode={self.mode!r})"

    def batch_loss(
        self,
        index: int,
        parameters: Sequence[torch.Tensor],
        buffers: dict[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Return the loss of one batch at the given parameter tensors, with its graph where gradients are enabled.

        Call it within `session()`. The mean over all examples is Σ_b `batch_weights[b]` · `batch_loss(b)`.
        """
        return self._observed_loss(index, parameters, buffers, None)

    def _observed_loss(
        self,
        index: int,
        parameters: Sequence[torch.Tensor],
        buffers: dict[str, torch.Tensor] | None,
        observer: LossObserver | None,
    ) -> torch.Tensor:
        """Return the loss of one batch of the objective; an observer sees the loss function."""
        loss = self._evaluated(self.batches[index], index, parameters, buffers, observer)
        return loss * self._scales[index] if self._scales[index] != 1.0 else loss

    def _evaluated(
        self,
        batch: Any,
        index: int,
        parameters: Sequence[torch.Tensor],
        buffers: dict[str, torch.Tensor] | None,
        observer: LossObserver | None,
    ) -> torch.Tensor:
        """Return the loss of any batch as the step gives it, as if it were the batch of this number."""
        if self.noise_seed is not None:
            torch.manual_seed(self.noise_seed + index)
            np.random.seed((self.noise_seed + index) % 2**32)
            random.seed(self.noise_seed + index)
        given = self._point_buffers if buffers is None else buffers
        given = self._shared_buffers | given if self._shared_buffers else given
        with self._kernels(), self._tensors.substituted(parameters, given):
            return self._step(_batches.fresh(batch), index, parameters[0], observer)

    def _watched_loss(
        self, index: int, parameters: Sequence[torch.Tensor], buffers: dict[str, torch.Tensor] | None
    ) -> tuple[float, LossObserver]:
        """Return the loss of one batch and what was seen of it, by watching no more of the step than need be."""
        observer = LossObserver()
        if self._watch is Watch.STEP:
            with observer:
                return float(self.batch_loss(index, parameters, buffers)), observer
        watching = observer if self._watch is Watch.LOSS else None
        return float(self._observed_loss(index, parameters, buffers, watching)), observer

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
    def batch_weights(self) -> list[float]:
        """Weight of each batch in the mean; they sum to 1."""
        return self._weights

    @property
    def weighting(self) -> str:
        """What the loss of a batch divides by: "examples", "targets", "weights"; "batches" where by nothing."""
        return self._weighting.kind

    @contextlib.contextmanager
    def without_graph(self) -> Iterator[None]:
        """Evaluate losses that are not differentiated: without gradients, unless the step takes some by itself."""
        with torch.set_grad_enabled(bool(self._differentiates)):
            yield

    def differentiable(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        """Let the step of meta-learning differentiate by parameter tensors; for other steps they stay as they are."""
        if self._differentiates != "parameters":
            return tensors
        return [tensor.detach().requires_grad_() for tensor in tensors]

    @property
    def counted(self) -> list[int]:
        """Indices of the batches with a weight that this process evaluates, all unless sharded.

        Sums over them belong into `processes.summed(...)`.
        """
        return [index for index in self.own if self._weights[index] > 0]

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Isolate many evaluations at once; sessions inside a session cost nothing."""
        with self._isolation() if not self._depth else contextlib.nullcontext():
            yield

    def same_kernels(self) -> contextlib.AbstractContextManager[None]:
        """Take all losses within by the kernels of gradients, as those that stand beside a gradient are."""
        return self._kernels()

    @contextlib.contextmanager
    def _kernels(self, forward: bool = False) -> Iterator[None]:
        """Choose the kernels of everything within: plain ones, or those for losses that are not differentiated."""
        if self._within_kernels:
            yield
            return
        self._within_kernels = True
        try:
            with forward_kernels() if forward else plain_kernels():
                yield
        finally:
            self._within_kernels = False

    @contextlib.contextmanager
    def _isolation(self, objects: Iterable[Any] = ()) -> Iterator[None]:
        with isolated(self.module, (*self._step.objects, *objects)):
            if self.mode == "train":
                self.module.train()  # the module's own word on what stays frozen
            else:
                set_training(self.module, {})
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        """Leave dropout and batch statistics out: what a loss divides by does not depend on them."""
        before = {part: part.training for part in self.module.modules()}
        set_training(self.module, {})
        try:
            yield
        finally:
            set_training(self.module, before)


def set_training(module: nn.Module, flags: Mapping[nn.Module, bool]) -> None:
    """Set the flags of submodules, and those of all others to False.

    Not by eval(), which may do more than set flags, such as merge adapters into the weights.
    """
    for part in module.modules():
        part.training = flags.get(part, False)
