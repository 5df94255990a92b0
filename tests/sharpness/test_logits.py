from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.sharpness import average_case, normalised_logits, worst_case


def test_the_loss_is_that_of_normalised_scores(cases):
    x, y = cases.data()
    model = cases.mlp().double()
    objective = Objective(model, nn.CrossEntropyLoss(label_smoothing=0.1), [(x[:9], y[:9]), (x[9:], y[9:])])
    with torch.no_grad():
        scores = model(x.double())
        scores = (scores - scores.mean(1, keepdim=True)) / scores.std(1, unbiased=False, keepdim=True)
        exact = float(nn.functional.cross_entropy(scores, y, label_smoothing=0.1))
    normalised = normalised_logits(objective)
    assert float(normalised.loss()) == pytest.approx(exact, rel=1e-12)
    assert normalised.evaluate().error == objective.evaluate().error
    assert float(objective.loss()) != pytest.approx(exact, rel=1e-3)
    assert "normalised logits" in normalised.describe()["loss"]


def test_scaling_the_last_layer_changes_nothing(cases):
    x, y = cases.data()
    model = cases.mlp().double()
    louder = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in louder[4].parameters():
            parameter *= 7
    plain = [Objective(m, nn.CrossEntropyLoss(), [(x, y)]) for m in (model, louder)]
    for measure in (average_case, worst_case):
        first, second = (measure(normalised_logits(objective), 0.1).value for objective in plain)
        assert second == pytest.approx(first, rel=1e-9)
        assert measure(plain[1], 0.1).value > 1.5 * measure(plain[0], 0.1).value


def test_equal_scores_stay_finite(cases):
    x, y = cases.data()
    model = cases.mlp()
    with torch.no_grad():
        for parameter in model[4].parameters():
            parameter.zero_()
    objective = normalised_logits(Objective(model, nn.CrossEntropyLoss(), [(x, y)]))
    assert torch.isfinite(objective.gradient()).all()


def test_in_a_training_step(cases):
    objective = Objective.from_lightning(cases.Eventful(), [cases.data()])
    assert float(normalised_logits(objective).loss()) != float(objective.loss())
    assert len(normalised_logits(objective).split(10)) == 4
