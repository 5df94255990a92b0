"""Every operator against dense float64 matrices, over one set of networks."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.curvature import fisher, ggn, hessian

NAMES = ["mlp tanh", "mlp relu", "mlp gelu", "cnn", "encoder", "lstm", "words", "class weights", "tiny loss"]
OPERATORS = {
    "hessian": (hessian, "hessian"),
    "hessian, rebuilt": (lambda objective: hessian(objective, strategy="rebuilt"), "hessian"),
    "ggn": (ggn, "ggn"),
    "ggn, rebuilt": (lambda objective: ggn(objective, memory_budget=0), "ggn"),
    "fisher": (fisher, "fisher"),
    "empirical": (lambda objective: fisher(objective, "empirical"), "empirical"),
    "empirical, rebuilt": (lambda objective: fisher(objective, "empirical", memory_budget=0), "empirical"),
}


def test_all_networks_are_named(zoo):
    assert list(zoo) == NAMES


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("name", NAMES)
def test_dense_in_double_precision(zoo, name, kind):
    network = zoo[name]
    make, reference = OPERATORS[kind]
    matrix = getattr(network, reference)
    size = float(matrix.abs().max())
    objective = Objective(network.model, network.loss_fn, network.batches)
    torch.testing.assert_close(make(objective).dense(), matrix, rtol=1e-8, atol=1e-10 * size)


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("name", NAMES)
def test_products_in_single_precision(zoo, name, kind):
    network = zoo[name]
    make, reference = OPERATORS[kind]
    matrix = getattr(network, reference)
    objective = Objective(copy.deepcopy(network.model).float(), network.loss_fn, network.batches)
    block = torch.randn(objective.n_parameters, 3)
    expected = matrix @ block.double()
    error = torch.linalg.vector_norm(make(objective) @ block - expected, dim=0)
    assert float((error / torch.linalg.vector_norm(expected, dim=0)).max()) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_fisher_equals_gauss_newton_for_cross_entropies(zoo, name):
    network = zoo[name]
    objective = Objective(network.model, network.loss_fn, network.batches)
    exact, gauss_newton = fisher(objective).dense(), ggn(objective).dense()
    torch.testing.assert_close(exact, gauss_newton, rtol=1e-9, atol=1e-12 * float(exact.abs().max()))


def test_monte_carlo_fisher_converges_to_the_exact_one(zoo):
    network = zoo["class weights"]
    objective = Objective(network.model, network.loss_fn, network.batches)
    errors = []
    for draws in (10, 1000):
        drawn = [fisher(objective, "mc", draws=draws, seed=seed).dense() for seed in range(8)]
        errors.append(torch.stack([torch.linalg.matrix_norm(d - network.fisher) for d in drawn]).square().mean().sqrt())
    assert float(errors[0] / errors[1]) == pytest.approx(10, rel=0.25)
    assert float(errors[1]) < 0.05 * float(torch.linalg.matrix_norm(network.fisher))


def test_empirical_fisher_is_the_mean_of_squared_gradients_of_single_examples(cases):
    x, y = cases.data(7)
    model = cases.mlp().double()
    objective = Objective(model, nn.CrossEntropyLoss(), [(x[:2], y[:2]), (x[2:], y[2:])])
    gradients = [Objective(model, nn.CrossEntropyLoss(), [(x[i : i + 1], y[i : i + 1])]).gradient() for i in range(7)]
    expected = sum(torch.outer(gradient, gradient) for gradient in gradients) / 7
    operator = fisher(objective, "empirical")
    torch.testing.assert_close(operator.dense(), expected, rtol=1e-9, atol=1e-13)
    assert operator.n == 7


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("name", ["mlp tanh", "words", "class weights"])
def test_half_precision_parameters_are_measured_in_single_precision(zoo, name, kind):
    make, reference = OPERATORS[kind]
    half = copy.deepcopy(zoo[name].model).bfloat16()
    rounded = dataclasses.replace(zoo[name], model=copy.deepcopy(half).double())
    operator = make(Objective(half, rounded.loss_fn, rounded.batches))
    assert operator.dtype == torch.float32
    assert next(half.parameters()).dtype == torch.bfloat16
    expected = getattr(rounded, reference) @ torch.ones(operator.shape[0]).double()
    error = torch.linalg.vector_norm(operator @ torch.ones(operator.shape[0]) - expected)
    assert float(error / torch.linalg.vector_norm(expected)) < 1e-5


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("name", ["mlp gelu", "cnn", "words"])
def test_compiled_modules(zoo, name, kind):
    make, reference = OPERATORS[kind]
    network = zoo[name]
    compiled = torch.compile(copy.deepcopy(network.model), backend="eager")
    matrix = getattr(network, reference)
    operator = make(Objective(compiled, network.loss_fn, network.batches))
    torch.testing.assert_close(operator.dense(), matrix, rtol=1e-8, atol=1e-10 * float(matrix.abs().max()))
