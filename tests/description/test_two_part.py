"""Two-part code lengths by hand: the stream's own length, and the labels under what it decodes to."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from landscape import MeasurementError, Objective
from landscape.compression import bits as curve_of
from landscape.compression import decode, encode
from landscape.description import two_part


def toy(n: int = 300, classes: int = 3) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A softmax regression that has seen its rule."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=generator)
    model = nn.Linear(4, classes)
    with torch.no_grad():
        model.weight.copy_(5 * torch.randn(classes, 4, generator=generator))
        model.bias.zero_()
    return model, x, model(x).argmax(1)


def label_bits(weights, x: torch.Tensor, y: torch.Tensor) -> float:
    """Σ −log2 softmax(W x + b)_y, in numpy."""
    scores = x.double().numpy() @ weights["weight"].T.astype(np.float64) + weights["bias"]
    logs = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    return float(-logs[np.arange(len(y)), y.numpy()].sum() / math.log(2))


def test_both_parts_are_those_of_the_decoded_weights() -> None:
    model, x, y = toy()
    objective = Objective(model, nn.CrossEntropyLoss(), [(x[:200], y[:200]), (x[200:], y[200:])])
    tolerances = (0.003, 0.03, 0.3, 3.0)
    found = two_part(objective, tolerances=tolerances)
    curve = curve_of(objective, tolerances=tolerances)
    for index, knob in enumerate(curve.knob):
        code = encode(dict(model.named_parameters()), float(knob))
        assert found.curve_code_bits[index] == code.bits
        assert found.curve_label_bits[index] == pytest.approx(label_bits(decode(code), x, y), rel=1e-5)
    np.testing.assert_allclose(found.curve_bits, found.curve_code_bits + found.curve_label_bits)
    best = int(np.argmin(found.curve_bits))
    assert (found.bits, found.tolerance) == (found.curve_bits[best], tolerances[best])
    assert (found.code_bits, found.label_bits) == (found.curve_code_bits[best], found.curve_label_bits[best])
    assert found.uniform_bits == pytest.approx(300 * math.log2(3))
    assert found.ratio == found.bits / found.uniform_bits
    assert (found.n_labels, found.classes, found.assumption) == (300, 3, "")
    # A rule of twelve numbers, seen in three hundred labels: worth writing down.
    assert found.ratio < 0.5
    assert 0 < best < 3


def test_labels_without_a_rule_are_sent_by_weights_that_are_zero() -> None:
    model, x, _ = toy(100)
    y = torch.randint(0, 3, (100,), generator=torch.Generator().manual_seed(1))
    found = two_part(Objective(model, nn.CrossEntropyLoss(), [(x, y)]), tolerances=(0.1, 100.0))
    assert found.tolerance == 100.0
    assert found.label_bits == pytest.approx(found.uniform_bits, rel=1e-6)
    assert found.bits == found.code_bits + found.label_bits > found.uniform_bits


def test_a_quadratic_is_taken_at_its_word() -> None:
    class Point(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.w.expand(len(x), -1)

    model = Point()

    def loss(output: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return 0.25 + ((output - torch.tensor([1.0, -2.0, 0.5])) ** 2).sum(1).mean() / 2

    objective = Objective(model, loss, [(torch.zeros(32, 1), torch.zeros(32))])
    found = two_part(objective, tolerances=(0.01, 10.0), classes=4)
    assert "taken for the mean of −ln p over 32 labels" in found.assumption
    # Weights of zero: 1/4 + (1 + 4 + 1/4)/2 nats a label.
    assert found.curve_label_bits[1] == pytest.approx(32 * (0.25 + 5.25 / 2) / math.log(2), rel=1e-6)
    curve = curve_of(objective, tolerances=(0.01,))
    weights = decode(encode({"w": model.w}, float(curve.knob[0])))["w"]
    expected = 0.25 + float(((weights - np.array([1.0, -2.0, 0.5])) ** 2).sum()) / 2
    assert found.curve_label_bits[0] == pytest.approx(32 * expected / math.log(2), rel=1e-6)
    assert found.uniform_bits == 64
    unknown = two_part(objective, tolerances=(0.01,), n_labels=7)
    assert (unknown.n_labels, unknown.classes) == (7, 0)
    assert math.isnan(unknown.uniform_bits)
    assert math.isnan(unknown.ratio)


def test_ignored_targets_are_no_labels() -> None:
    model, x, y = toy(60)
    ignored = torch.where(torch.arange(60) < 20, -100, y)
    found = two_part(Objective(model, nn.CrossEntropyLoss(), [(x[:30], ignored[:30]), (x[30:], ignored[30:])]))
    alone = two_part(Objective(model, nn.CrossEntropyLoss(), [(x[20:], y[20:])]))
    assert found.n_labels == 40
    assert found.bits == pytest.approx(alone.bits, rel=1e-5)


def test_a_model_is_no_objective() -> None:
    with pytest.raises(TypeError, match="two_part was given a Linear, which has no loss of its own"):
        two_part(toy()[0])


def test_a_tolerance_that_no_code_keeps_has_no_length() -> None:
    model, x, y = toy(30)
    model, x, y = model.double(), x.double(), y.roll(1)  # labels that no rule gives, so that there is a minimum
    settings = {"max_iter": 500, "tolerance_change": 0.0, "line_search_fn": "strong_wolfe"}
    optimizer = torch.optim.LBFGS(model.parameters(), **settings)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    optimizer.step(step)  # at the minimum every other network has a higher loss
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)], dtype=torch.float64)
    found = two_part(objective, tolerances=(1e-15, 10.0))
    assert np.isnan(found.curve_bits).tolist() == [True, False]
    assert (found.bits, found.tolerance) == (found.curve_bits[1], 10.0)
    nothing = two_part(objective, tolerances=(1e-15,))
    for value in (nothing.bits, nothing.code_bits, nothing.label_bits, nothing.tolerance, nothing.ratio):
        assert math.isnan(value)
    assert nothing.uniform_bits == pytest.approx(30 * math.log2(3))


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (lambda z, y: nn.functional.mse_loss(z, nn.functional.one_hot(y, 3).float()), "made of mse_loss"),
        (lambda z, y: nn.functional.cross_entropy(z, y, label_smoothing=0.2), "it is no code length"),
        (lambda z, y: nn.functional.cross_entropy(z, y, torch.tensor([1.0, 5.0, 1.0])), "it is no code length"),
        (lambda z, y: nn.functional.cross_entropy(z, y) + 0.01 * (z**2).mean(), "it is no code length"),
        (lambda z, y: 2 * nn.functional.cross_entropy(z, y), "it is no code length"),
        (lambda z, y: nn.functional.cross_entropy(z, y) + nn.functional.cross_entropy(-z, y), "only one"),
        (lambda z, y: nn.functional.cross_entropy(z, nn.functional.one_hot(y, 3).float()), "give class indices"),
    ],
)
def test_losses_that_are_no_code_length_are_refused(loss, sentence: str) -> None:
    model, x, y = toy(60)
    with pytest.raises(MeasurementError, match=sentence):
        two_part(Objective(model, loss, [(x, y)]))
