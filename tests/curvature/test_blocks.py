from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.curvature import fisher, ggn, hessian, layer_curvature, operator_gap
from landscape.curvature._dense import DenseOperator


def test_layers_of_a_network(networks):
    network = networks["tanh trained"]
    layout = network.objective.layout
    blocks, start = {}, 0
    for name, size in zip(layout.names, layout.sizes, strict=True):
        part = slice(start, start + size)
        blocks[name] = DenseOperator(network.matrix[part, part].contiguous())
        start += size
    found = layer_curvature(blocks, tol=0.01)
    assert [layer.name for layer in found] == list(layout.names)
    for layer in found:
        eigenvalues = np.linalg.eigvalsh(blocks[layer.name].matrix.numpy())
        assert layer.size == len(eigenvalues)
        assert layer.lambda_max == pytest.approx(eigenvalues[-1], rel=1e-4)
        assert abs(layer.trace.value - eigenvalues.sum()) <= 4 * layer.trace.stderr + 1e-9
    whole = float(network.matrix.trace())
    error = np.sqrt(sum(layer.trace.stderr**2 for layer in found))
    assert abs(sum(layer.trace.value for layer in found) - whole) <= 4 * error + 1e-9
    assert max(layer.lambda_max for layer in found) <= network.eigenvalues[-1] + 1e-9
    assert layer_curvature(iter(blocks.items()), tol=0.01)[0].lambda_max == found[0].lambda_max


@pytest.mark.parametrize("method", ["xtrace", "hutch++", "hutchinson"])
@pytest.mark.parametrize("make", [hessian, ggn, fisher])
@pytest.mark.parametrize("name", ["cnn", "encoder", "words"])
def test_layers_of_real_operators(zoo, name, make, method):
    network = zoo[name]
    operator = make(Objective(network.model, network.loss_fn, network.batches))
    matrix = {"hessian": network.hessian, "ggn": network.ggn, "fisher": network.fisher}[make.__name__]
    blocks = operator.layers()
    before = operator.n_matvecs
    found = {layer.name: layer for layer in layer_curvature(blocks, method, tol=0.02)}
    assert list(found) == list(blocks)
    for owner, block in blocks.items():
        rows = block.cut(torch.arange(operator.shape[0]))
        eigenvalues = torch.linalg.eigvalsh(matrix[rows][:, rows])
        layer = found[owner]
        assert layer.lambda_max == pytest.approx(float(eigenvalues[-1]), rel=1e-4, abs=1e-9)
        rounding = 1e-9 * float(eigenvalues.abs().sum())
        assert abs(layer.trace.value - float(eigenvalues.sum())) <= 4 * layer.trace.stderr + rounding
    assert sum(block.n_matvecs for block in blocks.values()) == operator.n_matvecs - before


@pytest.mark.parametrize("seed", range(3))
def test_layers_beyond_the_size_of_whole_ones(cases, seed):
    network = cases.mlp(width=20).double()
    x, y = cases.data(60)
    loss_fn = nn.CrossEntropyLoss()
    cases.trained(network, loss_fn, [(x, y)], steps=60)
    matrix = cases.dense_hessian(network, lambda: loss_fn(network(x.double()), y))
    operator = hessian(Objective(network, loss_fn, [(x[:50], y[:50]), (x[50:], y[50:])]))
    for method in ("xtrace", "hutch++"):
        block = operator.restrict("2")
        (layer,) = layer_curvature({"2": block}, method, tol=0.02, seed=seed, max_matvecs=150)
        eigenvalues = torch.linalg.eigvalsh(matrix[100:520, 100:520]).numpy()
        assert layer.converged
        assert layer.lambda_max == pytest.approx(eigenvalues[-1], rel=1e-3)
        assert abs(layer.trace.value - eigenvalues.sum()) <= 4 * layer.trace.stderr
        assert layer.trace.stderr <= 0.02 * abs(layer.trace.value)
        assert 0 < layer.trace.n_matvecs < block.n_matvecs < 250


@pytest.mark.parametrize("name", ["mlp tanh", "cnn", "encoder", "words"])
def test_gaps_of_real_operators(zoo, name):
    network = zoo[name]
    objective = Objective(network.model, network.loss_fn, network.batches)
    h, g = hessian(objective), ggn(objective)
    dense = DenseOperator(network.hessian), DenseOperator(network.ggn)
    part = h.layout.names[-1]
    rows = h.restrict(part).cut(torch.arange(h.shape[0]))
    blocks = [DenseOperator(operator.matrix[rows][:, rows]) for operator in dense]
    for pair, expected in (((h, g), dense), ((h.restrict(part), g.restrict(part)), blocks)):
        gap = operator_gap(*pair, probes=150)
        frobenius, trace, cosine = exact_gap(*expected)
        assert abs(gap.frobenius.value - frobenius) <= 4 * gap.frobenius.stderr + 1e-9
        assert abs(gap.trace.value - trace) <= 4 * gap.trace.stderr + 1e-9
        assert gap.cosine == pytest.approx(cosine, abs=0.1)


def pair(with_eigenvalues, size=80):
    a = with_eigenvalues(np.exp(-np.arange(size) / 10.0))
    b = DenseOperator(a.matrix - 0.2 * with_eigenvalues(np.linspace(0, 0.5, size), seed=1).matrix)
    return a, b


def exact_gap(a, b):
    a, b = a.matrix.numpy(), b.matrix.numpy()
    norms = np.linalg.norm(a), np.linalg.norm(b)
    return np.linalg.norm(a - b) / norms[0], np.trace(a - b) / abs(np.trace(a)), (a * b).sum() / (norms[0] * norms[1])


def test_gap_over_seeds(with_eigenvalues):
    a, b = pair(with_eigenvalues)
    frobenius, trace, cosine = exact_gap(a, b)
    gaps = [operator_gap(a, b, probes=12, seed=seed) for seed in range(200)]
    for name, exact in (("frobenius", frobenius), ("trace", trace)):
        found = [getattr(gap, name) for gap in gaps]
        assert 0.9 <= np.mean([abs(e.value - exact) <= 1.96 * e.stderr for e in found]) <= 0.985
        assert np.mean([e.value for e in found]) == pytest.approx(exact, rel=0.05)
    assert np.mean([gap.cosine for gap in gaps]) == pytest.approx(cosine, abs=0.02)
    assert gaps[0].n_matvecs == 24


def test_gap_of_small_operators_is_exact(with_eigenvalues):
    a, b = pair(with_eigenvalues, size=20)
    gap = operator_gap(a, b)
    assert (gap.frobenius.value, gap.trace.value, gap.cosine) == pytest.approx(exact_gap(a, b), rel=1e-10)
    assert (gap.frobenius.stderr, gap.trace.stderr) == (0, 0)
    negative = operator_gap(DenseOperator(-a.matrix), DenseOperator(-b.matrix))
    assert negative.trace.value == pytest.approx(-gap.trace.value)


@pytest.mark.parametrize("size", [20, 60])
def test_no_gap_and_no_unit(with_eigenvalues, size):
    a = with_eigenvalues(np.linspace(1, 2, size))
    same = operator_gap(a, a)
    assert (same.frobenius.value, same.frobenius.stderr, same.trace.value) == (0, 0, 0)
    assert same.cosine == pytest.approx(1)
    zero = operator_gap(DenseOperator(torch.zeros(size, size, dtype=torch.float64)), a)
    assert np.isnan([zero.frobenius.value, zero.trace.value, zero.cosine]).all()


def test_refusals(with_eigenvalues):
    with pytest.raises(ValueError, match="have no distance"):
        operator_gap(with_eigenvalues(np.ones(30)), with_eigenvalues(np.ones(31)))
    with pytest.raises(ValueError, match="probes is 1"):
        operator_gap(with_eigenvalues(np.ones(30)), with_eigenvalues(np.ones(30)), probes=1)
