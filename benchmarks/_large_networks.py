"""Large networks: a ResNet-18 for images of 32 × 32, and language models of GPT-2's shape up to 124M parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

Batches = list[tuple[torch.Tensor, torch.Tensor]]
Network = tuple[nn.Module, nn.Module, Batches]
# Symbols, places, width, layers and heads of language models by number of parameters, and the texts they learn.
SIZES = {"1e6": (1600, 64, 128, 4, 4), "3e7": (21000, 64, 512, 6, 8), "1.2e8": (50257, 1024, 768, 12, 12)}
TEXTS, TOKENS = 8, 64


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(after) for _ in range(2))
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if stride > 1 or before != after else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the activations, shape (batch, after, height / stride, width / stride)."""
        inner = self.norms[1](self.second(F.relu(self.norms[0](self.first(x)))))
        return F.relu(inner + (x if self.shortcut is None else self.shortcut(x)))


def resnet(device: torch.device, quick: bool) -> Network:
    """ResNet-18 with 11.2M parameters on 4 batches of 128 random images; narrow, on a few small images if quick."""
    torch.manual_seed(0)
    width, size, side = (2, 4, 8) if quick else (64, 128, 32)
    widths = [width * 2**stage for stage in range(4)]
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    for stage, after in enumerate(widths):
        layers += [Block(widths[max(stage - 1, 0)], after, 1 + (stage > 0)), Block(after, after, 1)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))
    batches = [(torch.randn(size, 3, side, side), torch.randint(10, (size,))) for _ in range(2 if quick else 4)]
    return _ready(model, batches, device)


class Layer(nn.Module):
    """Causal attention and a perceptron, each behind a normalisation."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.mixed, self.projected = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the activations, shape (batch, places, width)."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.mixed(self.norms[0](x)).chunk(3, -1)
        )
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.projected(seen)
        return x + self.perceptron(self.norms[1](x))


class Gpt(nn.Module):
    """A causal language model whose scores share the table of the symbols."""

    def __init__(self, symbols: int, places: int, width: int, layers: int, heads: int):
        super().__init__()
        self.symbols, self.places = nn.Embedding(symbols, width), nn.Embedding(places, width)
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(layers)), nn.LayerNorm(width))
        for table in (self.symbols, self.places):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Return scores, shape (batch, places, symbols)."""
        places = torch.arange(text.shape[1], device=text.device)
        return F.linear(self.layers(self.symbols(text) + self.places(places)), self.symbols.weight)


def gpt(device: torch.device, quick: bool) -> Network:
    """124M parameters (GPT-2's shape) on 2 batches of 8 random texts of 256 symbols; 2k on short texts if quick."""
    torch.manual_seed(0)
    model = Gpt(32, 16, 8, 2, 2) if quick else Gpt(*SIZES["1.2e8"])
    size, length, symbols = (4, 8, 32) if quick else (8, 256, 50257)
    text = [torch.randint(symbols, (size, length + 1)) for _ in range(2)]
    return _ready(model, [(part[:, :-1], part[:, 1:]) for part in text], device)


class PlaceLoss(nn.CrossEntropyLoss):
    """The cross-entropy of scores with the classes last, over all places."""

    def forward(self, scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the mean over all places."""
        return super().forward(scores.flatten(0, -2), target.flatten())


def _ready(model: nn.Module, batches: Batches, device: torch.device) -> Network:
    """Move to the device and take some steps of Adam, so that the spectrum is a trained network's."""
    model, loss = model.to(device), PlaceLoss()
    batches = [(x.to(device), y.to(device)) for x, y in batches]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for x, y in batches * 2:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    model.zero_grad(set_to_none=True)
    return model.eval(), loss, batches


NETWORKS: dict[str, Callable[[torch.device, bool], Network]] = {"ResNet-18": resnet, "GPT-2, 124M": gpt}
