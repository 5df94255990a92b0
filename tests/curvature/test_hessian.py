from __future__ import annotations

import warnings

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


class Once(torch.autograd.Function):
    """A square whose backward pass cannot be differentiated."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 2 * x * grad


def once(out, y):
    return F.cross_entropy(Once.apply(out), y)


@pytest.mark.parametrize("strategy", ["retained", "rebuilt"])
def test_operations_without_second_derivative_are_refused(cases, strategy):
    x, y = cases.data()
    objective = Objective(nn.Linear(4, 3), once, [(x, y)])
    with pytest.raises(MeasurementError, match=r"cannot be differentiated twice.*Replace the operation"):
        hessian(objective, strategy=strategy) @ torch.ones(15)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-6)])
def test_without_second_derivative_differences_are_taken(cases, dtype, tolerance):
    x, y = cases.data()
    model = nn.Linear(4, 3).to(dtype)
    operator = hessian(Objective(model, once, [(x[:30], y[:30]), (x[30:], y[30:])]))
    assert "float64 finite differences" in repr(operator)
    expected = hessian(Objective(model, lambda out, y: F.cross_entropy(out**2, y), [(x, y)]), strategy="retained")
    assert operator.dtype == dtype
    torch.testing.assert_close(operator.dense(), expected.dense(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), "Relu"),
        (lambda: nn.Sequential(nn.Unflatten(1, (1, 4)), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(2, 3)), ""),
        (lambda: nn.Sequential(nn.Linear(4, 8), nn.Unflatten(1, (1, 8)), nn.MaxPool1d(2), nn.Flatten()), "MaxPool"),
        (lambda: nn.Sequential(nn.Linear(4, 8), nn.Hardtanh(), nn.Linear(8, 3)), "Hardtanh"),
        (lambda: nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 3)), ""),
    ],
)
def test_differences_warn_where_the_derivative_jumps(cases, make, found):
    objective = Objective(make(), nn.CrossEntropyLoss(), [cases.data()])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hessian(objective, strategy="differences")
    assert [found in str(warning.message) for warning in caught] == ([True] if found else [])


def test_differences_stay_at_their_point(cases):
    model = cases.mlp().double()
    operator = hessian(Objective(model, nn.CrossEntropyLoss(), [cases.data()]), strategy="differences")
    before = operator.dense()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    assert torch.equal(operator.dense(), before)


@pytest.mark.parametrize("strategy", ["retained", "rebuilt", "linearized", "differences"])
def test_every_strategy_stays_at_its_point(cases, strategy):
    torch.manual_seed(0)
    model = cases.ConvNet().double()
    x, y = torch.randn(9, 1, 5, 5), torch.arange(9) % 3
    objective = Objective(model, nn.CrossEntropyLoss(), [(x[:5], y[:5]), (x[5:], y[5:])])
    operator = hessian(objective, strategy=strategy)
    direction = torch.randn(operator.shape[0], dtype=torch.float64)
    before = operator @ direction
    model.train()
    model(x.double())  # moves the running statistics
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    assert torch.equal(operator @ direction, before)


def test_graphs_are_kept_up_to_the_budget(cases):
    x, y = cases.data(60)
    model = cases.mlp().double()
    batches = [(x[start : start + 10], y[start : start + 10]) for start in range(0, 60, 10)]
    objective = Objective(model, nn.CrossEntropyLoss(), batches)
    everything = hessian(objective)
    assert everything.strategy.startswith("retained graphs,")
    total = everything._engine.kept_bytes
    some = hessian(objective, memory_budget=total // 2 + 1)
    assert some.strategy.startswith("retained graphs of 3 batches, 3 rebuilt at every product")
    assert some._engine.kept_bytes == total // 2
    none = hessian(objective, memory_budget=total // 6 - 1)
    assert none.strategy.startswith("graphs rebuilt at every product")
    assert none._engine.kept_bytes == 0
    direction = torch.randn(139, dtype=torch.float64)
    for operator in (some, none):
        torch.testing.assert_close(operator @ direction, everything @ direction, rtol=1e-12, atol=1e-15)


def test_a_rebuilt_graph_serves_all_columns(cases, monkeypatch):
    objective = Objective(cases.mlp(), nn.CrossEntropyLoss(), [cases.data()])
    operator = hessian(objective, strategy="rebuilt")
    evaluated = []
    batch_loss = objective.batch_loss
    monkeypatch.setattr(objective, "batch_loss", lambda *args: evaluated.append(1) or batch_loss(*args))
    operator @ torch.randn(139, 30)
    assert len(evaluated) == 1


def test_columns_go_together_where_that_pays(cases):
    assert "columns together" in hessian(Objective(cases.mlp(), nn.CrossEntropyLoss(), [cases.data()])).strategy
    images = torch.randn(6, 1, 5, 5), torch.arange(6) % 3
    assert "together" not in hessian(Objective(cases.ConvNet(), nn.CrossEntropyLoss(), [images])).strategy


def test_columns_go_one_by_one_where_they_cannot_go_together():
    class Cube(torch.autograd.Function):
        """Twice differentiable, but not under vmap."""

        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return Square.apply(x) * 3 * grad

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            assert float(grad.abs().max()) >= 0  # a look at values
            return 2 * x * grad

    objective = Objective(
        nn.Linear(2, 1).double(), lambda out, y: Cube.apply(out).mean(), [(torch.randn(5, 2), torch.zeros(5))]
    )
    operator = hessian(objective)
    assert "columns together" in operator.strategy
    expected = hessian(Objective(objective.module, lambda out, y: (out**3).mean(), objective.batches)).dense()
    torch.testing.assert_close(operator.dense(), expected)
    assert "together" not in operator.strategy


def test_unknown_settings_are_refused(cases):
    objective = Objective(cases.mlp(), nn.CrossEntropyLoss(), [cases.data()])
    with pytest.raises(ValueError, match=r"strategy is 'magic'; it must be one of auto, retained"):
        hessian(objective, strategy="magic")
    with pytest.raises(ValueError, match=r"chunk_size is 0"):
        hessian(objective, chunk_size=0)


def test_what_cannot_be_traced_is_refused(cases):
    objective = Objective(nn.Linear(4, 3), once, [cases.data()])
    with pytest.raises(MeasurementError, match=r"cannot be traced.*strategy='auto'"):
        hessian(objective, strategy="linearized")
    noisy = Objective(cases.mlp(), nn.CrossEntropyLoss(), [cases.data()], mode="train")
    with pytest.raises(MeasurementError, match=r"draw new random numbers.*noise_seed=0"):
        hessian(noisy, strategy="linearized")


@pytest.mark.parametrize("strategy", ["linearized", "differences", "rebuilt"])
def test_nan_loss_is_refused_by_every_strategy(cases, strategy):
    x, y = cases.data()
    objective = Objective(cases.mlp(), nn.CrossEntropyLoss(), [(x, y), (x * np.nan, y)])
    with pytest.raises(MeasurementError, match=r"loss on the measured examples is nan"):
        hessian(objective, strategy=strategy)


@pytest.mark.slow
def test_compiled_products(cases):
    x, y = cases.data()
    objective = Objective(cases.mlp(), nn.CrossEntropyLoss(), [(x, y)])
    compiled, plain = hessian(objective, strategy="compiled"), hessian(objective)
    direction = torch.randn(139)
    product = compiled @ direction
    with objective.session():
        again = compiled @ direction
    assert "compiled" in compiled.strategy
    torch.testing.assert_close(product, plain @ direction, rtol=1e-5, atol=1e-6)
    assert torch.equal(product, again)
