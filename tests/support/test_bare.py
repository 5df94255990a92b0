"""The float64 references themselves: closed forms, wrong second derivatives, gradients that are not the loss's."""

from __future__ import annotations

import pytest
import torch
from landscape_test_support.bare import Bare, InFloat64, double
from landscape_test_support.kind import Learns, in_order, registered
from landscape_test_support.losses import Classifier, Quantised, Siamese, labelled, views
from landscape_test_support.models import WeightNorm, WronglyDifferentiable
from torch import nn

EXACT = {"rtol": 1e-9, "atol": 1e-12}


class Square(Learns):
    """½ w·(a ∘ w), mean over rows a; it casts to float32 as many models do."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0]))

    def training_step(self, batch, batch_idx):
        return 0.5 * (batch[0].float() * self.weight.pow(2)).sum(dim=1).mean()


def bare(module, batches, **options):
    return Bare(module, batches, [len(batch[0]) for batch in batches], registered, **options)


def test_a_quadratic_form_has_its_closed_form():
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [8.0, 0.0]])
    reference = bare(Square(), [(rows[:1],), (rows[1:],)])
    a = rows.double().mean(dim=0)
    w = torch.tensor([1.0, -2.0], dtype=torch.float64)
    assert reference.loss() == pytest.approx(float(0.5 * (a * w * w).sum()), rel=1e-14)
    torch.testing.assert_close(reference.gradient(), a * w, **EXACT)
    torch.testing.assert_close(reference.hessian, torch.diag(a), **EXACT)
    assert not reference.surrogate


@pytest.mark.parametrize("made", [WeightNorm, WronglyDifferentiable])
def test_wrong_second_derivatives_are_replaced_by_differences(made):
    reference = bare(made(), in_order(labelled()))
    raw = reference._double_backward()
    assert (raw - reference.hessian).norm() > 1e-3 * raw.norm()
    direction = torch.randn(len(raw), dtype=torch.float64)
    difference = reference._differenced(direction / direction.norm())
    torch.testing.assert_close(reference.hessian @ direction / direction.norm(), difference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("made", "data", "surrogate"), [(Classifier, labelled, False), (Quantised, labelled, True), (Siamese, views, True)]
)
def test_gradients_that_are_not_the_losss_are_found(made, data, surrogate):
    assert bare(made(), in_order(data())).surrogate is surrogate


def test_the_point_and_the_generators_are_left_as_they_were():
    reference = bare(Classifier(), in_order(labelled()))
    before, state = reference.vector(), torch.get_rng_state()
    reference.loss(before + 1)
    reference.gradient(before - 1)
    assert torch.equal(reference.vector(), before)
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_in_float64_is_that_of_float32():
    torch.manual_seed(3)
    narrow = torch.randn(4)
    torch.manual_seed(3)
    with InFloat64():
        wide = torch.randn_like(torch.zeros(4, dtype=torch.float64))
    assert torch.equal(wide, narrow.double())


def test_batches_of_any_container_are_widened():
    batch = double({"x": [torch.ones(2), (torch.ones(1, dtype=torch.int64),)], "name": "a"})
    assert batch["x"][0].dtype == torch.float64
    assert batch["x"][1][0].dtype == torch.int64
    assert batch["name"] == "a"
