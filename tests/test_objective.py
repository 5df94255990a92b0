"""One definition of the loss: the mean over all examples, whatever the batches."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from landscape import Objective
from landscape.curvature import hessian, top_eigenpairs

F64 = torch.float64


# ---------------------------------------------------------------- one definition of the loss


@pytest.mark.parametrize("cut", [[250, 6], [1, 255], [100, 100, 56]])
def test_uneven_batches_give_what_one_batch_gives(cases, cut):
    x, y = cases.data(256)
    model = cases.mlp()
    whole = Objective(model, nn.CrossEntropyLoss(), [(x, y)], dtype=F64)
    parts = Objective(model, nn.CrossEntropyLoss(), zip(x.split(cut), y.split(cut), strict=True), dtype=F64)
    assert parts.n_examples == 256
    assert float(parts.loss()) == pytest.approx(float(whole.loss()), rel=1e-13)
    torch.testing.assert_close(parts.gradient(), whole.gradient(), rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(hessian(parts).dense(), hessian(whole).dense(), rtol=1e-10, atol=1e-13)
    top, reference = (top_eigenpairs(hessian(o), 3, method="lanczos").values for o in (parts, whole))
    np.testing.assert_allclose(top, reference, rtol=1e-9)


def test_loss_gradient_and_evaluation_are_those_of_the_model(cases):
    x, y = cases.data()
    model = cases.mlp().double()
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    scores = model(x.double())
    loss = F.cross_entropy(scores, y)
    assert objective.dtype == F64
    value = float(loss.detach())
    assert float(objective.loss()) == pytest.approx(value, rel=1e-14)
    torch.testing.assert_close(objective.gradient(), cases.autograd_gradient(model, loss))
    evaluation = objective.evaluate()
    assert evaluation.loss == pytest.approx(value, rel=1e-14)
    assert evaluation.error == float((scores.argmax(1) != y).double().mean())


def test_loss_at_another_vector_leaves_the_model_alone(cases):
    x, y = cases.data()
    model = cases.mlp().double()
    before = copy.deepcopy(model.state_dict())
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    vector = objective.vector() + 0.1
    moved = copy.deepcopy(model)
    nn.utils.vector_to_parameters(vector, moved.parameters())
    assert float(objective.loss(vector)) == pytest.approx(
        cases.number(F.cross_entropy(moved(x.double()), y)), rel=1e-14
    )
    assert float(objective.loss(vector.numpy())) == float(objective.loss(vector))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_another_default_point(cases):
    x, y = cases.data(24)
    objective = Objective(cases.mlp().double(), nn.CrossEntropyLoss(), [(x, y)])
    vector = objective.vector() * 1.1
    moved = objective.at(vector)
    assert objective.at_module
    assert not moved.at_module
    assert torch.equal(moved.vector(), vector)
    assert float(moved.loss()) == float(objective.loss(vector))
    torch.testing.assert_close(moved.gradient(), objective.gradient(vector))
    torch.testing.assert_close(hessian(moved).dense(), hessian(objective, vector).dense())
    torch.testing.assert_close(moved.split(24)[0].gradient(), objective.gradient(vector))
    with pytest.raises(ValueError, match="expected a vector"):
        objective.at(vector[:3])


LOSSES = {
    "ignore_index": nn.CrossEntropyLoss(ignore_index=0),
    "class weights": nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0])),
    "smoothed": nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0]), label_smoothing=0.2, ignore_index=1),
    "summed": nn.CrossEntropyLoss(reduction="sum"),
    "summed with weights": nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0]), reduction="sum"),
    "nll": lambda scores, y: F.nll_loss(F.log_softmax(scores, 1), y, ignore_index=2),
    "own sum": nn.MultiMarginLoss(reduction="sum"),
    "tiny": lambda scores, y: 1e-6 * F.cross_entropy(scores, y),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_averaged_over_its_own_denominator(cases, name):
    x, y = cases.data(64)
    order = y.argsort()  # so that batches differ much in classes
    x, y = x[order], y[order]
    model = cases.mlp()
    whole = Objective(model, LOSSES[name], [(x, y)], dtype=F64)
    parts = Objective(model, LOSSES[name], zip(x.split(25), y.split(25), strict=True), dtype=F64)
    assert float(parts.loss()) == pytest.approx(float(whole.loss()), rel=1e-12)
    torch.testing.assert_close(parts.gradient(), whole.gradient(), rtol=1e-9, atol=1e-18)
    assert parts.evaluate().error == pytest.approx(whole.evaluate().error, nan_ok=True)


def test_sum_and_mean_reduction_measure_one_loss(cases):
    x, y = cases.data(64)
    weight = torch.tensor([0.2, 1.0, 3.0])
    mean, total = (
        Objective(cases.mlp(), nn.CrossEntropyLoss(weight, reduction=r), [(x, y)], dtype=F64) for r in ("mean", "sum")
    )
    assert float(total.loss()) == pytest.approx(float(mean.loss()), rel=1e-12)


def test_summed_regression_and_binary_losses_are_means_over_examples(cases):
    x, _ = cases.data(30)
    target = torch.rand(30, 3)
    for loss_fn in (nn.MSELoss(reduction="sum"), nn.BCEWithLogitsLoss(reduction="sum")):
        model = cases.mlp().double()
        expected = cases.number(loss_fn(model(x.double()), target.double())) / 30
        batches = zip(x.split(11), target.split(11), strict=True)
        assert float(Objective(model, loss_fn, batches).loss()) == pytest.approx(expected, rel=1e-12)


def test_binary_errors_count_labels_with_any_reduction(cases):
    x, _ = cases.data(30)
    target = (torch.rand(30, 3) > 0.5).float()
    model = cases.mlp().double()
    wrong = float(((model(x.double()) > 0) != (target > 0.5)).double().mean())
    assert Objective(model, nn.BCEWithLogitsLoss(), [(x, target)]).evaluate().error == pytest.approx(wrong)
    assert np.isnan(Objective(model, nn.MSELoss(), [(x, target)]).evaluate().error)


def test_a_batch_whose_targets_are_all_ignored_counts_nothing(cases):
    x, y = cases.data(20)
    ignored = torch.full((5,), -100)
    model = cases.mlp().double()
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y), (x[:5], ignored)])
    assert float(objective.loss()) == pytest.approx(cases.number(F.cross_entropy(model(x.double()), y)), rel=1e-13)
    assert torch.isfinite(hessian(objective).dense()).all()
