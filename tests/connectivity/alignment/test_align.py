"""A permuted copy is recovered exactly, and two trainings are brought close."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from landscape_test_networks import NETWORKS, make
from sklearn.datasets import load_digits
from torch import nn

from landscape import MeasurementError, Objective
from landscape.connectivity import PermutationSpec, align, barrier, connect, linear_path, repair, trace_permutations

LOSS = nn.CrossEntropyLoss()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", ["weights", "activations"])
def test_a_permuted_copy_is_recovered_exactly(name, method):
    model, x = make(name)
    batches = [(x[:25], None), (x[25:], None)]
    spec = trace_permutations(model, batches)
    other = copy.deepcopy(model)
    spec.apply(other, spec.random(3))
    # From one start the descent may stop at a lesser optimum; the sum of squares knows the right one.
    found = align(model, other, method, batches, restarts=20)
    assert found.distance == 0
    assert found.distance_before > 0.5
    for name_, tensor in found.model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name_])


@pytest.mark.parametrize("name", NETWORKS)
def test_another_network_keeps_its_function_and_comes_closer(name):
    (one, x), (other, _) = make(name), make(name, seed=1)
    kept = [copy.deepcopy(each.state_dict()) for each in (one, other)]
    found = align(one, other, batches=[x])
    assert found.distance < found.distance_before
    with torch.no_grad():
        expected = copy.deepcopy(other).eval()(x)
        torch.testing.assert_close(found.model.eval()(x), expected, rtol=1e-10, atol=1e-10)
    for each, before in zip((one, other), kept, strict=True):
        assert all(torch.equal(value, before[name_]) for name_, value in each.state_dict().items())


def test_one_layer_is_matched_as_by_trying_all_permutations():
    import itertools

    torch.manual_seed(0)
    one, other = (nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)) for _ in range(2))
    distances = []
    for units in itertools.permutations(range(5)):
        index = list(units)
        parts = [(one[0].weight, other[0].weight[index]), (one[0].bias, other[0].bias[index])]
        parts += [(one[2].weight, other[2].weight[:, index]), (one[2].bias, other[2].bias)]
        distances.append(sum(float((a - b).detach().double().square().sum()) for a, b in parts) ** 0.5)
    assert align(one, other).distance == pytest.approx(min(distances), rel=1e-6)


def test_heads_are_matched_as_by_trying_all_nested_permutations():
    import itertools

    from landscape.connectivity.alignment._assignment import Similarity

    generator = np.random.default_rng(0)
    similarity = Similarity(2, {"qk": 3, "vo": 2})
    similarity.units += generator.normal(size=(2, 2))
    for blocks in similarity.inner.values():
        blocks += generator.normal(size=blocks.shape)

    def best(blocks, i, j):
        d = blocks.shape[1]
        return max(sum(blocks[i, a, j, p[a]] for a in range(d)) for p in itertools.permutations(range(d)))

    totals = [
        sum(similarity.units[i, j] + sum(best(b, i, j) for b in similarity.inner.values()) for i, j in enumerate(order))
        for order in itertools.permutations(range(2))
    ]
    found = similarity.best()
    worth = sum(similarity.units[i, j] for i, j in enumerate(found.units))
    for name, blocks in similarity.inner.items():
        for i, j in enumerate(found.units):
            worth += sum(blocks[i, a, j, found.inner[name][i, a]] for a in range(blocks.shape[1]))
    assert worth == pytest.approx(max(totals), rel=1e-12)


def test_activations_are_paired_by_correlation_whatever_their_scale():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    other = copy.deepcopy(model)
    spec = trace_permutations(model)
    spec.apply(other, spec.random(1))
    with torch.no_grad():
        other[2].weight.normal_()  # of no help now, where only responses count
    found = align(model, other, "activations", [torch.randn(50, 4).double()])
    assert torch.equal(found.model[0].weight, model[0].weight)


def data() -> list:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[:1400]
    return list(zip(torch.tensor(x[order] / 16).float().split(100), torch.tensor(y[order]).split(100), strict=True))


def trained(seed: int, batches: list, epochs: int = 40, norm: bool = False) -> nn.Sequential:
    """64-64-64-10 by SGD with momentum and weight decay, the rate constant and then falling, as in the studies."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [nn.Linear(64, 64), *([nn.BatchNorm1d(64)] if norm else []), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    half = epochs // 2
    schedule = torch.optim.lr_scheduler.LambdaLR(
        sgd, lambda e: 1.0 if e < half else max(0.01, 1 - (e - half + 1) / half)
    )
    x, y = (torch.cat(part) for part in zip(*batches, strict=True))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for chosen in torch.randperm(len(x), generator=generator).split(100):
            sgd.zero_grad()
            LOSS(model(x[chosen]), y[chosen]).backward()
            sgd.step()
        schedule.step()
    return model.eval()


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_alignment_removes_nine_tenths_of_the_linear_barrier_of_digits_networks(seed):
    batches = data()
    one, other = (trained(2 * seed + k, batches) for k in range(2))
    aligned = align(one, other, batches=batches)
    before, after = (
        barrier(linear_path(one, each, LOSS, batches).evaluate(refine=2)) for each in (other, aligned.model)
    )
    assert before > 0.5
    assert after < 0.1 * before
    x = torch.cat([x for x, _ in batches])
    with torch.no_grad():
        assert float((aligned.model(x) - other(x)).abs().max()) < 1e-5
    # Half-way units vary less than at the ends; to reset their statistics takes more of the barrier away.
    middle = Objective(repair(one, aligned.model, LOSS, batches), LOSS, batches).loss()
    assert float(middle) < linear_path(one, aligned.model, LOSS, batches).evaluate(t=[0.5]).loss[0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_with_batch_normalisation_and_recomputed_statistics_hardly_any_barrier_is_left(seed):
    batches = data()
    one, other = (trained(2 * seed + k, batches, norm=True) for k in range(2))
    aligned = align(one, other, batches=batches)
    before = barrier(linear_path(one, other, LOSS, batches).evaluate(refine=2))
    path = linear_path(one, aligned.model, LOSS, batches)
    assert barrier(path.evaluate(refine=2)) < 0.1 * before
    assert barrier(path.evaluate(batchnorm="interpolate")) > 1.3 * barrier(path.evaluate())


@pytest.mark.parametrize("name", ["resnet", "pre-norm transformer", "lstm"])
def test_unmodified_networks_are_connected_by_curves_that_are_lower_than_the_line(name):
    (one, x), (other, _) = make(name), make(name, seed=1)
    target = x if x.dtype == torch.long else (x.flatten(1).sum(1) > 0).long()
    batches = [(x[:24], target[:24]), (x[24:], target[24:])]
    aligned = align(one, other, batches=batches).model
    line = linear_path(one, aligned, LOSS, batches).evaluate().loss
    for kind, bends in (("bezier", 1), ("chain", 2)):
        curve = connect(one, aligned, LOSS, batches, kind, 60, 0.05, bends=bends, progress=False)
        found = curve.evaluate().loss
        np.testing.assert_allclose(found[[0, -1]], line[[0, -1]], rtol=1e-10)
        assert found[1:-1].mean() < 0.9 * line[1:-1].mean()


def test_repaired_units_have_the_mean_and_spread_between_those_of_the_ends():
    (one, _), (other, _) = make("mlp"), make("mlp", seed=1)
    for model in (one, other):
        model[1] = nn.Identity()
    x = torch.randn(60, 4, dtype=torch.float64)
    batches = [(x[:40], torch.zeros(40, dtype=torch.long)), (x[40:], torch.zeros(20, dtype=torch.long))]
    repaired = repair(one, other, LOSS, batches, t=0.3)
    for depth in (1, 4):
        stats = []
        for model in (one, other, repaired):
            with torch.no_grad():
                units = model.eval()[:depth](x)
            stats.append((units.mean(0), units.std(0, correction=0)))
        for a, b, found in zip(*stats, strict=True):
            torch.testing.assert_close(found, 0.7 * a + 0.3 * b, rtol=1e-10, atol=1e-12)
    for t, end in ((0.0, one), (1.0, other)):
        with torch.no_grad():
            torch.testing.assert_close(repair(one, other, LOSS, batches, t)(x), end(x), rtol=1e-9, atol=1e-9)


def test_a_spec_by_hand_opens_what_cannot_be_traced():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            hidden = torch.relu(self.one(x))
            return self.two(hidden) if x.sum() > 0 else -self.two(hidden)

    torch.manual_seed(0)
    model, x = Branching(), torch.randn(8, 4)
    spec = PermutationSpec({"one.weight": ("h", None), "one.bias": ("h",), "two.weight": (None, "h")}).fitted(model)
    other = copy.deepcopy(model)
    spec.apply(other, spec.random(0))
    with pytest.raises(MeasurementError, match="cannot be traced"):
        align(model, other)
    assert align(model, other, spec=spec, batches=[x]).distance == 0
    forgetful = PermutationSpec({"one.weight": ("h", None), "one.bias": ("h",)})
    with pytest.raises(MeasurementError, match="the spec describes no symmetry"):
        align(model, Branching(), spec=forgetful, batches=[x])


def test_what_means_nothing_is_refused():
    model, x = make("mlp")
    with pytest.raises(ValueError, match="weights, activations"):
        align(model, model, "gradients")
    with pytest.raises(ValueError, match="give batches="):
        align(model, model, "activations")
    with pytest.raises(ValueError, match="at least one descent"):
        align(model, model, restarts=0)
    with pytest.raises(ValueError, match="one architecture"):
        align(model, nn.Linear(4, 3))
    with pytest.raises(ValueError, match="between 0 and 1"):
        repair(model, model, LOSS, [(x, x)], t=2)
    broken = copy.deepcopy(model)
    nn.init.constant_(broken[0].weight, float("nan"))
    with pytest.raises(MeasurementError, match="not finite"):
        align(model, broken)
