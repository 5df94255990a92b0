"""Losses and layers of other packages that are unusual to differentiate or to weigh."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from landscape_test_field.harness import check
from landscape_test_support.kind import Kind, Learns, loader, network, points
from landscape_test_support.losses import labelled, times, views
from torch import nn
from torch.utils.data import TensorDataset

# These measures rest on the gradient; the curve between two solutions is trained by it.
DERIVATIVES = ("lambda_max", "trace", "worst_case", "sam", "connectivity")


class Contrasts(Learns):
    """SimCLR with the NT-Xent loss of pytorch_metric_learning."""

    lr = 0.02

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.net, self.loss = network(), loss

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        first, second = batch
        labels = torch.arange(len(first)).repeat(2)
        return self.loss(self.net(torch.cat([first, second])), labels)


def test_simclr_means_over_batches(tmp_path):
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    made = Kind("SimCLR", "", lambda: Contrasts(losses.NTXentLoss(temperature=0.5)), views, share=lambda batch: 1.0)
    check(made, tmp_path)


class Oscillates(Learns):
    """A physics-informed network of sines: u'' = -u, u(0) = 1."""

    lr = 0.002

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        (t,) = batch
        t = t.clone().requires_grad_()
        u = self.net(t)
        (slope,) = torch.autograd.grad(u.sum(), t, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), t, create_graph=True)
        return (bend + u).pow(2).mean() + (self.net(torch.zeros_like(t[:1])) - 1).pow(2).mean()


def test_physics_informed_network_of_sines(tmp_path):
    siren = pytest.importorskip("siren_pytorch")
    net = {"dim_in": 1, "dim_hidden": 6, "dim_out": 1, "num_layers": 2, "w0_initial": 3.0}
    check(Kind("PINN", "", lambda: Oscillates(siren.SirenNet(**net)), times), tmp_path)


class Quantises(Learns):
    """A vector-quantised autoencoder with a straight-through estimator."""

    def __init__(self, quantiser: nn.Module):
        super().__init__()
        self.encoder, self.quantiser, self.decoder = nn.Linear(4, 2), quantiser, nn.Linear(2, 4)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, _ = batch
        code, _, commitment = self.quantiser(self.encoder(x)[:, None])
        return F.mse_loss(self.decoder(code[:, 0]), x) + commitment.sum()


def quantised(mode: str) -> Kind:
    quantiser = pytest.importorskip("vector_quantize_pytorch").VectorQuantize
    return Kind("VQ", "", lambda: Quantises(quantiser(dim=2, codebook_size=5)), labelled, common={"mode": mode})


def test_quantiser_in_eval_mode_has_its_own_gradient(tmp_path):
    check(quantised("eval"), tmp_path)


def test_straight_through_estimator_of_train_mode_has_no_curvature(tmp_path):
    check(quantised("train"), tmp_path, refused=DERIVATIVES)


class Flows(Learns):
    """A neural differential equation, integrated in fixed steps."""

    def __init__(self, integrate: Any):
        super().__init__()
        self.field, self.head, self.integrate = network(outputs=4), nn.Linear(4, 3), integrate

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        end = self.integrate(lambda t, u: self.field(u), x, torch.linspace(0, 1, 4).to(x), method="rk4")[-1]
        return F.cross_entropy(self.head(end), y)


def test_neural_differential_equation(tmp_path):
    package = pytest.importorskip("torchdiffeq")
    check(Kind("ODE", "", lambda: Flows(package.odeint), labelled), tmp_path)


class Scans(Learns):
    """Selective state spaces by an own autograd Function, a parallel scan."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net, self.head = net, nn.Linear(4, 3)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        return F.cross_entropy(self.head(self.net(x)[:, -1]), y)


def sequences() -> Any:
    """Return a loader of short sequences."""
    _, y = points()
    return loader(TensorDataset(torch.randn(32, 4, 4, generator=torch.Generator().manual_seed(9)), y))


def test_parallel_scan(tmp_path):
    mamba = pytest.importorskip("mambapy.mamba")
    config = {"d_model": 4, "n_layers": 1, "d_state": 2, "expand_factor": 1, "d_conv": 2}
    check(Kind("scan", "", lambda: Scans(mamba.Mamba(mamba.MambaConfig(**config))), sequences), tmp_path)
