"""The networks that comparisons are made on: a CNN of 100k and a transformer of 1.1M parameters, briefly trained."""

from __future__ import annotations

from collections.abc import Callable

import torch
from sklearn.datasets import load_digits
from torch import nn

Batches = list[tuple[torch.Tensor, torch.Tensor]]
Network = tuple[nn.Module, Callable[[torch.Tensor, torch.Tensor], torch.Tensor], Batches]


def cnn(n_batches: int = 1) -> Network:
    """Digits CNN of 96,762 parameters, batches of 256."""
    torch.manual_seed(0)
    digits = load_digits()
    order = torch.randperm(len(digits.target))
    x = torch.tensor(digits.images / 16.0, dtype=torch.float32)[:, None][order]
    y = torch.tensor(digits.target)[order]
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 80, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(320, 96), nn.ReLU(), nn.Linear(96, 10),
    )  # fmt: skip
    loss = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for _ in range(6):
        for xs, ys in zip(x[:1536].split(64), y[:1536].split(64), strict=True):
            optimizer.zero_grad()
            loss(model(xs), ys).backward()
            optimizer.step()
    return model.eval(), loss, [(x[i : i + 256], y[i : i + 256]) for i in range(0, 256 * n_batches, 256)]


class LanguageModel(nn.Module):
    """A causal transformer of 1,061,248 parameters over 256 symbols and 32 places; scores come flat."""

    def __init__(self) -> None:
        super().__init__()
        self.symbols = nn.Embedding(256, 128)
        self.places = nn.Parameter(torch.randn(32, 128) * 0.02)
        layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 5, enable_nested_tensor=False)
        self.scores = nn.Linear(128, 256)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Return scores of the next symbol, shape (examples · places, 256)."""
        mask = nn.Transformer.generate_square_subsequent_mask(text.shape[1])
        return self.scores(self.layers(self.symbols(text) + self.places, mask=mask)).flatten(0, 1)


def next_symbol_loss(scores: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of the next symbol."""
    return nn.functional.cross_entropy(scores, text.flatten())


def transformer(n_batches: int = 1) -> Network:
    """A language model on a random Markov chain, batches of 16 texts."""
    torch.manual_seed(0)
    chances = torch.softmax(3 * torch.randn(256, 256), 1)
    text = torch.randint(256, (512, 1))
    for _ in range(32):
        text = torch.cat([text, torch.multinomial(chances[text[:, -1]], 1)], 1)
    model = LanguageModel()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(60):
        some = text[torch.randint(512, (32,))]
        optimizer.zero_grad()
        next_symbol_loss(model(some[:, :-1]), some[:, 1:]).backward()
        optimizer.step()
    batches = [(part[:, :-1], part[:, 1:]) for part in text[: 16 * n_batches].split(16)]
    return model.eval(), next_symbol_loss, batches


NETWORKS: dict[str, Callable[[int], Network]] = {"cnn": cnn, "transformer": transformer}
