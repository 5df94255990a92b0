from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from landscape import _graph
from landscape._graph import as_outputs, batches_well, is_cut_off, kinks, nodes, reaches, saved_bytes


def test_saved_bytes_agree_with_what_torch_packs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.LayerNorm(30), nn.Linear(30, 5), nn.GELU())
    x = torch.randn(50, 20)
    packed: dict[int, int] = {}

    def pack(tensor):
        packed[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(x).square().mean()
    for parameter in model.parameters():
        packed.pop(parameter.untyped_storage().data_ptr(), None)
    assert saved_bytes([loss], list(model.parameters())) == sum(packed.values()) > 50 * 30 * 4 * 2


def test_reaches_stops_at_a_boundary():
    a, b = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    middle = a * 2
    end = middle.sum() + b.sum()
    assert reaches([end], [a])
    assert not reaches([end], [a], [middle.grad_fn])
    assert reaches([end], [a, b], [middle.grad_fn])
    assert not reaches([torch.ones(())], [a])


def test_nodes_come_once():
    a = torch.ones(2, requires_grad=True)
    b = a * a
    assert [node.name() for node in nodes([b + b])] == [
        "AddBackward0",
        "MulBackward0",
        "torch::autograd::AccumulateGrad",
    ]


def test_kinks_are_named():
    x = torch.randn(4, 6, requires_grad=True)
    assert kinks([torch.relu(x).sum()]) == ["Relu"]
    assert kinks([x.clamp(0, 1).abs().amax()]) == ["Abs", "Amax", "Clamp"]
    assert kinks([nn.functional.leaky_relu(nn.functional.hardtanh(x)).sum()]) == ["Hardtanh", "LeakyRelu"]
    assert kinks([nn.functional.gelu(x).softmax(0).tanh().sum()]) == []


def test_batching_pays_for_small_graphs_without_convolutions():
    x = torch.randn(2, 1, 6, 6, requires_grad=True)
    flat = [torch.tanh(x @ torch.randn(6, 6)).sum()]
    assert batches_well(flat, saved_bytes(flat))
    assert not batches_well(flat, 10**6)
    convolved = [torch.nn.functional.conv2d(x, torch.randn(1, 1, 3, 3)).sum()]
    assert not batches_well(convolved, saved_bytes(convolved))


def test_missing_second_derivatives_are_seen():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, grad):
            return grad * 2

    x = torch.randn(3, requires_grad=True)
    (gradient,) = torch.autograd.grad(Once.apply(x).square().sum(), x, create_graph=True)
    assert is_cut_off([gradient])
    (gradient,) = torch.autograd.grad((2 * x).square().sum(), x, create_graph=True)
    assert not is_cut_off([gradient])


@pytest.mark.parametrize("edges", [True, False])
def test_gradients_are_differentiated_again_without_their_numbers(edges, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(_graph, "_takes_edges", lambda: edges)  # older releases of torch take tensors alone
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    x, y = torch.randn(4, 6), torch.tensor([0, 1, 0, 1])
    parameters = list(model.parameters())
    loss = nn.functional.cross_entropy(model(x), y)
    gradients = list(torch.autograd.grad(loss, parameters, create_graph=True))
    vectors = [torch.randn_like(parameter) for parameter in parameters]
    exact = torch.autograd.grad(gradients, parameters, vectors, retain_graph=True)
    roots, size = as_outputs(gradients), saved_bytes(gradients)
    numbers = weakref.ref(gradients[0])
    del gradients
    assert (numbers() is None) == edges
    assert saved_bytes(roots) == size
    assert not is_cut_off(roots)
    for _ in range(2):
        found = torch.autograd.grad(roots, parameters, vectors, retain_graph=True)
        assert all(torch.equal(a, b) for a, b in zip(found, exact, strict=True))
    batched = torch.autograd.grad(
        roots, parameters, [torch.stack([v, 2 * v]) for v in vectors], retain_graph=True, is_grads_batched=True
    )
    assert all(torch.allclose(a[1], 2 * b, rtol=1e-5) for a, b in zip(batched, exact, strict=True))


def test_this_release_of_torch_takes_edges_where_they_keep_their_graph():
    assert _graph._takes_edges() == ("ownership_token" in torch.autograd.graph.GradientEdge._fields)


def test_the_graph_behind_a_python_function_outlives_its_gradient():
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return Square.apply(x, grad)

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, grad):
            ctx.save_for_backward(x, grad)
            return 3 * x**2 * grad

        @staticmethod
        def backward(ctx, cotangent):
            x, grad = ctx.saved_tensors
            return 6 * x * grad * cotangent, None

    x = torch.tensor([1.0, 2.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(Cube.apply(x).sum(), x, create_graph=True)
    roots = as_outputs([gradient])
    del gradient
    gc.collect()
    (found,) = torch.autograd.grad(roots, [x], [torch.ones(2)])
    assert found.tolist() == [6.0, 12.0]
