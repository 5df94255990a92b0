"""The objective of a LightningModule's own step, and what is refused, each with a way out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from landscape import MeasurementError, Objective
from landscape._weighing import Watch

F64 = torch.float64


# ---------------------------------------------------------------- Lightning


def test_training_step_is_the_loss(cases):
    module = cases.Eventful()
    x, y = cases.data(30)
    objective = Objective.from_lightning(module, zip(x.split(20), y.split(20), strict=True))
    expected = cases.number(F.cross_entropy(module.eval().net(x), y))
    assert float(objective.loss()) == pytest.approx(expected, rel=1e-6)
    assert 0 <= objective.evaluate().error <= 1
    assert module.calls == 0
    assert module.training_step_outputs == []
    assert module.history == {"loss": []}
    assert float(module.running) == 0
    assert module.accuracy._update_count == 0
    assert "training_step" in objective.describe()["loss"]


def test_landscape_loss_replaces_the_training_step(cases):
    module = cases.ManualWithLoss()
    x, y = cases.data()
    objective = Objective.from_lightning(module, [(x, y)])
    assert float(objective.loss()) == pytest.approx(cases.number(F.cross_entropy(module.net(x), y)), rel=1e-6)


def test_description_is_plain(cases):
    objective = Objective(cases.mlp(), nn.CrossEntropyLoss(), [cases.data()])
    described = objective.describe()
    assert described["n_parameters"] == objective.n_parameters == 139
    assert described["n_examples"] == 40
    assert all(isinstance(value, (str, int, float, type(None))) for value in described.values())
    assert "P=139" in repr(objective)


# ---------------------------------------------------------------- refusals, each a sentence with a way out


class _DroppingOut(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 3)

    def forward(self, x):
        return F.dropout(self.net(x), 0.5)


@pytest.mark.parametrize("source", ["torch", "numpy"])
def test_random_loss_is_refused_unless_its_noise_is_fixed(cases, source):
    x, y = cases.data()
    model = _DroppingOut() if source == "torch" else cases.mlp()

    def loss_fn(scores, y):
        return F.cross_entropy(scores, y) * (1 if source == "torch" else 1 + np.random.rand())

    with pytest.raises(MeasurementError, match=r"not a function of the parameters.*noise_seed=0"):
        Objective(model, loss_fn, [(x, y)])
    objective = Objective(model, loss_fn, [(x, y)], noise_seed=0)
    assert float(objective.loss()) == float(objective.loss()) == float(objective.loss_and_gradient()[0])


def refusal(name, cases):
    x, y = cases.data()
    model, cross = cases.mlp(), nn.CrossEntropyLoss()
    if name == "manual":
        return Objective.from_lightning(cases.Manual(), [(x, y)])
    if name == "no step":
        return Objective.from_lightning(type("Bare", (pl.LightningModule,), {})(), [(x, y)])
    if name == "frozen":
        return Objective(model.requires_grad_(False), cross, [(x, y)])
    if name == "lazy":
        return Objective(nn.Sequential(nn.LazyLinear(3)), cross, [(x, y)])
    if name == "complex":
        return Objective(nn.Linear(4, 3, dtype=torch.complex64), cross, [(x, y)])
    if name == "non-scalar":
        return Objective(model, nn.CrossEntropyLoss(reduction="none"), [(x, y)])
    if name == "none":
        return Objective(model, lambda scores, y: None, [(x, y)])
    if name == "number":
        return Objective(model, lambda scores, y: 1.0, [(x, y)])
    if name == "no batches":
        return Objective(model, cross, [])
    if name == "no examples":
        return Objective(model, cross, [(x[:0], y[:0])])
    if name == "no tensor":
        return Objective(model, cross, [("a", "b")])
    if name == "ignored":
        return Objective(model, cross, [(x, torch.full_like(y, -100))])
    if name == "detached":
        return Objective(model, lambda scores, y: F.cross_entropy(scores.detach(), y), [(x, y)]).gradient()
    raise AssertionError(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("manual", r"manual optimisation.*Add a method landscape_loss"),
        ("no step", r"no training_step; give a LightningModule"),
        ("frozen", r"no trainable parameter.*unfreeze some"),
        ("lazy", r"no shape yet; run one batch"),
        ("complex", r"is complex; keep its real and imaginary parts"),
        ("non-scalar", r"shape \(40,\), not a scalar; reduce it to its mean"),
        ("none", r"returned None"),
        ("number", r"returned float; a scalar tensor"),
        ("no batches", r"no batches to measure; give at least one"),
        ("no examples", r"hold no examples; give at least one"),
        ("no tensor", r"no tensor with a batch dimension.*give batches"),
        ("ignored", r"every target .* is ignored.*measure batches with some counted targets"),
        ("detached", r"does not depend on any trainable parameter; look for a detach"),
    ],
)
def test_refusals_say_what_and_what_to_do(cases, name, message):
    with pytest.raises(MeasurementError, match=message):
        refusal(name, cases)


def test_unknown_mode_and_wrong_vector(cases):
    with pytest.raises(ValueError, match="mode is 'test'"):
        Objective(cases.mlp(), nn.CrossEntropyLoss(), [cases.data()], mode="test")
    objective = Objective(cases.mlp(), nn.CrossEntropyLoss(), [cases.data()])
    with pytest.raises(ValueError, match=r"expected a vector of shape \(139,\), found \(3,\)"):
        objective.loss(torch.zeros(3))
    with pytest.raises(ValueError, match="size is 0"):
        objective.split(0)


class Auxiliary(nn.Module):
    """Classifies, and calls a loss function of classes in its own forward too, where `inside` says so."""

    def __init__(self, inside):
        super().__init__()
        self.inside = inside
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        scores = self.layer(x)
        return scores + F.cross_entropy(scores, x.argmax(1) % 3) if self.inside else scores


@pytest.mark.parametrize(("inside", "watch"), [(False, Watch.LOSS), (True, Watch.STEP)])
def test_no_more_is_watched_than_what_tells_the_error_rate(inside, watch):
    model, (x, y) = Auxiliary(inside), (torch.randn(9, 4), torch.randint(0, 3, (9,)))
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    assert objective._watch is watch
    predicted = model.layer(x).argmax(1)
    wrong = [(predicted != y).float().mean(), *([(predicted != x.argmax(1) % 3).float().mean()] if inside else [])]
    assert objective.evaluate().error == pytest.approx(float(sum(wrong)) / len(wrong))


def test_nothing_is_watched_where_the_loss_knows_no_classes():
    objective = Objective(nn.Linear(2, 1), nn.MSELoss(), [(torch.randn(3, 2), torch.randn(3, 1))])
    assert objective._watch is Watch.NOTHING
    assert math.isnan(objective.evaluate().error)
