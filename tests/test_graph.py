from __future__ import annotations

import torch
from torch import nn

from landscape._graph import batches_well, is_cut_off, kinks, nodes, reaches, saved_bytes


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
