from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from landscape import Objective
from landscape._embeddings import embedding, embedding_bag
from landscape.curvature import hessian

WEIGHT = torch.linspace(-1, 1, 40, dtype=torch.float64).reshape(10, 4).sin()
WORDS = torch.tensor([1, 4, 4, 9, 0, 2, 3])
SCALES = torch.linspace(0.5, 2, 7, dtype=torch.float64)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", [None, 4, -1])
@pytest.mark.parametrize("last", [False, True])
def test_bags_with_offsets_are_those_of_torch(mode, padding, last):
    offsets = torch.tensor([0, 2, 2, 5] + ([7] if last else []))
    scales = {"per_sample_weights": SCALES} if mode == "sum" else {}
    options = {"mode": mode, "padding_idx": padding, "include_last_offset": last, **scales}
    weights = [WEIGHT.clone().requires_grad_() for _ in range(2)]
    ours, theirs = (
        bag(WORDS, weight, offsets, **options)
        for bag, weight in zip((embedding_bag, F.embedding_bag), weights, strict=True)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=1e-15)
    gradients = [
        torch.autograd.grad(out.sin().sum(), weight) for out, weight in zip((ours, theirs), weights, strict=True)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_equal_length_are_those_of_torch(mode):
    words = torch.tensor([[1, 4, 4], [9, 0, 2]])
    torch.testing.assert_close(embedding_bag(words, WEIGHT, mode=mode), F.embedding_bag(words, WEIGHT, mode=mode))


@pytest.mark.parametrize("norm_type", [1.0, 2.0])
def test_long_rows_are_shortened_as_by_torch_and_the_weights_stay(norm_type):
    weight = WEIGHT.clone()
    ours = embedding(WORDS, weight, max_norm=0.8, norm_type=norm_type)
    assert torch.equal(weight, WEIGHT)
    theirs = F.embedding(WORDS, weight.clone(), max_norm=0.8, norm_type=norm_type)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(ours, WEIGHT[WORDS])


class Reader(nn.Module):
    """An embedding, reduced to one vector, before a linear head."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(4, 3)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        found = self.layer(words)
        return self.head(torch.tanh(found.mean(1) if found.ndim == 3 else found))


@pytest.mark.parametrize(
    "layer",
    [
        nn.EmbeddingBag(10, 4),
        nn.EmbeddingBag(10, 4, mode="sum"),
        nn.EmbeddingBag(10, 4, mode="max"),
        nn.EmbeddingBag(10, 4, max_norm=1.0),
        nn.Embedding(10, 4, max_norm=1.0),
        nn.Embedding(10, 4, scale_grad_by_freq=True),
        nn.Embedding(10, 4, sparse=True),
    ],
    ids=["bag", "sum", "max", "bag max_norm", "max_norm", "frequency", "sparse"],
)
def test_loss_gradient_and_hessian_are_those_of_one_function(layer):
    model = Reader(copy.deepcopy(layer)).double()
    before = copy.deepcopy(model.state_dict())
    words, labels = torch.randint(10, (12, 5)), torch.arange(12) % 3
    objective = Objective(model, nn.CrossEntropyLoss(), [(words, labels)])
    point = objective.vector()
    operator = hessian(objective)
    assert "differences" not in operator.strategy
    identity = torch.eye(len(point), dtype=torch.float64)
    step = 1e-5
    slopes = [(objective.loss(point + step * e) - objective.loss(point - step * e)) / (2 * step) for e in identity]
    torch.testing.assert_close(objective.gradient(), torch.stack(slopes), rtol=1e-7, atol=1e-9)
    rows = [
        (objective.gradient(point + step * e) - objective.gradient(point - step * e)) / (2 * step) for e in identity
    ]
    torch.testing.assert_close(operator @ identity, torch.stack(rows), rtol=1e-7, atol=1e-9)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(point, objective.vector())
    assert F.embedding is not embedding
