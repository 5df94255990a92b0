from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from landscape import MeasurementError, Objective
from landscape.curvature import hessian


def test_hessian_is_the_dense_one(network):
    size = float(network.matrix.abs().max())
    torch.testing.assert_close(network.operator.dense(), network.matrix, rtol=1e-9, atol=1e-12 * size)


def test_networks_cover_the_signs_of_the_spectrum(networks):
    assert all(case.eigenvalues[0] < 0 < case.eigenvalues[-1] for case in networks.values())


def test_hessian_at_another_vector_and_in_float32(cases):
    x, y = cases.data()
    model = cases.mlp()
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    vector = objective.vector() * 1.2
    operator = hessian(objective, vector)
    double = cases.mlp().double()
    reference = cases.dense_hessian(double, lambda: F.cross_entropy(double(x.double()), y), vector.double())
    assert operator.dtype == torch.float32
    torch.testing.assert_close(operator.dense().double(), reference, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(hessian(objective, vector.numpy()).dense(), operator.dense())


def test_the_operator_stays_at_its_point(cases):
    model = cases.mlp().double()
    objective = Objective(model, nn.CrossEntropyLoss(), [cases.data()])
    operator = hessian(objective)
    before = operator.dense()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    assert torch.equal(operator.dense(), before)
    assert not torch.allclose(hessian(objective).dense(), before)


def test_a_loss_linear_in_the_parameters_has_no_curvature(cases):
    x, y = cases.data()
    objective = Objective(nn.Linear(4, 3), lambda out, y: out.sum(), [(x, y)])
    assert float(hessian(objective).dense().abs().max()) == 0


def test_nothing_is_left_behind(cases):
    module = cases.Eventful()
    objective = Objective.from_lightning(module, [cases.data()])
    state = torch.get_rng_state()
    hessian(objective) @ objective.vector()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in module.parameters())
    assert module.calls == 0


def test_nan_loss_is_refused(cases):
    x, y = cases.data()
    objective = Objective(cases.mlp(), nn.CrossEntropyLoss(), [(x * np.nan, y)])
    with pytest.raises(MeasurementError, match=r"loss on the measured examples is nan.*look at the weights"):
        hessian(objective)


def test_infinite_curvature_is_refused():
    objective = Objective(
        nn.Linear(2, 1), lambda out, y: (out - out).abs().sqrt().sum() + out.sum(), [(torch.ones(1, 2), 0)]
    )
    with pytest.raises(MeasurementError, match=r"product is not finite"):
        hessian(objective) @ torch.ones(3)


def test_operations_without_second_derivative_are_refused(cases):
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, grad):
            return grad * 2

    x, y = cases.data()
    objective = Objective(nn.Linear(4, 3), lambda out, y: F.cross_entropy(Once.apply(out), y), [(x, y)])
    with pytest.raises(MeasurementError, match=r"cannot be differentiated twice.*Replace the operation"):
        hessian(objective) @ torch.ones(15)
