from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.nn import functional as F  # noqa: N812

from landscape import MeasurementError, Objective
from landscape.connectivity import Curve, fit_curve
from landscape.connectivity._curves import Owned
from landscape.connectivity._training import curve_loss, fitted

DOUBLE = {"dtype": torch.float64}
LOSS = nn.CrossEntropyLoss()


def data(sizes: tuple[int, ...] = (40, 24)) -> list:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(sum(sizes), 3, generator=generator, **DOUBLE)
    y = (x[:, 0] > 0).long()
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


def mlp(seed: int = 0, **settings) -> nn.Module:
    torch.manual_seed(seed)
    dropout = nn.Dropout(settings.get("dropout", 0.0))
    norm = nn.BatchNorm1d(5) if settings.get("norm") else nn.Identity()
    return nn.Sequential(nn.Linear(3, 5), norm, dropout, nn.Tanh(), nn.Linear(5, 2)).double()


def ends(objective: Objective, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pair = torch.randn(2, objective.n_parameters, generator=generator, **DOUBLE)
    return pair[0].to(objective.dtype), pair[1].to(objective.dtype)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.75, 1.0])
def test_loss_and_gradient_equal_a_hand_written_evaluation(t):
    batches = data()
    objective = Objective(mlp(), LOSS, batches)
    start, end = ends(objective)
    bend = torch.linspace(-1, 1, objective.n_parameters, **DOUBLE)
    curve = Curve("bezier", (start, bend, end), objective.layout)
    with objective.session():
        loss, (gradient,) = curve_loss(curve, objective, 1, t)
    bend.requires_grad_(True)
    w = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
    x, y = batches[1]
    hidden = torch.tanh(x @ w[:15].reshape(5, 3).T + w[15:20])
    expected = F.cross_entropy(hidden @ w[20:30].reshape(2, 5).T + w[30:], y)
    expected.backward()
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-14)
    torch.testing.assert_close(gradient, bend.grad, rtol=1e-12, atol=1e-15)


def test_the_first_step_moves_from_the_midpoint_by_the_learning_rate():
    objective = Objective(mlp(), LOSS, data())
    start, end = ends(objective)
    bend = fit_curve(objective, start, end, steps=1, learning_rate=0.01, progress=False).points[1]
    moved = (bend - (start + end) / 2).abs()
    # Adam's first step is the learning rate times the sign of the gradient.
    torch.testing.assert_close(moved, torch.full_like(moved, 0.01), rtol=1e-4, atol=0)


def test_the_whole_training_equals_a_plain_one():
    batches = data((40, 24))
    objective = Objective(mlp(), LOSS, batches)
    start, end = ends(objective)
    found = fit_curve(objective, start, end, steps=7, learning_rate=0.05, seed=3, progress=False)
    generator = np.random.default_rng(3)
    bend = ((start + end) / 2).requires_grad_(True)
    adam = torch.optim.Adam([bend], lr=0.05)
    order: list[int] = []
    for step in range(7):
        adam.param_groups[0]["lr"] = 0.05 * 0.5 * (1 + math.cos(math.pi * step / 7))
        t = generator.random()
        order = order or generator.permutation([0, 1]).tolist()
        x, y = batches[order.pop(0)]
        w = objective.layout.named((1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end)
        adam.zero_grad()
        # The summed loss of a batch, over the mean number of examples a batch.
        (F.cross_entropy(torch.func.functional_call(objective.module, w, (x,)), y) * len(x) / 32).backward()
        adam.step()
    torch.testing.assert_close(found.points[1], bend.detach(), rtol=1e-9, atol=1e-12)


def test_one_seed_gives_one_curve_and_another_gives_another():
    objective = Objective(mlp(), LOSS, data())
    first, second, third = (
        fit_curve(objective, *ends(objective), steps=20, seed=seed, progress=False).points[1] for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_the_ends_stay_and_the_loss_between_falls():
    objective = Objective(mlp(), LOSS, data())
    start, end = ends(objective)
    line = fit_curve(objective, start, end, kind="linear")
    curve = fit_curve(objective, start, end, steps=200, learning_rate=0.05, progress=False)
    assert torch.equal(curve.points[0], start)
    assert torch.equal(curve.points[2], end)
    assert torch.equal(curve.point(0), start)
    assert curve.evaluate().loss[1:-1].mean() < 0.7 * line.evaluate().loss[1:-1].mean()
    assert curve.points[1].grad is None


def test_nothing_is_left_displaced_also_when_it_fails():
    model = mlp(norm=True, dropout=0.5).train()
    objective = Objective(model, LOSS, data())
    start, end = ends(objective)
    kept, state = copy.deepcopy(model.state_dict()), (torch.get_rng_state(), np.random.get_state()[1].copy())
    fit_curve(objective, start, end, steps=5, progress=False)
    with pytest.raises(MeasurementError, match="is nan after 0 training steps"):
        fit_curve(objective, start, end * float("nan"), steps=5, progress=False)
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert all(part.training for part in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (np.random.get_state()[1] == state[1]).all()


def test_dropout_is_off_while_the_bend_is_trained():
    plain, dropping = (Objective(mlp(dropout=rate), LOSS, data()) for rate in (0.0, 0.9))
    first, second = (fit_curve(each, *ends(plain), steps=5, progress=False) for each in (plain, dropping))
    assert torch.equal(first.points[1], second.points[1])


def test_normalisation_by_batch_statistics_or_by_the_kept_ones():
    model = mlp(norm=True)
    objective = Objective(model, LOSS, data())
    start, end = ends(objective)
    wide = {"1.running_mean": torch.ones(5, **DOUBLE), "1.running_var": torch.full((5,), 9.0, **DOUBLE)}
    settings = {"steps": 1, "progress": False, "end_buffers": (wide, wide)}
    batch = fit_curve(objective, start, end, batchnorm="recompute", **settings)
    kept = fit_curve(objective, start, end, batchnorm="interpolate", **settings)
    generator = np.random.default_rng(0)
    t, index = generator.random(), generator.permutation([0, 1])[0]
    x, y = data()[index]
    for curve, reference in ((batch, copy.deepcopy(model).train()), (kept, copy.deepcopy(model).eval())):
        reference.load_state_dict(wide, strict=False)
        middle = ((start + end) / 2).requires_grad_(True)
        w = objective.layout.named((1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end)
        LOSS(torch.func.functional_call(reference, w, (x,)), y).backward()
        moved = curve.points[1] - middle.detach()
        sure = middle.grad.abs() > 1e-6
        assert torch.equal(moved[sure].sign(), -middle.grad[sure].sign())
    assert kept.batchnorm == "interpolate"
    assert not torch.equal(batch.points[1], kept.points[1])


def test_a_batch_that_cannot_be_normalised_is_told():
    objective = Objective(mlp(norm=True), LOSS, data((40, 1)))
    with pytest.raises(MeasurementError, match="at the batch normalisation '1'"):
        fit_curve(objective, *ends(objective), steps=2, progress=False)


class Sequences(nn.Module):
    """A recurrent network and an attention layer behind one another."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.attention = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.attention(self.lstm(x)[0])[:, -1])


def test_recurrent_and_attention_networks_work_unmodified():
    torch.manual_seed(0)
    x = torch.randn(12, 5, 3)
    objective = Objective(Sequences(), LOSS, [(x, (x.sum((1, 2)) > 0).long())], dtype=torch.float64)
    start, end = ends(objective)
    line = fit_curve(objective, start, end, "linear")
    curve = fit_curve(objective, start, end, steps=60, learning_rate=0.1, progress=False)
    assert curve.evaluate().loss[1:-1].mean() < line.evaluate().loss[1:-1].mean()


class Lit(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = mlp(norm=True)
        self.seen = 0

    def training_step(self, batch, batch_idx):
        self.seen += 1
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("loss", loss)
        return {"loss": loss}


def test_a_lightning_module_is_connected_through_its_own_step():
    module = Lit()
    lit = Objective.from_lightning(module, data())
    plain = Objective(module.net, LOSS, data())
    start, end = ends(plain)
    curves = [fit_curve(each, start, end, steps=10, progress=False) for each in (lit, plain)]
    assert torch.equal(curves[0].points[1], curves[1].points[1])
    assert curves[0].evaluate().loss.tolist() == curves[1].evaluate().loss.tolist()
    assert module.seen == 0


def test_a_frozen_layer_stays():
    model = mlp()
    model[0].requires_grad_(False)
    objective = Objective(model, LOSS, data())
    start, end = ends(objective)
    assert fit_curve(objective, start, end, steps=3, progress=False).points[1].shape == (12,)


@pytest.mark.parametrize(("progress", "shown"), [(True, True), (False, False), (None, False)])
def test_the_progress_bar_is_shown_on_request(capfd, progress, shown):
    objective = Objective(mlp(), LOSS, data())
    fit_curve(objective, *ends(objective), steps=2, progress=progress)
    captured = capfd.readouterr()
    assert ("training the bezier curve" in captured.err) is shown
    assert captured.out == ""


def test_what_means_nothing_is_refused():
    objective = Objective(mlp(), LOSS, data())
    start, end = ends(objective)
    with pytest.raises(ValueError, match="at least one step"):
        fit_curve(objective, start, end, steps=0)
    with pytest.raises(ValueError, match="positive finite"):
        fit_curve(objective, start, end, learning_rate=0.0)
    with pytest.raises(ValueError, match="linear, bezier, chain"):
        fit_curve(objective, start, end, kind="spline")
    with pytest.raises(ValueError, match=r"the end .* shape \(31,\)"):
        fit_curve(objective, start, end[1:])
    with pytest.raises(ValueError, match="recompute, interpolate, keep"):
        fit_curve(objective, start, end, batchnorm="off")


def test_ends_that_are_taken_over_give_the_same_curve_without_copies():
    objective = Objective(mlp(), LOSS, data())
    start, end = ends(objective)
    found = fitted(objective, Owned((start, end)), steps=5, seed=1, progress=False)
    assert found.points[0].data_ptr() == start.data_ptr()
    assert found.points[2].data_ptr() == end.data_ptr()
    copied = fit_curve(objective, start, end, steps=5, seed=1, progress=False)
    assert torch.equal(found.points[1], copied.points[1])
    assert copied.points[0].data_ptr() != start.data_ptr()
