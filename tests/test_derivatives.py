from __future__ import annotations

import math
import weakref

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from landscape import Objective
from landscape._errors import MeasurementError, SurrogateError
from landscape.compression import bits, quantisation_law
from landscape.connectivity import barrier, connect, fit_curve, linear_path
from landscape.curvature import fisher, ggn, hessian
from landscape.sharpness import (
    asam,
    average_case,
    gradient_norm,
    keskar,
    m_sharpness,
    pac_bayes,
    random_radius,
    sam,
    worst_case,
)
from landscape.volume import learning_coefficient


class Middle(nn.Module):
    """A linear layer, a function of it, and a linear head."""

    def __init__(self, function) -> None:
        super().__init__()
        self.body = nn.Linear(4, 8)
        self.head = nn.Linear(8, 3)
        self.function = function

    def forward(self, x):
        return self.head(self.function(torch.tanh(self.body(x))))


class HalfBackward(torch.autograd.Function):
    """A square with a backward pass that is 3 % too small."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 1.94 * x * grad


class FlatBackward(torch.autograd.Function):
    """A cube whose first derivative is right, and whose second one is left out."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 3 * x.detach() ** 2 * grad


class Reversal(torch.autograd.Function):
    """The identity with the gradient's sign turned."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return -grad


class SingleInside(torch.autograd.Function):
    """A right derivative of a function that rounds to float32."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.tanh(x.float()).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return (1 - torch.tanh(x) ** 2) * grad


def hooked(z):
    z = z * 1
    if z.requires_grad:
        z.register_hook(lambda grad: 2 * grad)
    return z


def gumbel(z):
    noise = torch.linspace(0.1, 2, z.shape[1]).to(z)
    soft = (z + noise).softmax(1)
    hard = F.one_hot(soft.argmax(1), z.shape[1]).to(z)
    return hard - soft.detach() + soft


def quantised(z):
    codes = torch.linspace(-1, 1, 5).to(z)
    nearest = codes[(z[..., None] - codes).abs().argmin(-1)]
    return z + (nearest - z).detach()


SURROGATES = {
    "stop gradient": lambda z: z * z.detach(),
    "stopped norm": lambda z: z / z.norm(dim=1, keepdim=True).detach(),
    "straight through": quantised,
    "gumbel": gumbel,
    "fake quantisation": lambda z: torch.fake_quantize_per_tensor_affine(z, 0.01, 0, -128, 127),
    "hook": hooked,
    "reversal": Reversal.apply,
    "wrong backward": HalfBackward.apply,
}
RIGHT = {
    "stopped maximum": lambda z: (z - z.max(1, keepdim=True)[0].detach()).softmax(1),
    "rounded": lambda z: z + torch.round(5 * z),
    "kinks": lambda z: z.abs() + torch.relu(z),
    "top entries": lambda z: z * (z >= z.topk(3, 1).values[:, -1:]),
    "float32 inside": lambda z: torch.tanh(z.float()).to(z.dtype),
    "float32 within a function": SingleInside.apply,
    "bfloat16 inside": lambda z: torch.tanh(z.bfloat16()).to(z.dtype),
    "complex": lambda z: torch.fft.fft(z).abs(),
}


def make(cases, function, dtype=torch.float32) -> Objective:
    return Objective(Middle(function).to(dtype), nn.CrossEntropyLoss(), [cases.data(30)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", SURROGATES)
def test_gradients_that_are_not_the_losses_are_found(cases, kind, dtype):
    objective = make(cases, SURROGATES[kind], dtype)
    verdict = objective.derivatives.gradient(objective)
    assert not verdict.ok
    assert verdict.error > 1e-2
    assert verdict.n_gradients < 10
    assert "the gradient of Middle is not the derivative of its loss" in verdict.sentence


@pytest.mark.parametrize("kind", RIGHT)
def test_right_derivatives_are_not_accused(cases, kind):
    objective = make(cases, RIGHT[kind])
    assert objective.derivatives.gradient(objective).ok
    assert objective.derivatives.product(objective).ok


def test_the_networks_of_the_zoo_pass_with_their_error(zoo):
    for network in zoo.values():
        objective = Objective(network.model, network.loss_fn, network.batches)
        gradient, product = objective.derivatives.gradient(objective), objective.derivatives.product(objective)
        assert gradient.ok
        assert product.ok
        assert gradient.error < 1e-6
        assert product.error < 1e-5
        assert gradient.n_gradients + product.n_gradients < 10


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
@pytest.mark.parametrize("sharper", [1.0, 5.0, 20.0])
def test_saturated_losses_are_not_accused(cases, activation, sharper):
    x, y = cases.data(12)
    model = cases.trained(cases.mlp(activation), nn.CrossEntropyLoss(), [(x, y)], steps=150, lr=0.05)
    with torch.no_grad():
        for parameter in model[-1].parameters():
            parameter.mul_(sharper)
    objective = Objective(model.float(), nn.CrossEntropyLoss(), [(x, y)])
    assert objective.derivatives.gradient(objective).ok
    assert objective.derivatives.product(objective).ok


def test_exact_ties_and_zeros_are_not_accused(cases):
    model = cases.mlp(nn.ReLU)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name or name.startswith("4."):
                parameter.zero_()
    x, y = cases.data(30)
    penalised = lambda out, y: F.cross_entropy(out, y) + sum(p.abs().sum() for p in model.parameters())  # noqa: E731
    objective = Objective(model, penalised, [(x * (x > 0), y)])
    assert objective.derivatives.gradient(objective).ok
    assert objective.derivatives.product(objective).ok


def test_a_constant_teacher_is_no_stop_gradient(cases):
    teacher = cases.mlp(seed=1).requires_grad_(False)

    def distilled(out, x):
        return F.kl_div(out.log_softmax(1), teacher(x[0]).detach().softmax(1).to(out), reduction="batchmean")

    x, _ = cases.data(30)
    objective = Objective(cases.mlp(), lambda out, batch: distilled(out, (batch,)), [(x, x)], dtype=torch.float32)
    verdict = objective.derivatives.gradient(objective)
    assert verdict.ok
    assert verdict.dtype == "float32"  # the teacher runs in nothing else


def test_padding_rows_are_left_alone():
    model = nn.Sequential(nn.Embedding(7, 4, padding_idx=0), nn.Flatten(), nn.Linear(12, 3))
    with torch.no_grad():
        model[0].weight[0] = 1.0
    words = torch.randint(3, (10, 3))
    objective = Objective(model, nn.CrossEntropyLoss(), [(words, torch.arange(10) % 3)])
    assert objective.derivatives.gradient(objective).ok


_OUTSIDE: list[weakref.ref] = []  # what a weak reference points to is not searched


def loss_with_a_global_penalty(out, y):
    return F.cross_entropy(out, y) + _OUTSIDE[0]().square().sum()


def test_a_parameter_that_is_reached_from_outside_is_named(cases):
    model = cases.mlp()
    _OUTSIDE[:] = [weakref.ref(model[0].weight)]
    objective = Objective(model, loss_with_a_global_penalty, [cases.data()])
    with pytest.raises(SurrogateError, match=r"its parameter 0\.weight through a reference.*through the module"):
        gradient_norm(objective)


def test_full_backward_hooks_are_found(cases):
    model = cases.mlp()
    model[2].register_full_backward_hook(lambda module, into, out: (3 * into[0],))
    with pytest.raises(SurrogateError, match=r"gradient hook"):
        hessian(Objective(model, nn.CrossEntropyLoss(), [cases.data()]))


MEASURES = {
    "hessian": hessian,
    "ggn": ggn,
    "fisher": fisher,
    "sam": sam,
    "asam": asam,
    "m_sharpness": lambda objective: m_sharpness(objective, m=10),
    "worst_case": lambda objective: worst_case(objective, steps=2),
    "keskar": keskar,
    "gradient_norm": gradient_norm,
    "fit_curve": lambda objective: fit_curve(objective, objective.vector(), 2 * objective.vector(), steps=2),
    "learning_coefficient": lambda objective: learning_coefficient(objective, chains=1, draws=4),
    "quantisation_law": quantisation_law,
}


@pytest.mark.parametrize("name", MEASURES)
def test_measures_by_gradients_are_refused(cases, name):
    with pytest.raises(SurrogateError, match=r"is not the derivative of its loss: along .*landscape_loss"):
        MEASURES[name](make(cases, SURROGATES["stop gradient"]))


def test_measures_by_losses_stay(cases):
    objective = make(cases, SURROGATES["stop gradient"])
    honest = Objective(Middle(lambda z: z * z), nn.CrossEntropyLoss(), objective.batches)
    honest.module.load_state_dict(objective.module.state_dict())
    for measure in (average_case, pac_bayes, random_radius):
        assert str(measure(objective, seed=1)) == str(measure(honest, seed=1))
    assert bits(objective).bits.tolist() == bits(honest).bits.tolist()
    other = Middle(objective.module.function)
    path = linear_path(objective.module, other, nn.CrossEntropyLoss(), objective.batches)
    assert math.isfinite(barrier(path.evaluate()))
    with pytest.raises(SurrogateError):
        connect(objective.module, other, nn.CrossEntropyLoss(), objective.batches, steps=2)


def test_copies_share_the_verdict(cases, monkeypatch):
    objective = make(cases, torch.sin)
    hessian(objective)
    monkeypatch.setattr(Objective, "_over", None)  # nothing is probed again
    copies = [objective.at(2 * objective.vector()), objective.shard()]
    assert all(copy.derivatives is objective.derivatives for copy in copies)
    assert set(objective.derivatives.describe()) == {"gradient", "product"}
    for copy in copies:
        hessian(copy)


def test_restricted_and_converted_copies_share_the_verdict(cases):
    objective = make(cases, torch.sin)
    copies = [objective.to(torch.float64), objective.restrict(objective.batches), *objective.split(10)]
    assert all(copy.derivatives is objective.derivatives for copy in copies)


def test_wrong_second_derivatives_are_replaced_by_differences(cases):
    objective = make(cases, FlatBackward.apply, torch.float64)
    assert objective.derivatives.gradient(objective).ok
    verdict = objective.derivatives.product(objective)
    assert not verdict.ok
    assert verdict.n_gradients < 10
    operator = hessian(objective)
    assert operator.strategy == "float64 finite differences of gradients (wrong second derivative)"
    right = Objective(Middle(lambda z: z**3), nn.CrossEntropyLoss(), objective.batches)
    right.module.double().load_state_dict(objective.module.state_dict())
    exact = hessian(Objective(right.module, nn.CrossEntropyLoss(), objective.batches)).dense()
    torch.testing.assert_close(operator.dense(), exact, rtol=1e-7, atol=1e-9)
    with pytest.raises(SurrogateError, match=r"wrong second derivative\. Replace the operation"):
        hessian(objective, strategy="retained")


def test_what_cannot_be_probed_is_said(cases):
    x, y = cases.data()
    objective = Objective(nn.Linear(4, 3), lambda out, y: out.detach().sum(), [(x, y)])
    verdict = objective.derivatives.gradient(objective)
    assert verdict.ok
    assert math.isnan(verdict.error)
    assert verdict.sentence == "not checked: no batch has a gradient"
    with pytest.raises(MeasurementError, match=r"does not depend on any trainable parameter"):
        hessian(objective)


class SimSiam(pl.LightningModule):
    """Two views, a predictor, and a stopped gradient on the other view's projection."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 6))
        self.predictor = nn.Linear(6, 6)

    def training_step(self, batch, batch_idx):
        first, second = self.encoder(batch[0]), self.encoder(batch[0] + 0.1)
        similar = F.cosine_similarity(self.predictor(first), second.detach()).mean()
        return -(similar + F.cosine_similarity(self.predictor(second), first.detach()).mean()) / 2


class Codebook(pl.LightningModule):
    """A vector-quantised autoencoder: nearest codes, gradients copied straight through."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 3), nn.Linear(3, 4)
        self.codes = nn.Embedding(5, 3)

    def training_step(self, batch, batch_idx):
        z = self.encoder(batch[0])
        nearest = self.codes(torch.cdist(z, self.codes.weight).argmin(1))
        through = z + (nearest - z).detach()
        commitment = F.mse_loss(nearest, z.detach()) + 0.25 * F.mse_loss(z, nearest.detach())
        return F.mse_loss(self.decoder(through), batch[0]) + commitment


@pytest.mark.parametrize("kind", [SimSiam, Codebook])
def test_self_supervised_steps_are_refused_by_name(cases, kind):
    objective = Objective.from_lightning(kind(), [cases.data(30)])
    with pytest.raises(SurrogateError, match=rf"the gradient of {kind.__name__} is not the derivative"):
        hessian(objective)
    assert math.isfinite(average_case(objective).value)


class Equilibrium(nn.Module):
    """A fixed point z = tanh(Wz + Ux), with the implicit function theorem in a hook (or, wrongly, without it)."""

    def __init__(self, implicit: bool) -> None:
        super().__init__()
        self.implicit = implicit
        self.again, self.first, self.head = nn.Linear(6, 6), nn.Linear(4, 6), nn.Linear(6, 3)
        with torch.no_grad():
            self.again.weight.mul_(0.6)

    def step(self, z, x):
        return torch.tanh(self.again(z) + self.first(x))

    def forward(self, x):
        with torch.no_grad():
            z = x.new_zeros(len(x), 6)
            for _ in range(50):
                z = self.step(z, x)
        z = self.step(z, x)
        if self.implicit and z.requires_grad:
            start = z.detach().requires_grad_()
            again = self.step(start, x)

            def solve(grad):
                found = grad
                for _ in range(50):
                    found = torch.autograd.grad(again, start, found, retain_graph=True)[0] + grad
                return found

            z.register_hook(solve)
        return self.head(z)


def unrolled(model, x):
    z = x.new_zeros(len(x), 6)
    for _ in range(50):
        z = model.step(z, x)
    return model.head(z)


@pytest.mark.filterwarnings("ignore:the loss of Equilibrium is measured as the mean over the batches")  # of all inputs
def test_implicit_differentiation_in_a_hook_is_right_and_its_product_is_not(cases):
    x, y = cases.data(20)
    x = x.double()
    model = Equilibrium(implicit=True).double()
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    assert objective.derivatives.gradient(objective).ok
    operator = hessian(objective)
    assert operator.strategy.startswith("float64 finite differences")
    plain = Objective(model, lambda out, y: F.cross_entropy(unrolled(model, x), y), [(x, y)])
    torch.testing.assert_close(operator.dense(), hessian(plain, strategy="retained").dense(), rtol=1e-6, atol=1e-8)


def test_one_step_through_a_fixed_point_is_refused(cases):
    with pytest.raises(SurrogateError, match=r"the gradient of Equilibrium"):
        hessian(Objective(Equilibrium(implicit=False), nn.CrossEntropyLoss(), [cases.data(20)]))
