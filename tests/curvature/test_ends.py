"""Both ends of every operator's spectrum against dense float64 matrices, over the networks of tests/zoo.py."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from landscape import Objective
from landscape.curvature import fisher, ggn, hessian, top_eigenpairs

NAMES = ["mlp tanh", "mlp relu", "mlp gelu", "cnn", "encoder", "lstm", "words", "class weights", "tiny loss"]
OPERATORS = {
    "hessian": hessian,
    "ggn": ggn,
    "fisher": fisher,
    "empirical": lambda objective: fisher(objective, "empirical"),
}


@pytest.mark.parametrize("dtype", [torch.float64, pytest.param(torch.float32, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("name", NAMES)
def test_top_and_bottom_ten(zoo, name, kind, dtype):
    network = zoo[name]
    model = copy.deepcopy(network.model).to(dtype)
    operator = OPERATORS[kind](Objective(model, network.loss_fn, network.batches))
    assert operator.dtype == dtype
    exact = torch.linalg.eigvalsh(getattr(network, kind)).numpy()
    largest = np.abs(exact).max()
    for which, values in (("LA", exact[::-1][:10]), ("SA", exact[:10])):
        found = top_eigenpairs(operator, 10, which=which, method="lanczos")
        gram = (found.vectors.T @ found.vectors).double()
        torch.testing.assert_close(gram, torch.eye(10).double(), rtol=0, atol=1e-5)  # no duplicates
        error = np.abs(found.values - values)
        # Ranks of eigenvalues around zero, as of a matrix of few examples, are not told apart: below tol² of the top.
        close = error <= 1e-4 * np.abs(values) + 1e-6 * largest
        assert close[found.converged_each].all()
        assert close.all()
        assert found.converged or which == "SA"


def test_all_networks_are_named(zoo):
    assert list(zoo) == NAMES
