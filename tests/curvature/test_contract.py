"""What every symmetric operator promises, whatever it is made of: a new one states here how to build it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.curvature import fisher, ggn, hessian

BUILD = {
    "retained": lambda o: hessian(o, strategy="retained"),
    "rebuilt": lambda o: hessian(o, strategy="rebuilt"),
    "linearized": lambda o: hessian(o, strategy="linearized"),
    "differences": lambda o: hessian(o, strategy="differences"),
    "chunks": lambda o: hessian(o, chunk_size=2),
    "columns": lambda o: hessian(o, chunk_size=1),
    "ggn": ggn,
    "ggn rebuilt": lambda o: ggn(o, memory_budget=0),
    "fisher": fisher,
    "mc fisher": lambda o: fisher(o, "mc", draws=3),
    "mc fisher rebuilt": lambda o: fisher(o, "mc", draws=3, memory_budget=0),
    "empirical fisher": lambda o: fisher(o, "empirical"),
    "scaled": lambda o: 0.5 * hessian(o),
    "gap": lambda o: hessian(o) - ggn(o),
    "weight decay": lambda o: hessian(o).weight_decay({"*weight": 0.1}),
    "restricted": lambda o: hessian(o).restrict(["*weight"]),
    "restricted twice": lambda o: hessian(o).restrict(["*weight", "*bias"]).restrict("*weight"),
    "restricted sum": lambda o: (hessian(o) - 2 * ggn(o)).restrict("*weight"),
    "restricted fisher": lambda o: fisher(o, "empirical").restrict("*weight"),
    "sum of blocks": lambda o: hessian(o).restrict("*weight") + ggn(o).restrict("*weight"),
}
MODELS = {"tanh": "mlp", "cnn": "ConvNet"}


@pytest.fixture(scope="module", params=MODELS)
def objective(request, cases):
    torch.manual_seed(1)
    x, y = cases.data(12)
    model = getattr(cases, MODELS[request.param])().double().eval()
    if request.param == "cnn":
        x = torch.randn(12, 1, 5, 5)
    return Objective(model, nn.CrossEntropyLoss(), [(x[:7], y[:7]), (x[7:], y[7:])])


@pytest.fixture(scope="module")
def built(objective):
    """Operators by name, made once for each model: linearising one takes as long as all else here."""
    return {}


@pytest.fixture(params=BUILD)
def operator(request, objective, built):
    if request.param not in built:
        built[request.param] = BUILD[request.param](objective)
    own = copy.copy(built[request.param])
    own.n_matvecs = 0
    return own


@pytest.fixture
def block(operator):
    return torch.randn(operator.shape[0], 5, dtype=torch.float64)


def close(actual, expected, atol=1e-8):
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=atol)


def test_symmetric_and_linear(operator, block):
    u, v = block[:, 0], block[:, 1]
    close(torch.dot(u, operator @ v), torch.dot(v, operator @ u), atol=1e-6)
    close(operator @ (2 * u - 3 * v), 2 * (operator @ u) - 3 * (operator @ v))
    assert float((operator @ torch.zeros_like(u)).abs().max()) == 0


def test_blocks_equal_columns_and_are_counted(operator, block):
    product = operator @ block
    assert operator.n_matvecs == 5
    close(product, torch.stack([operator @ column for column in block.unbind(dim=1)], dim=1))
    assert operator.n_matvecs == 10
    assert (operator @ block[:, :0]).shape == (operator.shape[0], 0)
    assert operator.n_matvecs == 10


def test_two_looks_agree(operator, block):
    assert torch.equal(operator @ block[:, 0], operator @ block[:, 0])


def test_scipy(operator, block):
    wrapped = operator.to_scipy()
    assert wrapped.shape == operator.shape
    np.testing.assert_allclose(wrapped @ block.numpy(), (operator @ block).numpy(), rtol=1e-12)
    np.testing.assert_allclose(wrapped @ block[:, 0].numpy(), (operator @ block[:, 0]).numpy(), rtol=1e-12)


def test_restriction_is_the_sub_block(operator):
    names = [operator.layout.names[0], operator.layout.names[-1]]
    part = operator.restrict(names)
    assert part.layout.names == tuple(names)
    rows = part.cut(torch.arange(operator.shape[0]))
    close(part.dense(), operator.dense()[rows][:, rows])
    padded = part.pad(torch.ones(part.shape[0]))
    assert float(padded.sum()) == part.shape[0]
    assert torch.equal(part.cut(padded), torch.ones(part.shape[0]))


def test_layers_are_the_diagonal_blocks(operator):
    dense = operator.dense()
    layers = operator.layers()
    assert sum(layer.shape[0] for layer in layers.values()) == operator.shape[0]
    for layer in layers.values():
        rows = layer.cut(torch.arange(operator.shape[0]))
        close(layer.dense(), dense[rows][:, rows])


def test_algebra(operator, block):
    product = operator @ block
    close((operator + operator) @ block, 2 * product)
    close((operator - 0.5 * operator) @ block, 0.5 * product)
    close((-operator / 4) @ block, -0.25 * product)
    close((operator * 3).weight_decay(0.5) @ block, 3 * product + 0.5 * block)


def test_prints_what_it_is(operator):
    assert "n_matvecs=0" in repr(operator)
