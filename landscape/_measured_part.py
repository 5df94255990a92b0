"""Which parameters of a module are measured, in which type, and what stands for them in evaluations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from landscape._errors import MeasurementError
from landscape._layout import ParameterLayout
from landscape._parameters import MeasuredTensors
from landscape._step import ModelStep, TrainingStep


class MeasuredPart:
    """The measured parameters of a module: all trainable ones, or a part of them.

    Attributes:
        module: The module.
        parameters: Names and patterns of the part that is measured; None for all trainable parameters.
        layout: Names and shapes of the measured parameters.
        device: Where they are measured.
        dtype: The type that they are measured in.
    """

    module: nn.Module
    parameters: tuple[str, ...] | None
    layout: ParameterLayout
    device: torch.device
    dtype: torch.dtype
    differentiates: str
    _step: ModelStep | TrainingStep
    _part: tuple[str, ...] | None
    _tensors: MeasuredTensors

    def _measure_part(self, dtype: torch.dtype | None, part: tuple[str, ...] | None) -> None:
        """Decide which parameters span the landscape; the others are constants."""
        self._part = part
        self._tensors = MeasuredTensors(self.module, dtype, self._step.objects, part)
        self.layout = self._tensors.layout
        self.device = self._tensors.device
        self.dtype = self._tensors.dtype

    @property
    def n_parameters(self) -> int:
        """Number P of measured parameters, by default all trainable ones; tied ones count once."""
        return self.layout.total

    def require_whole(self, what: str, cure: str) -> None:
        """Refuse a part of a model where a measure stands for all trainable parameters.

        Args:
            what: The measure, as the subject of the sentence.
            cure: What to do instead.

        Raises:
            MeasurementError: The objective measures a part.
        """
        if self.parameters is not None:
            raise MeasurementError(
                f"{what} all trainable parameters, and this objective measures a part of them "
                f"(parameters={list(self.parameters)}); {cure}"
            )

    def current(self) -> bool:
        """Return whether the parameters that this objective was made for still train, and no others.

        Where they do, places that hold the module's tensors are looked for again. Where not, make a new objective.
        """
        return self._tensors.current()

    @contextlib.contextmanager
    def in_type(self, dtype: torch.dtype) -> Iterator[None]:
        """Evaluate everything within in another floating-point type; batches must be given in it."""
        if dtype == self.dtype:
            yield
            return
        before = self._tensors, self.dtype
        self._tensors = MeasuredTensors(self.module, dtype, self._step.objects, self._part)
        self.dtype = dtype
        try:
            yield
        finally:
            self._tensors, self.dtype = before

    def flatten(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Join tensors of the parameters' shapes into one flat vector of the measuring type (a copy), shape (P,)."""
        return self._tensors.flatten(tensors)

    def add(self, total: torch.Tensor, tensors: Sequence[torch.Tensor]) -> None:
        """Add tensors of the parameters' shapes to a flat vector; those of a large model without a flat copy."""
        self._tensors.add(total, tensors)

    def start(self) -> torch.Tensor:
        """Return a copy of the module's present trainable parameters, shape (P,)."""
        return self._tensors.vector()

    def present(self, vector: torch.Tensor | None = None) -> list[torch.Tensor]:
        """Return parameter tensors for losses that are not differentiated, from a flat vector or the module's own.

        They require gradients only if the step itself differentiates by them.
        """
        return self._tensors.parameters(vector, grad=self.differentiates == "parameters")
