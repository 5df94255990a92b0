from __future__ import annotations

import inspect

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from landscape import Objective
from landscape._twice import CheapSecondDerivatives
from landscape.curvature import hessian

CONVOLUTIONS = {
    "plain": (nn.Conv2d(3, 4, 3), (2, 3, 6, 6)),
    "strided": (nn.Conv2d(3, 4, 3, stride=2, padding=1), (2, 3, 6, 6)),
    "dilated": (nn.Conv2d(3, 4, (2, 3), dilation=(2, 1), padding=(0, 2), bias=False), (2, 3, 7, 6)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4, stride=(1, 2)), (2, 4, 5, 7)),
    "reflecting": (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (2, 3, 5, 5)),
    "same": (nn.Conv2d(3, 4, 3, padding="same"), (2, 3, 5, 5)),
    "transposed": (nn.ConvTranspose2d(3, 4, 3), (2, 3, 4, 4)),
    "line": (nn.Conv1d(3, 4, 3, stride=2), (2, 3, 9)),
    "space": (nn.Conv3d(2, 3, 2), (2, 2, 3, 4, 3)),
    "without a batch": (nn.Conv2d(3, 4, 3), (3, 6, 6)),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_second_derivatives_are_those_of_torch(case):
    layer, shape = CONVOLUTIONS[case]
    torch.manual_seed(0)
    layer = layer.double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    tensors = [x, *layer.parameters()]
    directions = [torch.randn_like(tensor) for tensor in tensors]

    def second(cheap: bool) -> tuple[torch.Tensor, ...]:
        if cheap:
            with CheapSecondDerivatives():
                loss = torch.relu(layer(x)).pow(3).sum()
        else:
            loss = torch.relu(layer(x)).pow(3).sum()
        gradients = torch.autograd.grad(loss, tensors, create_graph=True)
        return gradients + torch.autograd.grad(gradients, tensors, directions)

    for ours, theirs in zip(second(True), second(False), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_only_part_of_the_tensors_may_have_a_derivative():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    for frozen in ("weight", "bias"):
        layer = nn.Conv2d(3, 4, 3).double()
        getattr(layer, frozen).requires_grad_(False)
        second = nn.Conv2d(4, 2, 2).double()
        parameters = [p for p in (*layer.parameters(), *second.parameters()) if p.requires_grad]
        products = []
        for cheap in (True, False):
            with CheapSecondDerivatives() if cheap else torch.enable_grad():
                loss = second(torch.relu(layer(x))).pow(4).sum()
            gradients = torch.autograd.grad(loss, parameters, create_graph=True)
            products.append(torch.autograd.grad(gradients, parameters, [p.detach() for p in parameters]))
        for ours, theirs in zip(*products, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("inplace", [False, True])
def test_hessian_of_a_convolutional_network(cases, inplace):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(inplace), nn.MaxPool2d(2), nn.Conv2d(3, 2, 2), nn.ReLU(inplace),
        nn.Flatten(), nn.Linear(8, 3),
    ).double()  # fmt: skip
    x, y = torch.randn(6, 1, 6, 6, dtype=torch.float64), torch.arange(6) % 3
    operator = hessian(Objective(model, nn.CrossEntropyLoss(), [(x[:4], y[:4]), (x[4:], y[4:])]))
    exact = cases.dense_hessian(model, lambda: nn.functional.cross_entropy(model(x), y))
    torch.testing.assert_close(operator.dense(), exact, rtol=1e-10, atol=1e-12)
    block = torch.randn(operator.shape[0], 5, dtype=torch.float64)
    torch.testing.assert_close(operator @ block, exact @ block, rtol=1e-10, atol=1e-12)


def test_columns_of_a_convolution_can_be_taken_together():
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 3).double()
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    parameters = list(layer.parameters())
    with CheapSecondDerivatives():
        loss = torch.relu(layer(x)).pow(3).sum()
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    columns = [torch.randn(4, *p.shape, dtype=torch.float64) for p in parameters]
    options = {"retain_graph": True, "allow_unused": True}
    together = torch.autograd.grad(gradients, parameters, columns, is_grads_batched=True, **options)
    for index in range(4):
        single = torch.autograd.grad(gradients, parameters, [column[index] for column in columns], **options)
        for ours, theirs in zip(together, single, strict=True):
            torch.testing.assert_close(ours[index], theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.skipif("weight" not in inspect.signature(F.l1_loss).parameters, reason="this torch has no weights there")
def test_weights_that_torch_drops_in_a_function_mode_are_kept():
    x, y, weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).unbind()
    weight = weight.exp()
    with CheapSecondDerivatives(), CheapSecondDerivatives():
        watched = F.l1_loss(x, y, weight=weight), F.l1_loss(x, y, reduction="sum", weight=weight), F.l1_loss(x, y)
    plain = F.l1_loss(x, y, weight=weight), F.l1_loss(x, y, reduction="sum", weight=weight), F.l1_loss(x, y)
    assert watched == plain
    assert float(plain[0]) != pytest.approx(float(plain[2]), rel=1e-3)


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="this torch has no linear_cross_entropy")
def test_a_loss_in_chunks_has_the_curvature_of_the_loss():
    torch.manual_seed(0)
    body, head = nn.Linear(4, 5), nn.Linear(5, 3)
    x, y = torch.randn(12, 4, dtype=torch.float64), torch.arange(12) % 3

    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList([body, head]).double()

        def forward(self, x):
            return body(x).tanh()

    def loss(z, y):
        options = nn.LinearCrossEntropyOptions()
        return F.linear_cross_entropy(z, head.weight, y, linear_bias=head.bias, options=options)

    chunked = hessian(Objective(Hidden(), loss, [(x[:5], y[:5]), (x[5:], y[5:])])).dense()
    plain = hessian(Objective(Hidden(), lambda z, y: F.cross_entropy(head(z), y), [(x, y)])).dense()
    torch.testing.assert_close(chunked, plain, rtol=1e-10, atol=1e-12)
