"""Curvature of losses that contain derivatives: by inputs, or by weights as in an inner training step."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.func import functional_call

from landscape import Objective
from landscape.curvature import hessian, top_eigenpairs, trace
from landscape.sharpness import gradient_norm, sam


class Inner(nn.Module):
    """A network with a training step that differentiates it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch, batch_idx):
        with torch.enable_grad():
            return self.step(*batch)


class Pinn(Inner):
    """u'' = −u on random points, and u(0) = 1."""

    def step(self, x, y):
        x = x.clone().requires_grad_()
        u = self.net(x)
        (first,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
        return F.mse_loss(second, -u) + F.mse_loss(u, y)


class Forces(Inner):
    """Energies and their negative slopes."""

    def step(self, x, y):
        x = x.clone().requires_grad_()
        energy = self.net(x)
        (slope,) = torch.autograd.grad(energy.sum(), x, create_graph=True)
        return F.mse_loss(energy, y) + F.mse_loss(-slope, torch.ones_like(slope))


class Penalty(Inner):
    """A critic with a penalty on the norm of its gradient by images."""

    def step(self, x, y):
        x = x.clone().requires_grad_()
        scores = self.net(x)
        (slope,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
        return F.mse_loss(scores, y) + ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()


class Maml(Inner):
    """The loss after one step of gradient descent on the first half of the batch."""

    def step(self, x, y):
        half = len(x) // 2
        # Parameters of a loss that is only evaluated may have no gradient.
        named = {name: p if p.requires_grad else p.requires_grad_() for name, p in self.net.named_parameters()}
        inner = F.mse_loss(self.net(x[:half]), y[:half])
        slopes = torch.autograd.grad(inner, list(named.values()), create_graph=True)
        moved = {name: p - 0.3 * slope for (name, p), slope in zip(named.items(), slopes, strict=True)}
        return F.mse_loss(functional_call(self.net, moved, (x[half:],)), y[half:])


def scalar(inputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 6), nn.Tanh(), nn.Linear(6, 5), nn.Softplus(), nn.Linear(5, 1))


def critic() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Conv2d(3, 2, 2), nn.Softplus(), nn.Flatten(), nn.Linear(8, 1)
    )


STEPS = {
    "physics-informed": (lambda: Pinn(scalar(1)), (12, 1)),
    "force matching": (lambda: Forces(scalar(3)), (12, 3)),
    "gradient penalty": (lambda: Penalty(critic()), (8, 1, 5, 5)),
    "inner training": (lambda: Maml(scalar(2)), (12, 2)),
}


@pytest.mark.filterwarnings("ignore:the loss of Maml is measured as the mean over the batches")
@pytest.mark.parametrize("name", STEPS)
def test_curvature_of_steps_that_differentiate(cases, name):
    make, shape = STEPS[name]
    module = make().double().eval()
    x, y = torch.randn(shape, dtype=torch.float64), torch.randn(shape[0], 1, dtype=torch.float64)
    objective = Objective.from_lightning(module, [(x, y)])
    loss = lambda: module.training_step((x, y), 0)  # noqa: E731
    assert float(objective.loss()) == pytest.approx(float(loss().detach()), rel=1e-12)
    exact = _dense(module, loss())
    operator = hessian(objective)
    assert "differences" not in operator.strategy
    torch.testing.assert_close(operator.dense(), exact, rtol=1e-8, atol=1e-10)
    pairs = top_eigenpairs(operator, k=2)
    values = torch.linalg.eigvalsh(exact).flip(0)
    torch.testing.assert_close(torch.as_tensor(pairs.values.copy()), values[:2], rtol=1e-6, atol=1e-9)
    found = trace(operator, tol=0.05)
    assert abs(found.value - float(exact.trace())) < 5 * found.stderr
    slope = cases.autograd_gradient(module, loss()).norm()
    assert gradient_norm(objective).value == pytest.approx(float(slope.detach()), rel=1e-9)
    assert sam(objective).value > 0


def _dense(module, loss):
    parameters = list(module.parameters())
    gradients = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True, materialize_grads=True)
    flat = torch.cat([g.reshape(-1) for g in gradients])
    options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    rows = [torch.autograd.grad(entry, parameters, **options) for entry in flat]
    return torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])
