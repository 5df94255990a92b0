"""The networks that every curvature operator is compared on, with dense float64 references by other means.

A reference never goes through the objective: outputs come from the bare model, the loss of all examples at once is a
function of them, and every matrix is made of explicit Jacobians and Hessians.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

Batches = list[tuple[torch.Tensor, torch.Tensor]]
NAMES = [
    "mlp tanh",
    "mlp relu",
    "mlp gelu",
    "cnn",
    "encoder",
    "lstm",
    "words",
    "class weights",
    "tiny loss",
]


@dataclasses.dataclass(frozen=True)
class Network:
    """A model with classes along dimension 1 of its output, measured by a weighted cross-entropy.

    `model` is in float64; `single()` is the same in float32.
    """

    model: nn.Module
    batches: Batches
    ignore_index: int = -100
    weight: torch.Tensor | None = None
    factor: float = 1.0

    @property
    def loss_fn(self) -> Callable[..., torch.Tensor]:
        cross = nn.CrossEntropyLoss(self.weight, ignore_index=self.ignore_index)
        if self.factor == 1.0:
            return cross
        return lambda scores, target: self.factor * cross(scores, target)

    @functools.cached_property
    def named(self) -> dict[str, torch.Tensor]:
        return {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}

    @functools.cached_property
    def vector(self) -> torch.Tensor:
        return torch.cat([p.reshape(-1) for p in self.named.values()])

    def outputs(self, vector: torch.Tensor) -> torch.Tensor:
        """Logits of all targets, shape (targets, classes)."""
        sizes = [p.numel() for p in self.named.values()]
        parts = {
            name: part.reshape(p.shape) for (name, p), part in zip(self.named.items(), vector.split(sizes), strict=True)
        }
        with sdpa_kernel(SDPBackend.MATH):
            scores = [functional_call(self.model, parts, (_double(x),)) for x, _ in self.batches]
        return torch.cat([s.movedim(1, -1).reshape(-1, s.shape[1]) for s in scores])

    @property
    def targets(self) -> torch.Tensor:
        return torch.cat([y.reshape(-1) for _, y in self.batches])

    @property
    def shares(self) -> torch.Tensor:
        """What each target's −log p is multiplied by in the loss, shape (targets,)."""
        weight = torch.ones(int(self.targets.max()) + 1) if self.weight is None else self.weight
        kept = self.targets != self.ignore_index
        own = weight.double()[torch.where(kept, self.targets, 0)] * kept
        return self.factor * own / own.sum()

    @functools.cached_property
    def jacobian(self) -> torch.Tensor:
        """Shape (targets, classes, P)."""
        return torch.autograd.functional.jacobian(self.outputs, self.vector)

    @functools.cached_property
    def hessian(self) -> torch.Tensor:
        def loss(vector: torch.Tensor) -> torch.Tensor:
            return self._total(self.outputs(vector))

        return torch.autograd.functional.hessian(loss, self.vector)

    @functools.cached_property
    def ggn(self) -> torch.Tensor:
        scores = self.outputs(self.vector).detach()
        inner = torch.autograd.functional.hessian(self._total, scores)
        size = scores.numel()
        flat = self.jacobian.reshape(size, -1)
        return flat.T @ inner.reshape(size, size) @ flat

    @functools.cached_property
    def fisher(self) -> torch.Tensor:
        """Expectation over every label, one by one."""
        scores = self.outputs(self.vector).detach()
        total = torch.zeros_like(self.hessian)
        for row, share, jacobian in zip(scores, self.shares, self.jacobian, strict=True):
            for label, p in enumerate(row.softmax(0)):
                slope = jacobian.T @ (F.one_hot(torch.tensor(label), len(row)) - row.softmax(0))
                total += share * p * torch.outer(slope, slope)
        return total

    @functools.cached_property
    def empirical(self) -> torch.Tensor:
        """Outer products of the gradients of the examples' own parts of the loss, by one backward pass each."""
        vector = self.vector.clone().requires_grad_()
        scores = self.outputs(vector)
        log_p = scores.log_softmax(1).gather(1, self.targets.clamp(min=0)[:, None]).squeeze(1)
        parts = (-self.shares * log_p).split([y[0].numel() for _, y in self.batches for _ in y])
        counted = [
            bool((y != self.ignore_index).any()) for _, target in self.batches for y in target.reshape(len(target), -1)
        ]
        total = torch.zeros_like(self.hessian)
        for part in parts:
            (gradient,) = torch.autograd.grad(part.sum(), vector, retain_graph=True)
            total += sum(counted) * torch.outer(gradient, gradient)
        return total

    def _total(self, scores: torch.Tensor) -> torch.Tensor:
        weight = None if self.weight is None else self.weight.double()
        return self.factor * F.cross_entropy(scores, self.targets, weight, ignore_index=self.ignore_index)


def _double(x: torch.Tensor) -> torch.Tensor:
    return x.double() if x.is_floating_point() else x


def make(name: str, cases: Any) -> Network:
    """Build a network of the zoo in batches of uneven sizes, its weights moved away from the initial ones."""
    torch.manual_seed(3)
    x, y = cases.data(24)
    sequences, images = torch.randn(24, 5, 4), torch.randn(24, 1, 5, 5)
    tokens = torch.randint(7, (10, 6))
    labels = tokens.roll(1, 1)
    labels[:4, 1:] = -1  # the first batch has few counted targets
    settings: dict[str, Any] = {}
    if name == "cnn":
        model, x = cases.ConvNet(), images
        model.train()
        model(images)  # running statistics that are not the initial ones
    elif name == "encoder":
        model, x = cases.Encoder(), sequences
    elif name == "lstm":
        model, x = cases.Recurrent(), sequences
    elif name == "words":
        model, x, y = cases.Words(), tokens, labels
        settings["ignore_index"] = -1
    else:
        activations = {"mlp relu": nn.ReLU, "mlp gelu": nn.GELU}
        model = cases.mlp(activations.get(name, nn.Tanh))
    if name == "class weights":
        settings["weight"] = torch.tensor([0.2, 1.0, 3.0])
    if name == "tiny loss":
        settings["factor"] = 1e-6
    cut = 4 if name == "words" else 17
    model = model.double().eval()
    return Network(model, [(x[:cut], y[:cut]), (x[cut:], y[cut:])], **settings)
