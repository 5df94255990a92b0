"""What stands on curvature: λmax(CHC), Tr(CHC), relative flatness, the Fisher–Rao norm; and the small-ρ identities."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.curvature import ggn, hessian, top_eigenpairs
from landscape.curvature._dense import DenseOperator
from landscape.sharpness import (
    average_case,
    fisher_rao,
    lambda_max_chc,
    random_radius,
    relative_flatness,
    stretched,
    trace_chc,
    worst_case,
)
from landscape.sharpness._noise import draw
from landscape.sharpness._relative_flatness import _mixed

# ------------------------------------------------------------------ CHC


def test_stretched_is_the_dense_product():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    matrix = matrix + matrix.T
    c = torch.tensor([1.0, 0.0, 2.0, 0.5, 0.0, 3.0]).double()
    operator = DenseOperator(matrix)
    scaled = stretched(operator, c)
    torch.testing.assert_close(scaled.dense(), c[:, None] * matrix * c)
    torch.testing.assert_close(scaled @ torch.ones(6).double(), c * (matrix @ c))
    assert (scaled.n_matvecs, operator.n_matvecs) == (7, 7)
    with pytest.raises(ValueError, match="needs one scale a row"):
        stretched(operator, c[:3])


def test_against_the_dense_hessian(minimum):
    objective, matrix = minimum
    c = objective.vector().abs()
    dense = c[:, None] * matrix * c
    top = lambda_max_chc(objective)
    assert top.value == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-8)
    assert top.converged
    assert top.residual < 1e-6 * top.value
    estimate = trace_chc(objective, tol=0.01)
    assert estimate.value == pytest.approx(float(dense.trace()), abs=4 * estimate.stderr)
    assert estimate.converged
    assert estimate.stderr <= 0.01 * estimate.value


def test_another_curvature_may_be_given(cases):
    x, y = cases.data()
    objective = Objective(cases.mlp().double(), nn.CrossEntropyLoss(), [(x, y)])
    operator = ggn(objective)
    c = objective.vector().abs()
    exact = float(torch.linalg.eigvalsh(c[:, None] * operator.dense() * c)[-1])
    assert lambda_max_chc(objective, operator).value == pytest.approx(exact, rel=1e-8)
    assert lambda_max_chc(objective).value != pytest.approx(exact, rel=1e-2)


def test_two_weights(two_weights):
    # H = [[h², gh], [gh, g²]] at the minimum of ½(GHx − y)²: λmax = g² + h², while CHC = (gh)² [[1, 1], [1, 1]].
    for g, h, largest in ((3.0, 0.5, 9.25), (12.0, 0.125, 144.015625)):
        objective = two_weights(g, h)
        assert top_eigenpairs(hessian(objective), 1).values[0] == pytest.approx(largest, rel=1e-12)
        assert trace_chc(objective).value == pytest.approx(4.5, rel=1e-12)
        assert lambda_max_chc(objective).value == pytest.approx(4.5, rel=1e-12)


# ------------------------------------------------------------------ small radii at a minimum


@pytest.mark.parametrize("adaptive", [True, False])
def test_small_radius_identities_at_a_minimum(minimum, adaptive):
    # On the very draws that are used; that enough of them come to the expectation is the forms' own affair.
    objective, matrix = minimum
    c = objective.vector().abs() if adaptive else torch.ones(139).double()
    dense = c[:, None] * matrix * c
    trace, rho, draws = float(dense.trace()), 1e-3, 40
    for norm, variance in (("l2", 1.0), ("linf", 1 / 3)):
        noise = torch.stack([draw(139, norm, 0, index) for index in range(12_000)]).double()
        forms = ((noise @ dense) * noise).sum(1)
        assert float(forms.mean()) == pytest.approx(variance * trace, rel=0.02)
        measured = average_case(objective, rho, adaptive, norm, draws=2 * draws).value  # in pairs
        assert measured == pytest.approx(0.5 * rho**2 * float(forms[:draws].mean()), rel=1e-3)
    units = torch.stack([draw(139, "l2", 0, index) for index in range(draws)]).double()
    units /= units.norm(dim=1, keepdim=True)
    radii = torch.sqrt(2e-8 / ((units @ dense) * units).sum(1))
    measured = random_radius(objective, 1e-8, adaptive, draws=draws, tol=1e-3).value
    assert measured == pytest.approx(float(radii.mean()), rel=2e-3)
    largest = float(torch.linalg.eigvalsh(dense)[-1])
    assert worst_case(objective, rho, adaptive).value == pytest.approx(0.5 * rho**2 * largest, rel=0.02)


def test_identities_with_the_curvatures_themselves(minimum, quadratic):
    objective, _ = minimum
    assert worst_case(objective, 1e-3).value == pytest.approx(0.5e-6 * lambda_max_chc(objective).value, rel=0.02)
    factor = torch.randn(60, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spread = quadratic(factor @ factor.T, torch.linspace(1, 2, 60).double())
    expected = 0.5e-4 * trace_chc(spread, tol=0.002).value
    assert average_case(spread, 1e-2, draws=2000).value == pytest.approx(expected, rel=0.02)


# ------------------------------------------------------------------ relative flatness


def by_definition(matrix, weight, part):
    """κ_Tr and κ_max of a layer from the dense Hessian."""
    block = matrix[part, part].reshape(*weight.shape, *weight.shape)
    neurons = range(weight.shape[0])
    total = sum(float(weight[s] @ weight[t]) * float(block[s, :, t, :].trace()) for s in neurons for t in neurons)
    most = sum(float(weight[s] @ weight[s]) * float(torch.linalg.eigvalsh(block[s, :, s, :])[-1]) for s in neurons)
    return total, most


@pytest.mark.parametrize("layer", ["0.weight", "2.weight", "4.weight"])
def test_relative_flatness_by_definition(cases, layer):
    x, y = cases.data()
    model = cases.mlp().double()
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    matrix = cases.dense_hessian(model, lambda: nn.functional.cross_entropy(model(x.double()), y))
    index = objective.layout.names.index(layer)
    part = objective.layout.slices()[index]
    weight = dict(model.named_parameters())[layer].detach()
    total, most = by_definition(matrix, weight, part)
    mixed = _mixed(hessian(objective).restrict(layer), weight).dense()
    assert float(mixed.trace()) == pytest.approx(total, rel=1e-10)
    estimate = relative_flatness(objective, layer)
    assert estimate.value == pytest.approx(total, abs=4 * estimate.stderr + 1e-9 * total)
    assert estimate.converged
    largest = relative_flatness(objective, layer.removesuffix(".weight"), kind="max")
    assert largest.value == pytest.approx(most, rel=1e-8)
    assert (largest.layer, largest.kind, largest.stderr) == (layer, "max", 0)


def test_filters_are_the_neurons_of_a_convolution(cases):
    torch.manual_seed(3)
    model = cases.ConvNet().double().eval()
    x, y = torch.randn(10, 1, 5, 5).double(), torch.randint(3, (10,))
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    matrix = cases.dense_hessian(model, lambda: nn.functional.cross_entropy(model(x), y))
    part = objective.layout.slices()[objective.layout.names.index("conv.weight")]
    total, most = by_definition(matrix, model.conv.weight.detach().flatten(1), part)
    estimate = relative_flatness(objective, "conv")
    assert estimate.value == pytest.approx(total, abs=4 * estimate.stderr)
    assert relative_flatness(objective, "conv", "max").value == pytest.approx(most, rel=1e-8)
    assert relative_flatness(objective).layer == "head.weight"


def test_relative_flatness_refusals(cases):
    objective = Objective(cases.mlp(), nn.CrossEntropyLoss(), [cases.data()])
    with pytest.raises(
        ValueError, match=r"layer is '0.bias', which stands for 0 .* give one of 0.weight, 2.weight, 4.w"
    ):
        relative_flatness(objective, "0.bias")
    with pytest.raises(ValueError, match="kind is 'mean'"):
        relative_flatness(objective, kind="mean")


# ------------------------------------------------------------------ Fisher–Rao


def without_biases():
    layers = [
        nn.Linear(4, 8, bias=False),
        nn.ReLU(),
        nn.Linear(8, 6, bias=False),
        nn.ReLU(),
        nn.Linear(6, 3, bias=False),
    ]
    return nn.Sequential(*layers).double()


def test_fisher_rao_of_a_network_without_biases_is_a_function_of_its_outputs(cases):
    x, y = cases.data()
    model = without_biases()
    scores = model(x.double()).detach().requires_grad_()
    (slopes,) = torch.autograd.grad(nn.functional.cross_entropy(scores, y, reduction="sum"), scores)
    exact = 3 * math.sqrt(float(((slopes * scores.detach()).sum(1) ** 2).mean()))
    objective = Objective(model, nn.CrossEntropyLoss(), [(x[:15], y[:15]), (x[15:], y[15:])])
    assert fisher_rao(objective).value == pytest.approx(exact, rel=1e-10)
    # Labels of the model's own: the same with the expectation over them, Σ_y p_y (z_y − Σ p z)².
    p = torch.softmax(scores.detach(), 1)
    centred = scores.detach() - (p * scores.detach()).sum(1, keepdim=True)
    own = 3 * math.sqrt(float((p * centred**2).sum(1).mean()))
    assert fisher_rao(objective, "exact").value == pytest.approx(own, rel=1e-10)
    drawn = fisher_rao(objective, "mc", draws=2000)
    assert drawn.value == pytest.approx(own, rel=0.05)
    assert math.isnan(drawn.stderr)


def test_fisher_rao_by_the_gradients_of_the_examples(cases):
    x, y = cases.data(20)
    model = cases.mlp().double()
    square = 0.0
    for one, label in zip(x, y, strict=True):
        loss = nn.functional.cross_entropy(model(one[None].double()), label[None])
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        square += float(sum((g * p.detach()).sum() for g, p in zip(gradients, model.parameters(), strict=True))) ** 2
    measured = fisher_rao(Objective(model, nn.CrossEntropyLoss(), [(x, y)]))
    assert measured.value == pytest.approx(math.sqrt(square / 20), rel=1e-10)
