"""m-sharpness, ASAM and the gradient's norm, beside SAM."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.sharpness import asam, gradient_norm, m_sharpness, sam


def by_hand(model, x, y, rho, stretch):
    """L(w + ρ T²g/‖Tg‖) − L(w) with T = stretch(name, parameter), by backward passes and steps on a copy."""
    moved = copy.deepcopy(model)
    loss = nn.functional.cross_entropy(moved(x.double()), y)
    loss.backward()
    scales = {name: stretch(name, p).detach() for name, p in moved.named_parameters()}
    length = torch.sqrt(sum(((scales[name] * p.grad) ** 2).sum() for name, p in moved.named_parameters()))
    with torch.no_grad():
        for name, p in moved.named_parameters():
            p += rho * scales[name] ** 2 * p.grad / length
        return float(nn.functional.cross_entropy(moved(x.double()), y) - loss)


STRETCHES = {
    "authors": lambda name, p: p.abs() + 0.02 if "weight" in name else torch.ones_like(p),
    "elementwise": lambda name, p: p.abs(),
}


@pytest.mark.parametrize("variant", STRETCHES)
def test_asam_by_hand(cases, variant):
    x, y = cases.data()
    model = cases.mlp().double()
    objective = Objective(model, nn.CrossEntropyLoss(), [(x[:10], y[:10]), (x[10:], y[10:])])
    measured = asam(objective, 0.3, variant, eta=0.02)
    assert measured.value == pytest.approx(by_hand(model, x, y, 0.3, STRETCHES[variant]), rel=1e-10)
    assert (measured.stderr, measured.seed) == (0, None)


def test_the_variants_differ_and_have_radii_of_their_own(cases):
    objective = Objective(cases.mlp().double(), nn.CrossEntropyLoss(), [cases.data()])
    assert asam(objective, 0.5, "authors").value > 1.5 * asam(objective, 0.5, "elementwise").value
    assert asam(objective) == asam(objective, 0.5, "authors", eta=0.01)
    assert asam(objective, variant="elementwise") == asam(objective, 2.0, "elementwise")
    assert asam(objective, 0.2, "elementwise").value == sam(objective, 0.2, adaptive=True).value


def test_the_name_of_a_module_does_not_make_its_bias_a_weight(cases):
    x, y = cases.data()
    plain = cases.mlp().double()
    named = nn.Module()
    named.weight_net = copy.deepcopy(plain)
    named.forward = lambda x: named.weight_net(x)
    first, second = (asam(Objective(m, nn.CrossEntropyLoss(), [(x, y)])).value for m in (plain, named))
    assert first == second


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_m_sharpness_is_the_mean_over_groups(cases, adaptive, norm):
    x, y = cases.data(40)
    model = cases.mlp().double()
    objective = Objective(model, nn.CrossEntropyLoss(), [(x[:30], y[:30]), (x[30:], y[30:])])
    parts = [
        sam(Objective(model, nn.CrossEntropyLoss(), [(x[a : a + 10], y[a : a + 10])]), 0.05, adaptive, norm).value
        for a in range(0, 40, 10)
    ]
    measured = m_sharpness(objective, 0.05, 10, adaptive, norm)
    assert measured.value == pytest.approx(np.mean(parts), rel=1e-10)
    assert measured.stderr == 0
    # t(0.975, 3)/1.96 times the error of the mean of four groups.
    assert measured.stderr_sample == pytest.approx(3.182446 / 1.959964 * np.std(parts, ddof=1) / 2, rel=1e-6)
    assert measured.n == 4
    assert measured.value > sam(objective, 0.05, adaptive, norm).value
    assert asam(objective, 0.05, "elementwise", group=10).value == pytest.approx(
        m_sharpness(objective, 0.05, 10, True).value, rel=1e-12
    )


def test_one_group_of_all_is_sam(cases):
    objective = Objective(cases.mlp().double(), nn.CrossEntropyLoss(), [cases.data(40)])
    assert m_sharpness(objective, 0.1, 40).value == sam(objective, 0.1).value


def test_the_linf_step_of_a_linear_loss(quadratic):
    center, gradient = torch.tensor([1.0, -2.0, 0.0]).double(), torch.tensor([3.0, 1.0, 5.0]).double()
    objective = quadratic(torch.zeros(3, 3).double(), center, gradient)
    assert sam(objective, 0.1, norm="linf").value == pytest.approx(0.1 * 9, rel=1e-12)
    assert sam(objective, 0.1, adaptive=True, norm="linf").value == pytest.approx(0.1 * 5, rel=1e-12)


@pytest.mark.parametrize("adaptive", [True, False])
def test_gradient_norm(cases, adaptive):
    x, y = cases.data()
    model = cases.mlp().double()
    nn.functional.cross_entropy(model(x.double()), y).backward()
    parts = [p.grad * (p.detach().abs() if adaptive else 1) for p in model.parameters()]
    exact = float(torch.sqrt(sum((part**2).sum() for part in parts)))
    measured = gradient_norm(Objective(model, nn.CrossEntropyLoss(), [(x, y)]), adaptive)
    assert measured.value == pytest.approx(exact, rel=1e-12)
    assert measured.stderr == 0


def test_refusals(cases):
    objective = Objective(cases.mlp(), nn.CrossEntropyLoss(), [cases.data()])
    with pytest.raises(ValueError, match="variant is 'both'; it must be one of authors, elementwise"):
        asam(objective, variant="both")
    with pytest.raises(ValueError, match="eta is -1"):
        asam(objective, eta=-1)
    with pytest.raises(ValueError, match="size is 0"):
        m_sharpness(objective, m=0)
