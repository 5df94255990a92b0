"""Hessians of modules that torch evaluates in ways of its own: weight_norm, scripted code, layers in bfloat16."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from landscape import Objective
from landscape.curvature import ggn, hessian, top_eigenpairs


def old_style(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(layer)


def written_out(parts, x):
    """The network of `normed` with its weights formed by hand: g v / ‖v‖ row by row, after each layer's bias."""

    def layer(z, bias, g, v):
        return F.linear(z, g * v / v.square().sum(1, keepdim=True).sqrt(), bias)

    return layer(torch.tanh(layer(x, *parts[:3])), *parts[3:])


@pytest.fixture(params=["parametrised", "old style"])
def normed(request):
    wrap = nn.utils.parametrizations.weight_norm if request.param == "parametrised" else old_style
    model = nn.Sequential(wrap(nn.Linear(4, 6)), nn.Tanh(), wrap(nn.Linear(6, 3))).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("original0", "weight_g")):
                parameter.mul_(3)
    return model


@pytest.mark.parametrize("strategy", ["auto", "retained", "rebuilt", "linearized"])
def test_weight_norm_has_its_exact_hessian(cases, normed, strategy):
    x, y = cases.data(30)
    x = x.double()
    objective = Objective(normed, nn.CrossEntropyLoss(), [(x, y)])
    point = objective.vector()
    torch.testing.assert_close(written_out(objective.layout.unflatten(point), x), normed(x))

    def loss(vector):
        return F.cross_entropy(written_out(objective.layout.unflatten(vector), x), y)

    exact = torch.autograd.functional.hessian(loss, point)
    operator = hessian(objective, strategy=strategy)
    assert "differences" not in operator.strategy
    torch.testing.assert_close(operator @ torch.eye(len(point)).double(), exact, rtol=1e-9, atol=1e-11)
    largest = float(torch.linalg.eigvalsh(exact)[-1])
    assert float(top_eigenpairs(operator, k=1).values[0]) == pytest.approx(largest, rel=1e-9)


def test_gauss_newton_matrix_of_weight_norm(cases, normed):
    x, y = cases.data(30)
    objective = Objective(normed, nn.MSELoss(), [(x.double(), F.one_hot(y, 3).double())])
    point = objective.vector()
    jacobian = torch.autograd.functional.jacobian(
        lambda vector: written_out(objective.layout.unflatten(vector), x.double()).reshape(-1), point
    )
    torch.testing.assert_close(ggn(objective).dense(), 2 / 90 * jacobian.T @ jacobian, rtol=1e-9, atol=1e-11)


class Headed(nn.Module):
    """A part before a linear head."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.part(x))


def part() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Softplus())


@pytest.mark.parametrize("compiler", ["script", "trace", "whole"])
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
def test_scripted_modules_are_measured_as_plain_ones(cases, compiler):
    x, y = cases.data(30)
    plain = Headed(part()).double()
    scripted = copy.deepcopy(plain)
    if compiler == "script":
        scripted.part = torch.jit.script(scripted.part)
    elif compiler == "trace":
        scripted.part = torch.jit.trace(scripted.part, x.double())
    else:
        scripted = torch.jit.script(scripted)
    own = [parameter.detach().clone() for parameter in scripted.parameters()]
    ours, theirs = (Objective(model, nn.CrossEntropyLoss(), [(x, y)]) for model in (scripted, plain))
    vector = 1.3 * theirs.vector()
    assert float(ours.loss(vector)) == pytest.approx(float(theirs.loss(vector)), rel=1e-12)
    torch.testing.assert_close(ours.gradient(vector), theirs.gradient(vector), rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(hessian(ours, vector).dense(), hessian(theirs, vector).dense(), rtol=1e-9, atol=1e-12)
    assert all(torch.equal(p, before) for p, before in zip(scripted.parameters(), own, strict=True))


class Cast(Headed):
    """Casts into its part's type and back, in one of the ways that code does."""

    def __init__(self, way: str) -> None:
        super().__init__(part().to(torch.bfloat16))
        self.way = way

    def forward(self, x):
        if self.way == "method":
            return self.head(self.part(x.bfloat16()).float())
        if self.way == "to":
            return self.head(self.part(x.to(torch.bfloat16)).to(torch.float32))
        return self.head(self.part(x.type(torch.bfloat16)).to(dtype=self.head.weight.dtype))


@pytest.mark.parametrize("way", ["method", "to", "type"])
@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_layers_cast_to_bfloat16_are_measured_in_float32(cases, way, dtype):
    x, y = cases.data(30)
    model = Cast(way)
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)], dtype=dtype)
    twin = Headed(part())
    twin.load_state_dict(model.state_dict())
    reference = Objective(twin, nn.CrossEntropyLoss(), [(x, y)], dtype=torch.float64)
    tolerance = 1e-9 if dtype else 1e-4
    assert objective.dtype == (dtype or torch.float32)
    torch.testing.assert_close(
        hessian(objective).dense().double(), hessian(reference).dense(), rtol=tolerance, atol=tolerance / 100
    )
    assert model.part[0].weight.dtype == torch.bfloat16
    assert float(F.cross_entropy(model(x), y).detach()) == pytest.approx(float(reference.loss()), rel=1e-2)
