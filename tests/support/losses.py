"""Kinds that differ in their loss: what it divides by, what it adds up, and whether its gradient is its own."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from landscape_test_support.kind import Kind, Learns, loader, network, points, tokens
from torch import nn
from torch.utils.data import TensorDataset


def labelled() -> Any:
    """Return a loader of inputs and labels."""
    return loader(TensorDataset(*points()))


class Classifier(Learns):
    """Cross-entropy, mean over examples."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        return F.cross_entropy(self.net(x), y)


class Regression(Classifier):
    """Mean squared error against the inputs' own linear map."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, _ = batch
        return F.mse_loss(self.net(x), x[:, :3] - 0.5 * x[:, 1:])


class SumOverN(Classifier):
    """A sum that the step divides by the number of examples."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        return F.cross_entropy(self.net(x), y, reduction="sum") / len(x)


class LoggedSum(Classifier):
    """Returns a mean, and logs a sum beside it."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        scores = self.net(x)
        self.log("total", F.cross_entropy(scores, y, reduction="sum"))
        return F.cross_entropy(scores, y)


class ClassWeights(Classifier):
    """Cross-entropy with class weights, divided by the sum of the weights in a batch."""

    weights = torch.tensor([0.5, 1.0, 3.0])

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        scores = self.net(x)
        return F.cross_entropy(scores, y, weight=self.weights.to(scores))


class Distilled(Classifier):
    """A mean cross-entropy and a divergence from a teacher, summed and divided by n ("batchmean" by hand)."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = network().requires_grad_(False)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        scores, soft = self.net(x), F.softmax(self.teacher(x) / 2, dim=1)
        divergence = F.kl_div(F.log_softmax(scores / 2, dim=1), soft, reduction="sum") * 4 / len(x)
        return 0.5 * F.cross_entropy(scores, y) + 0.5 * divergence


class Words(Learns):
    """Tokens to scores: an embedding, a hidden layer, an output layer tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.hidden = nn.Linear(4, 4)

    def scores(self, given: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.hidden(self.embedding(given))) @ self.embedding.weight.T


class MaskedWords(Words):
    """A masked language model: mean over the masked positions of a batch."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        given, labels = batch
        return F.cross_entropy(self.scores(given).flatten(0, 1), labels.flatten(), ignore_index=-100)


class NextWords(Words):
    """A causal language model that divides a sum by the number of its targets."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        given, _ = batch
        scores, targets = self.scores(given[:, :-1]).flatten(0, 1), given[:, 1:].flatten()
        return F.cross_entropy(scores, targets, reduction="sum") / len(targets)


class OwnMask(Words):
    """A mean over unmasked positions written by hand."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        given, labels = batch
        mask = (labels != -100).flatten()
        each = F.cross_entropy(self.scores(given).flatten(0, 1), labels.clamp_min(0).flatten(), reduction="none")
        return (each * mask).sum() / mask.sum()


def masked() -> Any:
    """Return a loader of tokens and labels; labels of unmasked positions are -100."""
    given = tokens()
    hidden = torch.rand(given.shape, generator=torch.Generator().manual_seed(2)) < 0.4
    hidden[:, 0] = True
    hidden[:10, 1:] = False
    return loader(TensorDataset(given.masked_fill(hidden, 0), given.masked_fill(~hidden, -100)))


class Autoencoder(Learns):
    """A VAE: reconstruction and divergence summed, then divided by the number of examples."""

    lr = 0.02

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 4), nn.Linear(2, 4)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, _ = batch
        mean, logvar = self.encoder(x).chunk(2, dim=1)
        code = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
        reconstruction = F.mse_loss(self.decoder(code), x, reduction="sum")
        divergence = -0.5 * torch.sum(1 + logvar - mean**2 - logvar.exp())
        return (reconstruction + divergence) / len(x)


class Contrastive(Learns):
    """SimCLR: NT-Xent between two views; each example's loss depends on the rest of its batch."""

    lr = 0.02

    def __init__(self) -> None:
        super().__init__()
        self.net = network(outputs=3)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        first, second = batch
        z = F.normalize(self.net(torch.cat([first, second])), dim=1)
        similar = (z @ z.T / 0.5).masked_fill(torch.eye(len(z), dtype=torch.bool), -1e4)
        return F.cross_entropy(similar, torch.arange(len(z)).roll(len(first)))


def views() -> Any:
    """Return a loader of two views of each example."""
    x, _ = points()
    noise = torch.randn(2, *x.shape, generator=torch.Generator().manual_seed(3))
    return loader(TensorDataset(x + 0.2 * noise[0], x + 0.2 * noise[1]))


class Quantised(Classifier):
    """VQ-VAE: a straight-through estimator around the nearest code."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.codes, self.decoder = nn.Linear(4, 2), nn.Embedding(5, 2), nn.Linear(2, 4)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, _ = batch
        z = self.encoder(x)
        code = self.codes(torch.cdist(z, self.codes.weight).argmin(dim=1))
        through = z + (code - z).detach()
        return F.mse_loss(self.decoder(through), x) + F.mse_loss(code, z.detach()) + 0.25 * F.mse_loss(z, code.detach())


class Siamese(Learns):
    """SimSiam: a stop-gradient on the other view."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.predictor = network(outputs=3), nn.Linear(3, 3)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        one, two = (self.net(view) for view in batch)
        likeness = F.cosine_similarity(self.predictor(one), two.detach()) + F.cosine_similarity(
            self.predictor(two), one.detach()
        )
        return -likeness.mean() / 2


class Physics(Learns):
    """A physics-informed network: its loss differentiates the network by the input (u' = -u, u(0) = 1)."""

    lr = 0.02

    def __init__(self) -> None:
        super().__init__()
        self.net = network(outputs=1, inputs=1, width=6)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        (t,) = batch
        t = t.clone().requires_grad_()
        u = self.net(t)
        (slope,) = torch.autograd.grad(u.sum(), t, create_graph=True)
        start = self.net(torch.zeros_like(t[:1]))
        return (slope + u).pow(2).mean() + (start - 1).pow(2).mean()


def times() -> Any:
    """Return a loader of collocation points."""
    return loader(TensorDataset(torch.rand(32, 1, generator=torch.Generator().manual_seed(4))))


def _counted(batch: Any) -> float:
    return float((batch[1] != -100).sum())


def _targets(batch: Any) -> float:
    return float(batch[0][:, 1:].numel())


def _class_weights(batch: Any) -> float:
    return float(ClassWeights.weights[batch[1]].sum())


KINDS = [
    Kind("classifier", "cross-entropy, mean over examples", Classifier, labelled),
    Kind("regression", "mean squared error", Regression, labelled),
    Kind("sum over n", '`reduction="sum"`, divided by the step', SumOverN, labelled),
    Kind("logged sum", "returns a mean and logs a sum", LoggedSum, labelled),
    Kind("class weights", "cross-entropy with class weights", ClassWeights, labelled, share=_class_weights),
    Kind("distillation", "cross-entropy and a divergence from a teacher", Distilled, labelled),
    Kind("masked LM", "mean over masked positions, `ignore_index`", MaskedWords, masked, share=_counted),
    Kind("causal LM", "sum over targets, divided by their number", NextWords, masked, share=_targets),
    Kind("own mask", "mean over unmasked positions, written by hand", OwnMask, masked, share=_counted),
    Kind("VAE", "sums divided by n; `noise_seed=0`", Autoencoder, labelled, common={"noise_seed": 0}),
    Kind("VAE, no noise_seed", "the same without a seed of its noise", Autoencoder, labelled, only=("eval",)),
    Kind("SimCLR", "NT-Xent; an example's loss depends on its batch", Contrastive, views, share=lambda batch: 1.0),
    Kind("VQ-VAE", "a straight-through estimator", Quantised, labelled),
    Kind("SimSiam", "a stop-gradient", Siamese, views),
    Kind("physics-informed", "the loss differentiates by the input", Physics, times),
]
