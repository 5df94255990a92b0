"""Small networks, data and LightningModules that the tests share, and dense references for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F  # noqa: N812
import torchmetrics
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

Batches = list[tuple[torch.Tensor, torch.Tensor]]


def data(n: int = 40, features: int = 4, classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Gaussian inputs with labels that depend on them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, features, generator=generator)
    scores = x @ torch.randn(features, classes, generator=generator) + torch.randn(n, classes, generator=generator)
    return x, scores.argmax(dim=1)


def mlp(activation: Callable[[], nn.Module] = nn.Tanh, width: int = 8, seed: int = 0) -> nn.Sequential:
    """4 → width → width → 3: 139 parameters at width 8."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Linear(4, width), activation(), nn.Linear(width, width), activation(), nn.Linear(width, 3)]
        return nn.Sequential(*layers)


def trained(model: nn.Module, loss_fn: Any, batches: Batches, steps: int = 300, lr: float = 0.02) -> nn.Module:
    """Train in float64 by Adam on all batches and return the model."""
    model.double().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        loss = sum(loss_fn(model(x.double()), y.double() if y.is_floating_point() else y) for x, y in batches)
        loss.backward()
        optimizer.step()
    return model.eval()


def dense_hessian(
    model: nn.Module, loss: Callable[[], torch.Tensor], vector: torch.Tensor | None = None
) -> torch.Tensor:
    """Dense float64 Hessian of `loss()` in the trainable parameters, by torch's own double differentiation.

    `loss` evaluates the model as it stands; the model must be in float64.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    sizes = [p.numel() for p in named.values()]
    point = torch.cat([p.detach().reshape(-1) for p in named.values()]) if vector is None else vector

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self) -> torch.Tensor:
            return loss()

    holder = Loss()

    def function(flat: torch.Tensor) -> torch.Tensor:
        parts = {
            f"model.{name}": part.reshape(p.shape)
            for (name, p), part in zip(named.items(), flat.split(sizes), strict=True)
        }
        with sdpa_kernel(SDPBackend.MATH):
            return functional_call(holder, parts, ())

    with torch.random.fork_rng():
        return torch.autograd.functional.hessian(function, point)


class ConvNet(nn.Module):
    """A convolution with batch normalisation before a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.norm(self.conv(x))).mean(dim=(2, 3)))


class Encoder(nn.Module):
    """A transformer encoder layer with padding, averaged over all positions."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, dim_feedforward=6, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padding = torch.zeros(x.shape[:2], dtype=torch.bool)
        padding[x[:, 0, 0] > 0, -2:] = True
        return self.head(self.encoder(x, src_key_padding_mask=padding).mean(dim=1))


class Attention(nn.Module):
    """Bare scaled dot-product attention."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(4, 12)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.projection(x).unsqueeze(1).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.head(mixed.squeeze(1).mean(dim=1))


class Recurrent(nn.Module):
    """An LSTM read at its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Words(nn.Module):
    """An embedding tied to the output layer, a frozen and an unused parameter beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.hidden = nn.Linear(4, 4)
        self.frozen = nn.Parameter(torch.randn(4), requires_grad=False)
        self.unused = nn.Parameter(torch.randn(3))
        self.output = nn.Linear(4, 7, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.output(torch.tanh(self.hidden(self.embedding(tokens)) * self.frozen)).transpose(1, 2)


class Eventful(pl.LightningModule):
    """Does in its training step whatever a measurement must not leave behind."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3))
        self.accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=3)
        self.calls = 0
        self.training_step_outputs: list[torch.Tensor] = []
        self.history: dict[str, list[float]] = {"loss": []}
        self.running = torch.zeros(())

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, torch.Tensor]:
        x, y = batch
        scores = self.net(x)
        loss = F.cross_entropy(scores, y)
        self.accuracy(scores, y)
        self.calls += 1
        self.training_step_outputs.append(loss.detach())
        self.history["loss"].append(float(loss.detach()))
        self.running += loss.detach()
        self.log("train_loss", loss, prog_bar=True)
        self.log_dict({"accuracy": self.accuracy})
        torch.rand(1)
        return {"loss": loss}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Manual(pl.LightningModule):
    """Manual optimisation, and in a subclass the way out of it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 3)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        raise AssertionError("a measurement must not run this")


class ManualWithLoss(Manual):
    def landscape_loss(self, batch: Any) -> torch.Tensor:
        x, y = batch
        return F.cross_entropy(self.net(x), y)


def number(value: torch.Tensor) -> float:
    """Return a scalar tensor's value."""
    return float(value.detach())


def autograd_gradient(model: nn.Module, loss: torch.Tensor) -> torch.Tensor:
    """Return the flat gradient in the trainable parameters, zero where the loss does not use one."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    parts = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([part.reshape(-1) for part in parts])
