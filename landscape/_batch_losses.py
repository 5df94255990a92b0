"""The loss of one of some held batches as a function of the parameters: what the mean over them is made of."""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from landscape import _batches, _distributed
from landscape._errors import MeasurementError
from landscape._given import check_pair
from landscape._observe import LossObserver
from landscape._parameters import MeasuredTensors
from landscape._second_order import forward_kernels, plain_kernels
from landscape._step import ModelStep, TrainingStep
from landscape._weighing import Watch, probe_determinism, weigh
from landscape.isolation import isolated


class BatchLosses:
    """Held batches, a model and its loss, prepared for measuring: weights, types, isolation, the loss of each batch."""

    _step: ModelStep | TrainingStep
    _watch = Watch.STEP

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
        self._within_kernels = False
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
            if isinstance(step, ModelStep):
                for batch in self.batches:
                    check_pair(batch)
            if not self.batches:
                raise MeasurementError("there are no batches to measure; give at least one batch of examples")
            self.batch_sizes = [_batches.n_examples(batch) for batch in self.batches]
            self.n_examples = sum(self.batch_sizes)
            if not self.n_examples:
                raise MeasurementError("the measurement batches hold no examples; give at least one batch of examples")
            parameters = self._tensors.parameters(None)
            self._scales = [1.0] * len(self.batches)
            self._weights, self._scales, self._watch = weigh(
                lambda index, observer: self._observed_loss(index, parameters, None, observer),
                self.batch_sizes,
                step.summed,
            )
            self.own = list(range(len(self.batches)))
            probe_determinism(lambda: self.batch_loss(self.counted[0], parameters))

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

    def batch_loss(
        self,
        index: int,
        parameters: Sequence[torch.Tensor],
        buffers: dict[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Return the loss of one batch at the given parameter tensors, with its graph where gradients are enabled.

        Call it within `session()`. The mean over all examples is Σ_b `weights[b]` · `batch_loss(b)`.
        """
        return self._observed_loss(index, parameters, buffers, None)

    def _observed_loss(
        self,
        index: int,
        parameters: Sequence[torch.Tensor],
        buffers: dict[str, torch.Tensor] | None,
        observer: LossObserver | None,
    ) -> torch.Tensor:
        """Return the loss of one batch; an observer sees the loss function."""
        if self.noise_seed is not None:
            torch.manual_seed(self.noise_seed + index)
            np.random.seed((self.noise_seed + index) % 2**32)
            random.seed(self.noise_seed + index)
        given = self._point_buffers if buffers is None else buffers
        given = self._shared_buffers | given if self._shared_buffers else given
        with self._kernels(), self._tensors.substituted(parameters, given):
            loss = self._step(_batches.fresh(self.batches[index]), index, parameters[0], observer)
        return loss * self._scales[index] if self._scales[index] != 1.0 else loss

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
    def weights(self) -> list[float]:
        """Weight of each batch in the mean; they sum to 1."""
        return self._weights

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
                # Not by eval(), which may do more than set flags, such as merge adapters into the weights.
                for part in self.module.modules():
                    part.training = False
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
