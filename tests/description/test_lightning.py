"""LightningModules: costs are read off their own step, trainings are those of their own optimizers."""

from __future__ import annotations

import logging
import math

import lightning.pytorch
import numpy as np
import pytest
import pytorch_lightning
import torch
from torch import nn

from landscape import MeasurementError
from landscape.description import AdamTraining, LightningTraining, prequential
from landscape.description._labels import model_labels

NAMESPACES = [pytorch_lightning, lightning.pytorch]


def points(n: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(1))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_costs_are_those_of_the_scores_without_label_smoothing(helpers, namespace) -> None:
    kind = helpers.lightning_module(namespace.LightningModule)
    found = prequential(kind, points(), helpers.untrained, blocks=3)
    plain = prequential(lambda: kind().net, points(), helpers.untrained, blocks=3)
    np.testing.assert_allclose(found.block_bits, plain.block_bits, rtol=1e-12)
    assert found.classes == 3


def test_binary_labels_take_a_bit_each_before_anything_is_known(helpers) -> None:
    kind = helpers.lightning_module(pytorch_lightning.LightningModule, "binary")
    x, y = points()
    found = prequential(kind, (x, y), helpers.untrained, blocks=2, shuffle=False)
    assert found.block_bits[0] == 48
    module = kind()
    p = module(x)[:, 0].detach().double().sigmoid()
    expected = -torch.where(y > 0, p, 1 - p).log2()
    labels = model_labels(module, (x, y))
    assert labels.bits() == pytest.approx(float(expected.sum()), rel=1e-6)


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_training_is_by_the_modules_own_optimizer(helpers, namespace) -> None:
    kind = helpers.lightning_module(namespace.LightningModule)
    made = []

    def make():
        made.append(kind())
        return made[-1]

    levels = {name: logging.getLogger(name).level for name in ("pytorch_lightning", "lightning.pytorch")}
    before = torch.get_rng_state()
    settings = {"batch_size": 16, "steps": 60, "every": 4, "patience": 4}
    found = prequential(make, points(), LightningTraining(**settings), blocks=4)
    assert torch.equal(before, torch.get_rng_state())
    assert levels == {name: logging.getLogger(name).level for name in levels}
    assert len(made) == 4
    # Batches of at most 16 from what comes before the held-out tenth of 12, 24 and 48 examples.
    assert [max(module.seen) for module in made[1:]] == [11, 16, 16]
    assert found.ratio < 0.75
    again = prequential(kind, points(), LightningTraining(**settings), blocks=4)
    np.testing.assert_array_equal(found.block_bits, again.block_bits)


def test_the_trainer_stops_and_goes_back_to_the_best_weights(helpers) -> None:
    kind = helpers.lightning_module(pytorch_lightning.LightningModule)
    module = kind()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    x = torch.ones(40, 2)
    y = torch.arange(40) // 36  # the held-out tail contradicts what comes before it
    LightningTraining(every=2, patience=3, batch_size=36)(module, (x, y))
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert module.seen == [36] * 6
    LightningTraining(steps=5, every=2, batch_size=4)(module, (x, y))
    assert module.seen[6:] == [4] * 5
    LightningTraining()(module, (x[:1], y[:1]))
    assert len(module.seen) == 11


@pytest.mark.parametrize(
    ("step", "sentence"),
    [("by_hand", "called no loss function of torch"), ("two", "called cross_entropy, cross_entropy")],
)
def test_costs_that_cannot_be_seen_are_asked_for(helpers, step: str, sentence: str) -> None:
    kind = helpers.lightning_module(pytorch_lightning.LightningModule, step)
    with pytest.raises(MeasurementError, match=sentence):
        prequential(kind, points(), helpers.untrained)

    def nats(module, batch):
        return nn.functional.cross_entropy(module(batch[0]), batch[1], reduction="none")

    found = prequential(kind, points(), helpers.untrained, blocks=2, nats=nats, classes=3)
    plain = prequential(lambda: kind().net, points(), helpers.untrained, blocks=2)
    np.testing.assert_allclose(found.block_bits, plain.block_bits, rtol=1e-6)


def test_a_training_for_lightning_says_what_it_is_for() -> None:
    with pytest.raises(MeasurementError, match="Linear is no LightningModule; give AdamTraining"):
        prequential(lambda: nn.Linear(2, 3), points(), LightningTraining())
    with pytest.raises(ValueError, match="batch_size is 0"):
        LightningTraining(batch_size=0)
    assert math.isfinite(prequential(lambda: nn.Linear(2, 3), points(8), AdamTraining(steps=1)).bits)


def test_labels_within_vmap_cannot_be_read(helpers) -> None:
    class Mapped(helpers.lightning_module(pytorch_lightning.LightningModule)):  # type: ignore[misc]
        def training_step(self, batch, index):
            x, y = batch
            return torch.vmap(torch.nn.functional.cross_entropy)(self.net(x), y).mean()

    with pytest.raises(MeasurementError, match=r"called cross_entropy within torch.vmap; expected"):
        model_labels(Mapped(), points())
