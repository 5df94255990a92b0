"""The pretend accelerator refuses and counts what a GPU would."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn


def test_tensors_of_two_devices_do_not_mix(pretend):
    here, there = torch.ones(3), torch.ones(3, device=pretend)
    with pytest.raises(RuntimeError, match="same device"):
        here + there
    with pytest.raises(RuntimeError, match="same device"):
        F.linear(there[None], torch.eye(3))
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    assert (there + torch.tensor(2.0)).device == pretend
    assert (2 * there).tolist() == [2, 2, 2]


def test_a_generator_of_the_cpu_is_refused(pretend):
    with pytest.raises(RuntimeError, match="generator"):
        torch.empty(3, device=pretend).normal_(generator=torch.Generator())


def test_its_random_numbers_are_its_own(pretend):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    there = torch.randn(5, device=pretend)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.randn(5), there.cpu())


@pytest.mark.parametrize(
    ("wait", "kind"),
    [
        (lambda x: x.sum().item(), "_local_scalar_dense"),
        (lambda x: bool((x > 0).all()), "_local_scalar_dense"),
        (lambda x: x.cpu(), "copy to the host"),
        (lambda x: x.double().cpu(), "copy to the host"),
        (lambda x: x.tolist(), "copy to the host"),
        (lambda x: x[x > 0], "nonzero"),
        (lambda x: x.__setitem__(x > 0, torch.ones_like(x[:2])), "_index_put_impl_"),
        (lambda x: torch.linalg.eigh(x[:, None] * x), "_linalg_eigh"),
        (lambda x: torch.equal(x, x), "equal"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: torch.empty(3).copy_(x), "copy to the host"),
    ],
)
def test_what_a_gpu_waits_for_is_counted_once(accelerator, pretend, wait, kind):
    x = torch.tensor([1.0, -2.0, 3.0], device=pretend)
    with accelerator.counted() as waits:
        wait(x)
    assert waits == {kind: 1}


def test_what_a_gpu_does_not_wait_for_is_not_counted(accelerator, pretend):
    x = torch.tensor([1.0, -2.0, 3.0], device=pretend)
    with accelerator.counted() as waits:
        y = torch.where(x > 0, x, 0.0).clamp_min(0.5).square().sum()
        x[0] = 4.0
        x[x < 0] = -5.0
        x[1:].mul_(y)
        torch.linalg.vector_norm(x).sqrt().double()
        x.to(pretend, torch.float64, copy=True)
    assert not waits
    x, y = x.cpu(), y.cpu()
    assert y == 10.25
    assert x.tolist() == [4.0, -51.25, 30.75]


class Net(nn.Module):
    """Convolution, normalisation, attention, embedding and recurrence."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.attention = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.table = nn.Embedding(5, 4)
        self.memory = nn.RNN(4, 4, batch_first=True)

    def forward(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Return one number an example and class, shape (examples, 4)."""
        seen = torch.relu(self.norm(self.conv(x))).flatten(2).transpose(1, 2)
        return self.memory(self.attention(seen) + self.table(index))[0][:, -1]


def test_networks_give_the_numbers_of_the_cpu_and_so_do_their_derivatives(pretend):
    torch.manual_seed(0)
    net, x, index = Net().double(), torch.randn(6, 1, 5, 5).double(), torch.randint(5, (6, 9))

    def derivatives() -> list[torch.Tensor]:
        parameters = list(net.parameters())
        device = parameters[0].device
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            scores = net(x.to(device), index.to(device))
        loss = F.cross_entropy(scores, torch.arange(6).to(device) % 4)
        first = torch.autograd.grad(loss, parameters, create_graph=True)
        second = torch.autograd.grad(sum((g * g.detach()).sum() for g in first), parameters, allow_unused=True)
        return [loss.detach(), *(part.detach() for part in (*first, *second) if part is not None)]

    expected = derivatives()
    net.to(pretend)
    found = derivatives()
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.device == pretend
        torch.testing.assert_close(one.cpu(), other, rtol=1e-10, atol=1e-14)
