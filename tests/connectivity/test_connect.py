from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from landscape.connectivity import barrier, connect, linear_path

LOSS = nn.CrossEntropyLoss()


def digits() -> tuple[list, list]:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = torch.tensor(x[order] / 16, dtype=torch.float32), torch.tensor(y[order])
    train, held_out = (x[:1437], y[:1437]), (x[1437:], y[1437:])
    return [list(zip(*(part.split(128) for part in split), strict=True)) for split in (train, held_out)]


def network(seed: int, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for size in (64, 64):
        layers += [nn.Linear(size, 64), *([nn.BatchNorm1d(64)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, 10))


def trained(seed: int, batches: list, epochs: int = 40, norm: bool = False) -> nn.Sequential:
    model = network(seed, norm)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, epochs)
    generator = np.random.default_rng(seed)
    for _ in range(epochs):
        for index in generator.permutation(len(batches)):
            x, y = batches[index]
            sgd.zero_grad()
            LOSS(model(x), y).backward()
            sgd.step()
        schedule.step()
    return model


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_two_digits_networks_are_joined_by_a_curve_where_the_line_has_a_barrier(seed):
    train, held_out = digits()
    one, other = (trained(2 * seed + k, train) for k in range(2))
    line, curve = linear_path(one, other, LOSS, train), connect(one, other, LOSS, train, progress=False)
    straight, curved = line.evaluate(), curve.evaluate()
    for definition in ("interpolated", "mean_of_ends", "worse_end"):
        assert barrier(straight, definition) > 0.5
        assert barrier(curved, definition) < 0.05
    assert barrier(line.evaluate(held_out), which="error") > 0.03
    assert barrier(curve.evaluate(held_out), which="error") < 0.02


@pytest.mark.slow
def test_with_batch_normalisation_recomputed_statistics_take_most_of_the_linear_barrier_away():
    train, _ = digits()
    one, other = (trained(k, train, norm=True) for k in range(2))
    line, curve = linear_path(one, other, LOSS, train), connect(one, other, LOSS, train, progress=False)
    kept = barrier(line.evaluate(batchnorm="interpolate"))
    assert barrier(line.evaluate()) < 0.6 * kept
    assert barrier(curve.evaluate()) < 0.05


def test_both_models_stay_as_they_are():
    train, _ = digits()
    one, other = network(0, norm=True), network(1, norm=True)
    kept = [copy.deepcopy(model.state_dict()) for model in (one, other)]
    curve = connect(one, other, LOSS, train[:2], steps=3, progress=False)
    for model, before in zip((one, other), kept, strict=True):
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert all(part.training for part in model.modules())
    for model, t in ((one, 0), (other, 1)):
        assert torch.equal(curve.point(t), nn.utils.parameters_to_vector(model.parameters()).detach())
        assert torch.equal(curve.buffers(t)["1.running_var"], model[1].running_var)


def test_a_model_joined_with_itself_has_no_barrier():
    train, _ = digits()
    model = network(0)
    loss = linear_path(model, model, LOSS, train[:1]).evaluate().loss
    np.testing.assert_allclose(loss, loss[0], rtol=1e-6)


def pairs():
    narrow = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))
    frozen = network(0)
    frozen[0].requires_grad_(False)
    return [
        (network(0), narrow, r"'0.weight' has shape \(64, 64\) in model_a and \(32, 64\) in model_b"),
        (network(0), nn.Linear(64, 10), "model_a has a parameter '0.weight' that model_b has not"),
        (nn.Sequential(nn.Linear(64, 64)), network(1), "model_b has a parameter '2.weight' that model_a has not"),
        (
            nn.BatchNorm1d(64, affine=True),
            nn.BatchNorm1d(64, track_running_stats=False),
            "model_a has a buffer 'running_mean'",
        ),
        (frozen, network(1), "'0.weight' is frozen in model_a"),
    ]


@pytest.mark.parametrize(("one", "other", "sentence"), pairs())
def test_models_that_no_path_joins_are_refused(one, other, sentence):
    with pytest.raises(ValueError, match=sentence):
        linear_path(one, other, LOSS, [(torch.randn(4, 64), torch.zeros(4, dtype=torch.long))])


def test_a_model_frozen_alike_is_joined():
    train, _ = digits()
    one, other = network(0), network(1)
    other[0].load_state_dict(one[0].state_dict())
    one[0].requires_grad_(False)
    curve = linear_path(one, other, LOSS, train[:1])
    assert curve.layout.names == ("2.weight", "2.bias", "4.weight", "4.bias")
    expected = float(LOSS(other(train[0][0]), train[0][1]).detach())
    assert curve.evaluate(t=[1.0]).loss[0] == pytest.approx(expected, rel=1e-6)
