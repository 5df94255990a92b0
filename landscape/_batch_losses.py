"""Per-batch loss as a function of the parameters; `Objective` averages it."""

from __future__ import annotations

import contextlib
import functools
import random
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from landscape import _batches, _distributed
from landscape._conditions import Conditions
from landscape._derivatives import Derivatives
from landscape._errors import MeasurementError, WeightingWarning
from landscape._first_look import FirstLook
from landscape._given import check_pair
from landscape._measured_part import MeasuredPart
from landscape._order_of_use import last_layer
from landscape._precision import MeasuringPrecision
from landscape._sampling_error import MOST_GROUPS, Clusters
from landscape._selection import LAST_LAYER, as_patterns
from landscape._step import ModelStep, TrainingStep
from landscape._weighing import Watch, Weighting
from landscape.losses import ErrorCounter, LossWatcher

# Reading a product's groups passes over a whole basis for each: half as many must do from this size on.
_LARGE = 2**22


class BatchLosses(MeasuredPart, Conditions):
    """Held batches, a model and its loss, prepared for measuring: weights, types, isolation, the loss of each batch.

    Attributes:
        weighting: What the loss of a batch divides by: "examples", "targets", "weights" or "batches".
        batch_sizes: Number of examples in each batch; 0 for a batch that the step skips.
        n_examples: Their sum.
        differentiates: What the step takes derivatives by while it makes its loss: "inputs" (physics-informed networks,
            gradient penalties), "parameters" (inner loops of meta-learning), or nothing ("").
        parameters: Names and patterns of the part of the model that is measured; None for all trainable parameters.
    """

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
        parameters: str | Iterable[str] | None = None,
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
        self.differentiates = ""
        self._point: torch.Tensor | None = None
        self._point_buffers: dict[str, torch.Tensor] = {}
        self._shared_buffers: dict[str, torch.Tensor] = {}
        self.processes = _distributed.ALONE
        self._derivatives = Derivatives()
        self.parameters = as_patterns(parameters)
        self._part = self.parameters
        last = self.parameters is not None and LAST_LAYER in self.parameters
        self._measure_part(dtype, None if last else self._part)
        # A loader's own generators and counters are put back; of a plain list of data there is nothing to restore.
        with self._isolation(() if isinstance(batches, (list, tuple)) else (batches,)):
            held = batches if isinstance(batches, list) else list(batches)
            self.source = getattr(held, "source", "given")
            self.batches = [self.cast(batch) for batch in held]
            if isinstance(step, ModelStep):
                for batch in self.batches:
                    check_pair(batch)
            if not self.batches:
                raise MeasurementError("there are no batches to measure; give at least one batch of examples")
            if last:
                others = [pattern for pattern in self.parameters or () if pattern != LAST_LAYER]
                self._measure_part(dtype, (*others, *last_layer(self)))
            self._weigh(held, known)
            self.own = list(range(len(self.batches)))

    def _weigh(self, held: list[Any], known: Weighting | None) -> None:
        """Take the first look at the batches: what is an example, what does the loss divide by, is it a function."""
        self._scales = [1.0] * len(self.batches)
        weighed = FirstLook(self, held).weigh(self._batch_weight, known)
        self._weighting, self._reading, self._watch = weighed.weighting, weighed.reading, weighed.watch
        self._weights, self._scales = weighed.weights, weighed.scales
        self.batch_sizes = weighed.sizes
        self.n_examples = sum(self.batch_sizes)
        if self.weighting == "batches" and known is None:
            warnings.warn(
                f"the loss of {type(self.module).__name__} is measured as the mean over the batches as they are "
                "given, so it depends on how the examples are cut into batches. The reason: "
                f"{weighed.weighting.evidence}. If the loss of a batch does divide by something, say by what with "
                "batch_weight=, or with a method landscape_batch_weight(self, batch) on the module",
                WeightingWarning,
                stacklevel=4,
            )

    def cast(self, batch: Any) -> Any:
        """Copy a batch to the device and in the type of the measurement."""
        return _batches.cast(batch, self.device, self.dtype)

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
            "parameters": "all" if self.parameters is None else list(self.parameters),
            "n_trainable": self._tensors.n_trainable,
            "n_examples": self.n_examples,
            "weighting": self.weighting,
            "weighting_evidence": self._weighting.evidence,
            "source": self.source,
            "fingerprint": self.fingerprint,
        }

    def __repr__(self) -> str:
        name = type(self.module).__name__
        part = "" if self.parameters is None else f"parameters={list(self.parameters)}, "
        return f"Objective({name}, {part}P={self.n_parameters}, examples={self.n_examples}, mode={self.mode!r})"

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
        observer: LossWatcher[Any] | None,
    ) -> torch.Tensor:
        """Return the loss of one batch of the objective; an observer sees the loss function."""
        loss = self.step_loss(self.batches[index], index, parameters, buffers, observer)
        return loss * self._scales[index] if self._scales[index] != 1.0 else loss

    def step_loss(
        self,
        batch: Any,
        index: int,
        parameters: Sequence[torch.Tensor],
        buffers: dict[str, torch.Tensor] | None = None,
        observer: LossWatcher[Any] | None = None,
    ) -> torch.Tensor:
        """Return the loss of any batch as the step gives it, as if it were the batch of this number."""
        if self.noise_seed is not None:
            torch.manual_seed(self.noise_seed + index)
            np.random.seed((self.noise_seed + index) % 2**32)
            random.seed(self.noise_seed + index)
        given = self._point_buffers if buffers is None else buffers
        given = self._shared_buffers | given if self._shared_buffers else given
        raised = MeasuringPrecision(self.dtype) if self._tensors.raised else contextlib.nullcontext()
        inner = self.differentiates == "parameters"
        with self._kernels(), self._tensors.substituted(parameters, given, inner), raised:
            return self._step(_batches.fresh(batch), index, parameters[0], observer)

    def _watched_loss(
        self, index: int, parameters: Sequence[torch.Tensor], buffers: dict[str, torch.Tensor] | None
    ) -> tuple[torch.Tensor, ErrorCounter]:
        """Return the loss of one batch and its errors, by watching no more of the step than need be."""
        observer = ErrorCounter()
        if self._watch is Watch.STEP:
            with observer:
                return self.batch_loss(index, parameters, buffers).detach(), observer
        watching = observer if self._watch is Watch.LOSS else None
        return self._observed_loss(index, parameters, buffers, watching).detach(), observer

    def require_graph(self, differentiable: bool) -> None:
        """Refuse to differentiate where the loss of no batch has a graph that leads to parameters.

        Args:
            differentiable: Whether that of any batch has.

        Raises:
            MeasurementError: None has.
        """
        if not differentiable:
            raise MeasurementError(
                f"the loss of {type(self.module).__name__} does not depend on any trainable parameter"
                f"{'' if self.parameters is None else f' of the measured part (parameters={list(self.parameters)})'}; "
                "look for a detach(), an .item() or a torch.no_grad() on its way"
            )

    @property
    def batch_weights(self) -> list[float]:
        """Weight of each batch in the mean; they sum to 1."""
        return self._weights

    @property
    def weighting(self) -> str:
        """What the loss of a batch divides by: "examples", "targets", "weights"; "batches" where by nothing."""
        return self._weighting.kind

    @functools.cached_property
    def clusters(self) -> Clusters | None:
        """Groups of batches for standard errors over examples; None where fewer than two batches have a weight."""
        most = MOST_GROUPS if self.n_parameters < _LARGE else MOST_GROUPS // 2
        return Clusters.of(self.batch_weights, self.batch_sizes, self.weighting == "batches", most)

    @property
    def evaluated(self) -> list[int]:
        """Indices of the batches of this process that the step does not skip."""
        return [index for index in self.own if self.batch_sizes[index]]

    @property
    def counted(self) -> list[int]:
        """Indices of the batches with a weight that this process evaluates, all unless sharded.

        Sums over them belong into `processes.summed(...)`.
        """
        return [index for index in self.own if self._weights[index] > 0]
