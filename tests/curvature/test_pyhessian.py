from __future__ import annotations

import pytest
import torch
from torch import nn

from landscape import MeasurementError, Objective
from landscape.curvature import pyhessian_spectrum


def test_eigenvalue_and_trace_of_a_trained_network(networks):
    network = networks["tanh trained"]
    pairs, estimate = pyhessian_spectrum(network.objective, k=1, tol=1e-6, max_iterations=500)
    assert pairs.values[0] == pytest.approx(network.eigenvalues[-1], rel=1e-3)
    vector = pairs.vectors[:, 0]
    miss = torch.linalg.vector_norm(network.matrix @ vector - pairs.values[0] * vector)
    assert pairs.residuals[0] == pytest.approx(float(miss), rel=1e-6, abs=1e-9)
    assert abs(estimate.value - float(network.matrix.trace())) <= 4 * estimate.stderr


def test_converged_is_ours(networks):
    pairs, _ = pyhessian_spectrum(networks["tanh"].objective, k=2, max_iterations=2)
    assert not pairs.converged


def test_module_and_generators_are_put_back(cases):
    model = cases.mlp()
    objective = Objective(model, nn.CrossEntropyLoss(), [cases.data()])
    before = objective.vector()
    state = torch.get_rng_state()
    pyhessian_spectrum(objective, max_iterations=3)
    assert torch.equal(objective.vector(), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_what_pyhessian_cannot_measure_is_said(cases):
    words = cases.Words().double()
    tokens = torch.randint(0, 7, (4, 5))
    objective = Objective(words, nn.CrossEntropyLoss(), [(tokens, tokens)])
    with pytest.raises(MeasurementError, match=r"PyHessian cannot measure Words.*engine='lanczos'"):
        pyhessian_spectrum(objective, max_iterations=2)
    half = Objective(cases.mlp().bfloat16(), nn.CrossEntropyLoss(), [cases.data()])
    with pytest.raises(MeasurementError, match=r"engine='lanczos'"):
        pyhessian_spectrum(half, max_iterations=2)
    with pytest.raises(MeasurementError, match="k=200"):
        pyhessian_spectrum(Objective(cases.mlp(), nn.CrossEntropyLoss(), [cases.data()]), k=200)
