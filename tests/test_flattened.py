"""Flattened tensors beside whole ones: cut in runs where evaluations agree, left alone where they do not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from landscape import MeasurementError, Objective

F64 = torch.float64


class _Words(nn.Module):
    """Scores of the next word at each place of a text, all places in one dimension."""

    def __init__(self, time_first: bool, untrained: bool):
        super().__init__()
        torch.manual_seed(3)
        self.words, self.scores = nn.Embedding(9, 4), nn.Linear(4, 9)
        self.time_first = time_first
        if untrained:  # all words have the same loss
            nn.init.zeros_(self.scores.weight)
            nn.init.zeros_(self.scores.bias)

    def forward(self, text):
        scores = self.scores(self.words(text).cumsum(1))
        return (scores.transpose(0, 1) if self.time_first else scores).reshape(-1, 9)


def _texts() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(4)
    return [
        (torch.randint(9, (n, 5), generator=generator), torch.randint(9, (5 * n,), generator=generator))
        for n in (4, 3, 1)
    ]


def _by_hand(scores, words):
    return F.cross_entropy(scores, words, reduction="none").sum() / len(words)


@pytest.mark.parametrize("untrained", [False, True])
@pytest.mark.parametrize("loss_fn", [F.cross_entropy, _by_hand])
def test_flattened_targets_are_cut_with_their_texts(loss_fn, untrained):
    network = _Words(False, untrained).double()
    objective = Objective(network, loss_fn, _texts())
    reference = sum(F.cross_entropy(network(x), y, reduction="sum") for x, y in _texts()) / 40
    assert float(objective.loss()) == pytest.approx(reference.item(), rel=1e-12)
    assert objective.n_examples == 8
    pieces = objective.split(1)
    assert len(pieces) == 8
    assert sum(float(piece.loss()) for piece in pieces) / 8 == pytest.approx(reference.item(), rel=1e-12)


@pytest.mark.parametrize("untrained", [False, True])
def test_targets_that_are_flattened_another_way_are_not_cut(untrained):
    network = _Words(True, untrained).double()
    objective = Objective(network, F.cross_entropy, _texts())
    reference = sum(F.cross_entropy(network(x), y, reduction="sum") for x, y in _texts()) / 40
    assert float(objective.loss()) == pytest.approx(reference.item(), rel=1e-12)
    assert "not checked" in objective.describe()["weighting_evidence"]
    with pytest.raises(MeasurementError, match="cannot be cut"):
        objective.split(1)


def test_a_vector_beside_the_examples_is_no_flattened_tensor():
    weights, generator = torch.linspace(1, 2, 10, dtype=F64), torch.Generator().manual_seed(2)

    def loss(batch, _):
        return ((batch["x"] @ weights.reshape(5, 2) - batch["y"]) ** 2).mean() * batch["weights"].sum()

    class Passes(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones((), dtype=F64))

        def forward(self, batch):
            return {name: self.scale * value for name, value in batch.items()}

    batches = [
        {
            "x": torch.randn(5, 5, generator=generator, dtype=F64),
            "y": torch.rand(5, 2, generator=generator, dtype=F64),
            "weights": weights,
        }
    ]
    objective = Objective(Passes(), loss, batches)
    assert objective.n_examples == 5
    assert float(objective.loss()) == pytest.approx(float(loss(batches[0], None)), rel=1e-12)
    assert objective.weighting == "examples"
