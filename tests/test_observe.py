from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from landscape._observe import LossCall, LossObserver, batch_weight

SCORES = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 4.0], [5.0, 0.0, 0.0]])
LABELS = torch.tensor([0, 1, 0, 2])  # the last two are predicted wrongly
WEIGHT = torch.tensor([0.5, 2.0, 4.0])


def observed(function):
    with LossObserver() as observer:
        function()
    return observer.calls


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda: F.cross_entropy(SCORES, LABELS), ("cross_entropy", "mean", 4.0, 2.0, 4)),
        (lambda: nn.CrossEntropyLoss(reduction="sum")(SCORES, LABELS), ("cross_entropy", "sum", 4.0, 2.0, 4)),
        (lambda: F.cross_entropy(SCORES, LABELS, ignore_index=2), ("cross_entropy", "mean", 3.0, 1.0, 3)),
        (lambda: F.cross_entropy(SCORES, LABELS, WEIGHT), ("cross_entropy", "mean", 7.0, 2.0, 4)),
        (lambda: F.cross_entropy(SCORES, LABELS, WEIGHT, label_smoothing=0.1), ("cross_entropy", "mean", 7.0, 2.0, 4)),
        (lambda: F.cross_entropy(SCORES, F.one_hot(LABELS).float()), ("cross_entropy", "mean", 4.0, 2.0, 4)),
        (lambda: F.nll_loss(SCORES.log_softmax(1), LABELS), ("nll_loss", "mean", 4.0, 2.0, 4)),
        (lambda: F.cross_entropy(SCORES[0], LABELS[0]), ("cross_entropy", "mean", 1.0, 0.0, 1)),
        (
            lambda: F.cross_entropy(SCORES.T[None], LABELS[None], reduction="none"),
            ("cross_entropy", "none", 4.0, 2.0, 4),
        ),
        (
            lambda: F.binary_cross_entropy_with_logits(SCORES[:, 0] - 1.5, torch.tensor([1.0, 1.0, 0.0, 1.0])),
            ("binary_cross_entropy_with_logits", "mean", 4.0, 1.0, 4),
        ),
        (
            lambda: F.binary_cross_entropy(torch.tensor([0.6, 0.4]), torch.tensor([0.0, 0.0]), reduction="sum"),
            ("binary_cross_entropy", "sum", 2.0, 1.0, 2),
        ),
        (lambda: F.mse_loss(SCORES, SCORES), ("mse_loss", "mean", 12.0, 0.0, 0)),
        (lambda: nn.KLDivLoss(reduction="sum")(SCORES, SCORES.exp()), ("kl_div", "sum", None, 0.0, 0)),
    ],
)
def test_each_loss_function_tells_its_denominator_and_errors(function, expected):
    assert observed(function) == [LossCall(*expected)]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_denominator_is_the_one_torch_divides_by(reduction, smoothing):
    targets = torch.tensor([0, 1, -100, 2])
    (call,) = observed(lambda: F.cross_entropy(SCORES, targets, WEIGHT, label_smoothing=smoothing, reduction=reduction))
    total, mean = (
        F.cross_entropy(SCORES, targets, WEIGHT, label_smoothing=smoothing, reduction=r) for r in ("sum", "mean")
    )
    assert call.denominator == pytest.approx(float(total / mean), rel=1e-6)


def test_values_and_gradients_are_not_touched():
    scores = SCORES.clone().requires_grad_()
    with LossObserver() as observer:
        loss = F.cross_entropy(scores, LABELS)
    loss.backward()
    assert float(loss.detach()) == float(F.cross_entropy(SCORES, LABELS))
    assert scores.grad is not None
    assert (observer.wrong, observer.counted) == (2.0, 4)


def call(name="cross_entropy", reduction="mean", denominator=4.0, counted=4):
    return LossCall(name, reduction, denominator, 0.0, counted)


@pytest.mark.parametrize(
    ("calls", "summed", "expected"),
    [
        ([], False, (10.0, 1.0)),
        ([], True, (10.0, 0.1)),
        ([call()], False, (4.0, 1.0)),
        ([call(reduction="sum")], False, (4.0, 0.25)),
        ([call("mse_loss", "sum", 40.0, 0)], False, (10.0, 0.1)),
        ([call("binary_cross_entropy", "sum", 40.0, 40)], False, (10.0, 0.1)),
        ([call("kl_div", "mean", None, 0)], False, (10.0, 1.0)),
        ([call("kl_div", "sum", None, 0)], False, (10.0, 0.1)),
        ([call(), call("mse_loss", "mean", 40.0, 0)], False, (10.0, 1.0)),
        ([call(reduction="none")], False, (10.0, 1.0)),
        ([call(denominator=0.0)], False, (0.0, 1.0)),
        ([call(reduction="sum", denominator=0.0)], False, (0.0, 0.0)),
    ],
)
def test_share_and_scale_of_a_batch(calls, summed, expected):
    assert batch_weight(calls, 10, summed) == pytest.approx(expected)
