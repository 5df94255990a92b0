"""Networks whose permutation symmetries are found: each with its inputs, and the groups that it has."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn


class Block(nn.Module):
    """A residual block; with a 1 × 1 convolution on the way around where the width changes."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.around = nn.Identity()
        if before != after:
            self.around = nn.Sequential(nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after))

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.around(x))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        self.blocks = nn.Sequential(Block(4, 4), Block(4, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        out = self.blocks(self.stem(x))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(out, 1), 1))


class Flattening(nn.Module):
    """Pixels of a channel lie together after flattening, whichever way it is written."""

    def __init__(self, how: str):
        super().__init__()
        self.conv = nn.Conv2d(1, 5, 3)
        self.deep = nn.Conv2d(5, 10, 3, groups=5)
        self.hidden = nn.Linear(40, 7)
        self.head = nn.Linear(7, 3)
        self.how = how

    def forward(self, x):
        out = F.avg_pool2d(torch.tanh(self.deep(self.conv(x))), 2)
        if self.how == "view":
            out = out.view(out.size(0), -1)
        elif self.how == "reshape":
            out = out.reshape(x.shape[0], -1)
        else:
            out = out.flatten(1)
        return self.head(F.dropout(self.hidden(out).tanh(), 0.5, self.training))


class Normed(nn.Module):
    """Residual layers with layer normalisation, gating, a learned position and a slope."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.place = nn.Parameter(torch.randn(5, 6))
        self.norm = nn.LayerNorm(6)
        self.wide = nn.Linear(6, 16)
        self.back = nn.Linear(8, 6)
        self.last = nn.RMSNorm(6)
        self.scale = nn.Parameter(torch.randn(6))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.first(x) + self.place
        gate, value = self.wide(self.norm(x)).chunk(2, dim=-1)
        x = x + self.scale * self.back(F.silu(gate) * value) / x.shape[-1] ** 0.5
        return self.head(self.last(x).mean(dim=1))


class Language(nn.Module):
    """A transformer encoder over symbols, its embedding tied to the output."""

    def __init__(self, norm_first: bool):
        super().__init__()
        self.symbols = nn.Embedding(11, 8)
        self.places = nn.Parameter(torch.randn(1, 6, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 12, 0.1, "gelu", batch_first=True, norm_first=norm_first)
        self.layers = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(8), enable_nested_tensor=False)
        self.scores = nn.Linear(8, 11, bias=False)
        self.scores.weight = self.symbols.weight
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(6))

    def forward(self, text):
        x = self.layers(self.symbols(text) + self.places[:, : text.shape[1]], mask=self.mask)
        return self.scores(x).transpose(1, 2)


class Decoder(nn.Module):
    """Attention to another sequence of another width, through separate projections."""

    def __init__(self):
        super().__init__()
        self.memory = nn.Linear(4, 6)
        self.query = nn.Linear(4, 8)
        self.attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=6, batch_first=True, add_bias_kv=True)
        self.layer = nn.TransformerDecoderLayer(8, 2, 10, activation="gelu", batch_first=True)
        self.lift = nn.Linear(6, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        memory = torch.tanh(self.memory(x))
        mixed, _ = self.attention(self.query(x), memory, memory)
        return self.head(self.layer(mixed, self.lift(memory))[:, -1])


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **settings):
        super().__init__()
        self.rnn = kind(4, 5, batch_first=True, **settings)
        self.head = nn.Linear(10 if settings.get("bidirectional") else 5, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


class Dense(nn.Module):
    """Concatenated branches, and a transposed convolution back up."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(1, 3, 3, padding=1)
        self.two = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.GroupNorm(1, 7)
        self.up = nn.ConvTranspose2d(7, 5, 2, stride=2)
        self.slope = nn.PReLU(5)
        self.out = nn.Conv2d(5, 2, 1)

    def forward(self, x):
        one = torch.relu(self.one(x))
        both = torch.cat([one, torch.relu(self.two(one))], dim=1)
        return self.out(self.slope(self.up(self.norm(both))))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3))


IMAGES, VECTORS, SEQUENCES = (40, 1, 8, 8), (40, 4), (40, 5, 4)
LANGUAGE = {"symbols": 8} | {
    f"layers.layers.{layer}.{name}": size
    for layer in (0, 1)
    for name, size in (("self_attn.heads", 2), ("linear1", 12))
}
# Makes the network; the shape of its inputs; the groups with their numbers of units.
NETWORKS = {
    "mlp": (mlp, VECTORS, {"0": 8, "3": 8}),
    "resnet": (
        ResNet,
        IMAGES,
        {"stem.0": 4, "blocks.0.conv1": 4, "blocks.1.conv1": 6, "blocks.1.conv2": 6},
    ),
    "view": (lambda: Flattening("view"), IMAGES, {"conv": 5, "hidden": 7}),
    "reshape": (lambda: Flattening("reshape"), IMAGES, {"conv": 5, "hidden": 7}),
    "flatten": (lambda: Flattening("flatten"), IMAGES, {"conv": 5, "hidden": 7}),
    "normed": (Normed, SEQUENCES, {"first": 6, "wide[0]": 8}),
    "pre-norm transformer": (lambda: Language(True), None, LANGUAGE),
    "post-norm transformer": (lambda: Language(False), None, LANGUAGE),
    "decoder": (
        Decoder,
        SEQUENCES,
        {"memory": 6, "query": 8, "attention.heads": 2, "attention": 8, "layer.self_attn.heads": 2}
        | {"layer.multihead_attn.heads": 2, "layer.linear1": 10},
    ),
    "lstm": (lambda: Recurrent(nn.LSTM, num_layers=2), SEQUENCES, {"rnn.l0": 5, "rnn.l1": 5}),
    "gru": (
        lambda: Recurrent(nn.GRU, bidirectional=True),
        SEQUENCES,
        {"rnn.l0": 5, "rnn.l0_reverse": 5},
    ),
    "dense": (Dense, IMAGES, {"one": 3, "two": 4, "up": 5}),
}  # fmt: skip


def make(name: str, seed: int = 0) -> tuple[nn.Module, torch.Tensor]:
    """A network in float64 with nothing left at zero, and inputs for it."""
    build, shape, _ = NETWORKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build().double()
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
        torch.manual_seed(7)
        x = torch.randint(11, (40, 6)) if shape is None else torch.randn(shape, dtype=torch.float64)
    return model, x
