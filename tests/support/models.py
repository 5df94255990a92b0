"""Kinds that differ in their network: layers, second derivatives, and where the parameters are held."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from landscape_test_support.bare import own_copy
from landscape_test_support.kind import Kind, Learns, network, registered
from landscape_test_support.losses import Classifier, Words, labelled, masked
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint


class Normalised(Classifier):
    """Batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))


class Dropped(Classifier):
    """Dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 3))


class TiedWords(Words):
    """The embedding is the output layer, too."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        given, _ = batch
        return F.cross_entropy(self.scores(given[:, :-1]).transpose(1, 2), given[:, 1:])


class Adapted(Classifier):
    """LoRA: a frozen layer with a trained low-rank update."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network(width=8).requires_grad_(False)
        self.down, self.up = nn.Linear(8, 2, bias=False), nn.Linear(2, 3, bias=False)
        nn.init.normal_(self.up.weight, std=0.1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        hidden = self.net[1](self.net[0](x))
        return F.cross_entropy(self.net[2](hidden) + self.up(self.down(hidden)), y)


class WeightNorm(Classifier):
    """torch's weight_norm, whose fused kernel has a wrong second derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(weight_norm(nn.Linear(4, 5)), nn.Tanh(), weight_norm(nn.Linear(5, 3)))


class Bags(Learns):
    """Sums of embeddings, which torch differentiates once only."""

    def __init__(self) -> None:
        super().__init__()
        self.bags, self.head = nn.EmbeddingBag(7, 4, mode="sum"), nn.Linear(4, 3)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        given, _ = batch
        return F.cross_entropy(self.head(torch.tanh(self.bags(given))), given.sum(dim=1) % 3)


class Limited(Bags):
    """An embedding that renormalises its rows in place (max_norm)."""

    def __init__(self) -> None:
        super().__init__()
        self.bags = nn.Embedding(7, 4, max_norm=1.0)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        given, _ = batch
        return F.cross_entropy(self.head(torch.tanh(self.bags(given).sum(dim=1))), given.sum(dim=1) % 3)


class Renormalised(nn.Module):
    """The same function of the weights as an embedding with max_norm=1, differentiable where torch's is not."""

    def __init__(self, weight: nn.Parameter):
        super().__init__()
        self.weight = weight

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        norms = self.weight.norm(dim=1, keepdim=True)
        return F.embedding(given, torch.where(norms > 1, self.weight / (norms + 1e-7), self.weight))


def _renormalised_copy(module: Any) -> Any:
    copied = own_copy(module)
    copied.bags = Renormalised(copied.bags.weight)
    return copied


class Scripted(Classifier):
    """A submodule compiled by torch.jit.script."""

    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.net = torch.jit.script(network())


def _unscripted_copy(module: Any) -> Any:
    copied = Classifier().to(next(module.parameters()).dtype)
    copied.load_state_dict(module.state_dict())
    return copied


class Checkpointed(Classifier):
    """Activation checkpointing without re-entry."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        return F.cross_entropy(checkpoint(self.net, x, use_reentrant=False), y)


class PlainList(Classifier):
    """A parameter that stands in a plain list, where torch does not register it."""

    def __init__(self) -> None:
        super().__init__()
        self.scales = [nn.Parameter(torch.tensor([1.0, 0.8, 1.2]))]

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        return F.cross_entropy(self.net(x) * self.scales[0], y)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([*self.parameters(), *self.scales], lr=self.lr, momentum=0.9)


class OwnDecay(Classifier):
    """Registered parameters that the step reads from a plain list, for a penalty of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.decayed = [self.net[0].weight, self.net[2].weight]

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        return F.cross_entropy(self.net(x), y) + 0.05 * sum(weight.pow(2).sum() for weight in self.decayed)


class Attends(Learns):
    """Scaled dot-product attention over a padded sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.mix, self.head = nn.Embedding(7, 4), nn.Linear(4, 12), nn.Linear(4, 3)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        given, labels = batch
        query, key, value = self.mix(self.embedding(given)).unsqueeze(1).chunk(3, dim=-1)
        mask = (labels != -100)[:, None, None, :]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask).squeeze(1)
        return F.cross_entropy(self.head(mixed.mean(dim=1)), given.sum(dim=1) % 3)


class _Once(torch.autograd.Function):
    """A softplus whose backward cannot be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return F.softplus(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * torch.sigmoid(ctx.saved_tensors[0])


class _Wrong(_Once):
    """The same, whose backward treats its own derivative as a constant: the second derivative is wrong."""

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * torch.sigmoid(ctx.saved_tensors[0].detach())


class OnceDifferentiable(Classifier):
    """An own autograd Function without a second derivative."""

    function: Any = _Once

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        return F.cross_entropy(self.net[2](self.function.apply(self.net[0](x))), y)


class WronglyDifferentiable(OnceDifferentiable):
    """An own autograd Function with a wrong second derivative."""

    function = _Wrong


class Lazy(Classifier):
    """Layers that learn their shape from the first batch."""

    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.net = nn.Sequential(nn.LazyLinear(5), nn.Tanh(), nn.LazyLinear(3))


class Halved(Classifier):
    """Weights cast by hand to bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network().bfloat16()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        return F.cross_entropy(self.net(x.to(self.net[0].weight.dtype)).to(x.dtype), y)


def _with_list(module: Any) -> list[nn.Parameter]:
    return [*registered(module), *module.scales]


KINDS = [
    Kind("BatchNorm", "batch normalisation", Normalised, labelled),
    Kind("dropout", "dropout", Dropped, labelled),
    Kind("tied weights", "the embedding is the output layer", TiedWords, masked),
    Kind("LoRA", "a frozen base with a low-rank update", Adapted, labelled),
    Kind("attention", "scaled dot-product attention with a mask", Attends, masked),
    Kind("checkpointing", "activation checkpointing, `use_reentrant=False`", Checkpointed, labelled),
    Kind("weight_norm", "`torch.nn.utils.parametrizations.weight_norm`", WeightNorm, labelled),
    Kind("EmbeddingBag", "embeddings summed by `nn.EmbeddingBag`", Bags, masked),
    Kind("max_norm", "`nn.Embedding(max_norm=1.0)`", Limited, masked, copied=_renormalised_copy),
    Kind(
        "scripted",
        "a submodule made by `torch.jit.script`",
        Scripted,
        labelled,
        copied=_unscripted_copy,
        warms=True,  # torch compiles a script anew for what it receives
        leaves_out=("bf16-mixed",),  # there two trainings of one process differ without any callback, too
    ),
    Kind("plain list", "a trained parameter in a plain list", PlainList, labelled, parameters=_with_list),
    Kind("own penalty", "a penalty that reads the weights from a plain list", OwnDecay, labelled),
    Kind("no second derivative", "an own `autograd.Function`, differentiable once", OnceDifferentiable, labelled),
    Kind("wrong second derivative", "an own `autograd.Function` with a wrong one", WronglyDifferentiable, labelled),
    Kind("lazy", "`nn.LazyLinear`", Lazy, labelled),
    Kind("bfloat16 weights", "weights cast by hand to bfloat16", Halved, labelled, leaves_out=("float64",)),
]
