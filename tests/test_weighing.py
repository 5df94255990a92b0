"""What a loss divides by is measured: the recorded loss is the mean over all examples, whoever divides where.

Every loss here is compared with a reference on all examples at once that does not go through the objective.
"""

from __future__ import annotations

import collections
import types

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.func import functional_call

from landscape import MeasurementError, Objective
from landscape._batches import DrawnBatches
from landscape.curvature import hessian, top_eigenpairs
from landscape.sharpness import worst_case

F64 = torch.float64
N, CLASSES = 24, 3


def model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, CLASSES)).double()


def data() -> types.SimpleNamespace:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(N, 5, generator=generator, dtype=F64)
    y = torch.randint(CLASSES, (N,), generator=generator).sort().values  # batches differ in their classes
    z = torch.rand(N, CLASSES, generator=generator, dtype=F64)
    mask = (torch.arange(N) % 4 < torch.arange(N) // 6).double()  # and in how many examples count
    return types.SimpleNamespace(x=x, y=y, z=z, mask=mask, soft=torch.softmax(2 * z, 1))


def reference(loss_fn, target, net=None) -> tuple[float, float]:
    """Loss and largest eigenvalue of its Hessian over all examples at once, in float64."""
    net = net or model()
    named = {name: p.detach() for name, p in net.named_parameters()}
    sizes = [p.numel() for p in named.values()]
    start = torch.cat([p.reshape(-1) for p in named.values()])

    def value(vector):
        parts = zip(named, vector.split(sizes), strict=True)
        tensors = {name: part.view_as(named[name]) for name, part in parts}
        return loss_fn(functional_call(net, tensors, (data().x,)), target)

    return float(value(start)), float(torch.linalg.eigvalsh(torch.autograd.functional.hessian(value, start))[-1])


def cut(target, sizes) -> list:
    d = data()
    if not sizes:
        return [(d.x, target)]
    parts = (
        target.split(sizes) if isinstance(target, torch.Tensor) else zip(*(t.split(sizes) for t in target), strict=True)
    )
    return list(zip(d.x.split(sizes), parts, strict=True))


WEIGHT = torch.tensor([0.2, 1.0, 3.0], dtype=F64)


def masked(out, target):
    y, mask = target
    return (F.cross_entropy(out, y, reduction="none") * mask).sum() / mask.sum()


def summed_and_logged(out, y):
    F.cross_entropy(out, y, reduction="sum")  # as for a log
    return -F.log_softmax(out, 1).gather(1, y[:, None]).mean()


D = data()
# name: (loss as the step writes it, its target, the mean over all examples, what it divides by)
LOSSES = {
    "mean": (F.cross_entropy, D.y, F.cross_entropy, "examples"),
    "written by hand": (
        lambda o, y: -F.log_softmax(o, 1).gather(1, y[:, None]).mean(),
        D.y,
        F.cross_entropy,
        "examples",
    ),
    "sum over n": (lambda o, y: F.cross_entropy(o, y, reduction="sum") / len(y), D.y, F.cross_entropy, "examples"),
    "half squares over n": (
        lambda o, z: 0.5 * F.mse_loss(o, z, reduction="sum") / len(z),
        D.z,
        lambda o, z: 0.5 * (o - z).square().sum(1).mean(),
        "examples",
    ),
    "distillation": (
        lambda o, t: F.kl_div(F.log_softmax(o / 2, 1), t, reduction="sum") * 4 / len(o),
        D.soft,
        lambda o, t: 4 * (t * (t.log() - F.log_softmax(o / 2, 1))).sum(1).mean(),
        "examples",
    ),
    "batchmean": (
        lambda o, t: F.kl_div(F.log_softmax(o, 1), t, reduction="batchmean"),
        D.soft,
        lambda o, t: (t * (t.log() - F.log_softmax(o, 1))).sum(1).mean(),
        "examples",
    ),
    "sum": (lambda o, y: F.cross_entropy(o, y, reduction="sum"), D.y, F.cross_entropy, "examples"),
    "none, then summed": (lambda o, y: F.cross_entropy(o, y, reduction="none").sum(), D.y, F.cross_entropy, "examples"),
    "summed by hand": (
        lambda o, z: (o - z).square().sum(),
        D.z,
        lambda o, z: (o - z).square().sum(1).mean(),
        "examples",
    ),
    "sum logged beside": (summed_and_logged, D.y, F.cross_entropy, "examples"),
    "ignored": (
        lambda o, y: F.cross_entropy(o, y, ignore_index=0),
        D.y,
        lambda o, y: F.cross_entropy(o, y, ignore_index=0),
        "targets",
    ),
    "ignored, sum over tokens": (
        lambda o, y: F.cross_entropy(o, y, ignore_index=0, reduction="sum") / (y != 0).sum(),
        D.y,
        lambda o, y: F.cross_entropy(o, y, ignore_index=0),
        "targets",
    ),
    "class weights": (
        lambda o, y: F.cross_entropy(o, y, WEIGHT),
        D.y,
        lambda o, y: F.cross_entropy(o, y, WEIGHT),
        "weights",
    ),
    "own mask": (masked, (D.y, D.mask), masked, "weights"),
    "penalty on the outputs": (
        lambda o, y: F.cross_entropy(o, y) + 0.1 * o.square().mean(),
        D.y,
        lambda o, y: F.cross_entropy(o, y) + 0.1 * o.square().mean(),
        "examples",
    ),
    "constant times a mean": (
        lambda o, y: 1e-5 * F.cross_entropy(o, y),
        D.y,
        lambda o, y: 1e-5 * F.cross_entropy(o, y),
        "examples",
    ),
}


@pytest.mark.parametrize("sizes", [[], [8, 8, 8], [17, 6, 1]], ids=["one", "even", "uneven"])
@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_the_mean_over_all_examples(name, sizes):
    loss_fn, target, right, kind = LOSSES[name]
    if sizes and sizes[-1] == 1 and kind in ("targets", "weights") and name != "class weights":
        sizes = [17, 7]  # a batch in which nothing counts has no mean
    objective = Objective(model(), loss_fn, cut(target, sizes))
    loss, largest = reference(right, target)
    assert float(objective.loss()) == pytest.approx(loss, rel=1e-7)
    assert float(top_eigenpairs(hessian(objective), 1, tol=1e-8).values[0]) == pytest.approx(largest, rel=1e-6)
    assert objective.n_examples == N
    if sizes:
        assert objective.weighting == kind
    assert sum(objective.batch_weights) == pytest.approx(1)
    described = objective.describe()
    assert described["weighting"] == objective.weighting
    assert described["weighting_evidence"]


def test_in_float32_the_same_is_found():
    loss_fn, target, right, _ = LOSSES["own mask"]
    objective = Objective(model().float(), loss_fn, cut(target, [17, 7]))
    assert objective.weighting == "weights"
    assert float(objective.loss()) == pytest.approx(reference(right, target)[0], rel=1e-4)


def contrast(out, _):
    scores = out @ out.T / 0.5
    return F.cross_entropy(scores - 1e3 * torch.eye(len(out), dtype=out.dtype), torch.arange(len(out)).roll(1))


def spread(out, _):
    return out.var(0).mean()


def mixed(out, y):
    return F.cross_entropy(out, y, ignore_index=0) + out.square().mean()


@pytest.mark.parametrize("loss_fn", [contrast, spread, mixed])
def test_a_loss_that_is_no_mean_over_examples_is_the_mean_over_batches(loss_fn):
    batches = cut(D.y, [12, 7, 5])
    with pytest.warns(UserWarning, match="mean over the batches as they are given.*batch_weight="):
        objective = Objective(model(), loss_fn, batches)
    assert objective.weighting == "batches"
    assert objective.batch_weights == pytest.approx([1 / 3] * 3)
    net = model()
    expected = sum(float(loss_fn(net(x), y).detach()) for x, y in batches) / 3
    assert float(objective.loss()) == pytest.approx(expected, rel=1e-12)


def test_batch_statistics_in_the_network_are_found():
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)).double()
    with pytest.warns(UserWarning, match="mean over the batches"):
        objective = Objective(net, F.cross_entropy, cut(D.y, [12, 12]))
    assert objective.weighting == "batches"
    # In train mode it is the divisor of the loss that counts, not that of the statistics.
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 3)).double()
    assert Objective(net, F.cross_entropy, cut(D.y, [12, 12]), mode="train").weighting == "examples"


def test_the_user_can_say_what_a_loss_divides_by():
    batches = cut((D.y, D.mask), [17, 7])
    objective = Objective(model(), masked, batches, batch_weight=lambda batch: batch[1][1].sum())
    assert objective.weighting == "weights"
    assert objective.batch_weights == pytest.approx([float(m.sum() / D.mask.sum()) for _, (_, m) in batches])
    assert float(objective.loss()) == pytest.approx(reference(masked, (D.y, D.mask))[0], rel=1e-12)
    with pytest.raises(MeasurementError, match="gave -1.0 for a batch of 17 examples; expected what the loss"):
        Objective(model(), masked, batches, batch_weight=lambda batch: -1.0)


class Module(pl.LightningModule):
    def __init__(self, step=None):
        super().__init__()
        self.net = model()
        self.step = step

    def training_step(self, batch, index):
        return self.step(self, batch)


class Weighted(Module):
    def training_step(self, batch, index):
        return masked(self.net(batch[0]), batch[1])

    def landscape_batch_weight(self, batch):
        return batch[1][1].sum()


def test_a_module_can_say_what_its_loss_divides_by():
    objective = Objective.from_lightning(Weighted(), cut((D.y, D.mask), [17, 7]))
    assert objective.describe()["weighting_evidence"].startswith("batch_weight")
    assert float(objective.loss()) == pytest.approx(reference(masked, (D.y, D.mask))[0], rel=1e-12)


def test_held_out_batches_and_pieces_follow_the_same_rule():
    loss_fn, target, right, _ = LOSSES["own mask"]
    objective = Objective(model(), loss_fn, cut(target, [12, 12]))
    other = objective.restrict(cut(target, [17, 7]))
    assert other.weighting == "weights"
    assert float(other.loss()) == pytest.approx(reference(right, target)[0], rel=1e-7)
    assert float(objective.to(torch.float32).loss()) == pytest.approx(reference(right, target)[0], rel=1e-5)
    losses = [float(piece.loss()) for piece in objective.split(6)]
    net, pieces = model(), cut(target, [6] * 4)
    with torch.no_grad():
        expected = [float(loss_fn(net(x), t)) for x, t in pieces if t[1].any()]
    assert losses == pytest.approx(expected)


def test_groups_without_a_counted_target_are_left_out():
    y = D.y.clone()
    y[:6] = -100
    objective = Objective(model(), F.cross_entropy, [(D.x, y)])
    assert len(objective.split(6)) == 3
    assert np.isfinite(worst_case(objective, group=6, steps=2).value)


def test_batches_that_the_step_skips_take_no_part():
    def step(module, batch):
        x, y = batch
        kept = y >= 0
        return F.cross_entropy(module.net(x[kept]), y[kept]) if kept.any() else None

    y = D.y.clone()
    y[8:16] = -1
    objective = Objective.from_lightning(Module(step), list(zip(D.x.split(8), y.split(8), strict=True)))
    kept = y >= 0
    with torch.no_grad():
        expected = float(F.cross_entropy(model()(D.x[kept]), y[kept]))
    assert float(objective.loss()) == pytest.approx(expected, rel=1e-12)
    assert objective.batch_sizes == [8, 0, 8]
    assert objective.evaluate().loss == pytest.approx(expected, rel=1e-12)
    with pytest.raises(MeasurementError, match="returned None"):
        Objective.from_lightning(Module(step), [(D.x, torch.full_like(y, -1))])


class Encoding(collections.UserDict):
    pass


def test_collators_of_other_libraries():
    def step(module, batch):
        return F.cross_entropy(module.net(batch["x"]), batch["y"])

    batches = [Encoding(x=x, y=y) for x, y in cut(D.y, [17, 7])]
    objective = Objective.from_lightning(Module(step), batches)
    assert objective.n_examples == N
    assert float(objective.loss()) == pytest.approx(reference(F.cross_entropy, D.y)[0], rel=1e-12)


class Graphs:
    """Three points a graph, all graphs of a batch in one tensor: it can be cut by its loader's collation alone."""

    def __init__(self, x, y, graph):
        self.x, self.y, self.graph = x, y, graph
        self.edges = torch.stack([torch.arange(len(x)), torch.arange(len(x)).view(-1, 3).roll(1, 1).flatten()])
        self.num_graphs = len(y)


def collate(items):
    graph = torch.arange(len(items)).repeat_interleave(3)
    return Graphs(torch.cat([x for x, _ in items]), torch.stack([y for _, y in items]), graph)


def test_graphs_are_cut_by_their_collation():
    def step(module, batch):
        pooled = torch.zeros(batch.num_graphs, 5, dtype=F64).index_add(0, batch.graph, batch.x[batch.edges[1]])
        return F.cross_entropy(module.net(pooled), batch.y, reduction="sum") / batch.num_graphs

    items = [(torch.stack([x, -x, 2 * x]), y) for x, y in zip(D.x, D.y, strict=True)]
    parts = [items[:17], items[17:]]
    drawn = DrawnBatches([collate(part) for part in parts], [17, 7], "dataset", parts, collate)
    objective = Objective.from_lightning(Module(step), drawn)
    assert objective.weighting == "examples"
    with torch.no_grad():
        expected = float(F.cross_entropy(model()(2 * D.x), D.y))
    assert float(objective.loss()) == pytest.approx(expected, rel=1e-12)
    assert objective.describe()["source"] == "dataset"


def test_a_noisy_loss_is_told_apart_as_mean_or_sum():
    class Noisy(Module):
        def training_step(self, batch, index):
            out = self.net(batch[0])
            return F.mse_loss(out + 0.05 * torch.randn_like(out), batch[1], reduction="sum") / self.divide(batch[0])

    for divide in (len, lambda x: 1):
        module = Noisy()
        module.divide = divide
        objective = Objective.from_lightning(module, cut(D.z, [17, 7]), noise_seed=0)
        assert float(objective.loss()) == pytest.approx(reference(LOSSES["summed by hand"][2], D.z)[0], rel=0.05)


# ---------------------------------------------------------------- steps that take derivatives


def physics(module, batch):
    x = batch[0].clone().requires_grad_()
    u = module.net(x).sum(1)
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    return (slope.sum(1) + u).square().mean()


def gradient_penalty(module, batch):
    x = batch[0].clone().requires_grad_(torch.is_grad_enabled())
    loss = F.cross_entropy(module.net(x), batch[1])
    if torch.is_grad_enabled():
        loss = loss + torch.autograd.grad(loss, x, create_graph=True)[0].square().sum()
    return loss


def inner_loop(module, batch):
    x, y = batch
    named = dict(module.net.named_parameters())
    gradients = torch.autograd.grad(F.cross_entropy(module.net(x), y), list(named.values()), create_graph=True)
    moved = {name: p - 0.1 * g for (name, p), g in zip(named.items(), gradients, strict=True)}
    return F.cross_entropy(functional_call(module.net, moved, (x,)), y)


@pytest.mark.filterwarnings("ignore:the loss of Module is measured as the mean over the batches")
@pytest.mark.parametrize(
    ("step", "by"), [(physics, "inputs"), (gradient_penalty, "inputs"), (inner_loop, "parameters")]
)
def test_steps_that_differentiate(step, by):
    module = Module(step)
    objective = Objective.from_lightning(module, [(D.x, D.y)])
    assert objective.differentiates == by
    expected = float(module.training_step((D.x, D.y), 0).detach())
    assert float(objective.loss()) == pytest.approx(expected, rel=1e-12)
    assert objective.evaluate().loss == pytest.approx(expected, rel=1e-12)
    gradient = torch.autograd.grad(module.training_step((D.x, D.y), 0), list(module.parameters()))
    torch.testing.assert_close(objective.gradient(), objective.flatten(gradient))
    assert not objective.loss().requires_grad


# ---------------------------------------------------------------- a batch size that stands in the step as a number


@pytest.mark.parametrize("sizes", [[24], [12, 12], [17, 7]])
def test_a_sum_over_the_nominal_batch_size_is_a_mean(sizes):
    def step(module, batch):
        out = module.net(batch[0])
        return (F.mse_loss(out, batch[1], reduction="sum") + 0.1 * out.square().sum()) / max(sizes)

    objective = Objective.from_lightning(Module(step), cut(D.z, sizes))
    with torch.no_grad():
        out = model()(D.x)
    expected = float((out - D.z).square().sum(1).mean() + 0.1 * out.square().sum(1).mean())
    assert float(objective.loss()) == pytest.approx(expected, rel=1e-12)
    assert "the constant" in objective.describe()["weighting_evidence"]


def test_a_summed_loss_of_one_batch_is_the_step_s_own():
    def step(module, batch):
        return F.cross_entropy(module.net(batch[0]), batch[1], reduction="sum") / 24

    module = Module(step)
    objective = Objective.from_lightning(module, [(D.x, D.y)])
    assert float(objective.loss()) == pytest.approx(float(module.training_step((D.x, D.y), 0).detach()), rel=1e-12)
