"""Conditions under which losses are evaluated: isolation, mode, kernels, and whether gradients are recorded."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

import torch
from torch import nn

from landscape._embeddings import functional_embeddings
from landscape._second_order import forward_kernels, plain_kernels
from landscape._step import ModelStep, TrainingStep
from landscape.isolation import isolated


class Conditions:
    """Context managers around evaluations of a module's loss; all of them may be nested.

    Attributes:
        module: The measured module.
        mode: "eval" or "train".
        differentiates: What the step takes derivatives by while it makes its loss: "inputs", "parameters", or nothing.
    """

    module: nn.Module
    mode: str
    differentiates: str
    _step: ModelStep | TrainingStep
    _depth: int
    _within_kernels: bool

    def _copied(self) -> Self:
        """Return a shallow copy that is in no session and has chosen no kernels, wherever it is made."""
        other = copy.copy(self)
        other._depth, other._within_kernels = 0, False
        return other

    @contextlib.contextmanager
    def without_graph(self) -> Iterator[None]:
        """Evaluate losses that are not differentiated: without gradients, unless the step takes some by itself."""
        with torch.set_grad_enabled(bool(self.differentiates)):
            yield

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
            with forward_kernels() if forward else plain_kernels(), functional_embeddings(fused=forward):
                yield
        finally:
            self._within_kernels = False

    @contextlib.contextmanager
    def _isolation(self, objects: Iterable[Any] = ()) -> Iterator[None]:
        with isolated(self.module, (*self._step.objects, *objects), set_aside=True):
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
    def quiet(self) -> Iterator[None]:
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
