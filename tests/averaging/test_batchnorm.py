from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from landscape import MeasurementError, Objective
from landscape.averaging import recompute_batchnorm

DOUBLE = {"dtype": torch.float64}


def data(n: int = 256, width: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, width, generator=generator, **DOUBLE) * 2 + 1
    return x, torch.randint(0, 4, (n,), generator=generator)


def deep(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(3, 5), nn.Dropout(dropout), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 4), nn.BatchNorm1d(4)
    ).double()


def first(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 4)).double()


def objective(model: nn.Module, batches: list, **settings) -> Objective:
    return Objective(model, nn.CrossEntropyLoss(), batches, **settings)


def cut(x: torch.Tensor, y: torch.Tensor, sizes: list[int]) -> list:
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


def test_one_batch_equals_hand_computation():
    model, (x, y) = deep(), data()
    found = recompute_batchnorm(objective(model, [(x, y)]))
    with torch.no_grad():
        hidden = model[0](x)
        mean, var = hidden.mean(0), hidden.var(0, correction=0)
        normal = (hidden - mean) / (var + model[2].eps).sqrt() * model[2].weight + model[2].bias
        second = model[4](normal.tanh())
    assert list(found) == ["2.running_mean", "2.running_var", "5.running_mean", "5.running_var"]
    expected = [mean, hidden.var(0, correction=1), second.mean(0), second.var(0, correction=1)]
    for value, reference in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("sizes", [[250, 6], [64, 64, 64, 64], [2, 254]])
def test_first_layer_does_not_depend_on_the_batches(sizes):
    x, y = data()
    whole = recompute_batchnorm(objective(first(), [(x, y)]))
    pieces = recompute_batchnorm(objective(first(), cut(x, y, sizes)))
    for name in whole:
        torch.testing.assert_close(pieces[name], whole[name], rtol=1e-12, atol=1e-14)


def test_deeper_layers_pool_what_each_batch_gives_them():
    model, (x, y) = deep(), data()
    found = recompute_batchnorm(objective(model, cut(x, y, [250, 6])))
    seen = copy.deepcopy(model).train()
    with torch.no_grad():
        inputs = torch.cat([seen[:5](part) for part in x.split([250, 6])])
    torch.testing.assert_close(found["5.running_mean"], inputs.mean(0), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found["5.running_var"], inputs.var(0), rtol=1e-12, atol=1e-14)


def test_convolutions_pool_over_positions():
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2 * 9, 4)).double()
    x = torch.randn(12, 2, 3, 3, **DOUBLE) + 5
    found = recompute_batchnorm(objective(model, cut(x, torch.zeros(12, dtype=torch.long), [11, 1])))
    torch.testing.assert_close(found["0.running_mean"], x.mean((0, 2, 3)))
    torch.testing.assert_close(found["0.running_var"], x.transpose(0, 1).flatten(1).var(1))


def test_pooling_keeps_digits_far_from_zero():
    x, y = data(width=3)
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4)).double()
    found = recompute_batchnorm(objective(model, cut(x + 1e6, y, [250, 6])))
    torch.testing.assert_close(found["0.running_var"], x.var(0), rtol=1e-8, atol=0)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_dropout_stays_off(mode):
    batches = cut(*data(), [250, 6])
    plain = recompute_batchnorm(objective(deep(), batches))
    with_dropout = recompute_batchnorm(objective(deep(dropout=0.5), batches, mode=mode))
    assert all(torch.equal(plain[name], with_dropout[name]) for name in plain)


def test_the_result_is_what_evaluate_and_load_state_dict_take():
    model, batches = deep(), cut(*data(), [250, 6])
    measured = objective(model, batches)
    vector = measured.vector() * 1.5
    found = recompute_batchnorm(measured, vector)
    other = copy.deepcopy(model)
    other.load_state_dict(measured.layout.named(vector) | found, strict=False)
    expected = objective(other, batches).evaluate()
    assert measured.evaluate(vector, buffers=found) == expected
    assert set(found) < {name for name, _ in model.named_buffers()}


def test_statistics_at_a_vector_are_those_of_a_model_that_holds_it():
    model, batches = deep(), cut(*data(), [250, 6])
    measured = objective(model, batches)
    vector = torch.linspace(-1, 1, measured.n_parameters, **DOUBLE)
    found = recompute_batchnorm(measured, vector)
    nn.utils.vector_to_parameters(vector, model.parameters())
    held = recompute_batchnorm(objective(model, batches))
    assert all(torch.equal(found[name], held[name]) for name in held)


class Twice(nn.Module):
    """One normalisation used at two places."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.unused = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 4)

    def forward(self, x):
        return self.head(self.norm(3 * self.norm(input=x)))


def test_a_shared_layer_pools_all_its_uses_and_an_unused_one_is_left_out():
    x, y = data()
    found = recompute_batchnorm(objective(Twice().double(), [(x, y)]))
    normal = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()
    both = torch.cat([x, 3 * normal])
    assert list(found) == ["norm.running_mean", "norm.running_var"]
    torch.testing.assert_close(found["norm.running_mean"], both.mean(0))
    torch.testing.assert_close(found["norm.running_var"], both.var(0))


@pytest.mark.filterwarnings("ignore:the loss of Sequential is measured as the mean over the batches")
def test_without_tracked_statistics_there_is_nothing():
    x, y = data()
    plain = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.BatchNorm1d(4, track_running_stats=False)).double()
    assert recompute_batchnorm(objective(plain, [(x, y)])) == {}


def test_nan_stays_nan():
    x, y = data()
    measured = objective(deep(), [(x, y)])
    found = recompute_batchnorm(measured, torch.full((measured.n_parameters,), float("nan")))
    assert all(value.isnan().all() for value in found.values())


def state(model: nn.Module) -> list:
    flags = [part.training for part in model.modules()]
    hooks = [len(part._forward_pre_hooks) for part in model.modules()]
    return [{name: value.clone() for name, value in model.state_dict().items()}, flags, hooks, torch.get_rng_state()]


def assert_same(before: list, after: list) -> None:
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert before[1:3] == after[1:3]
    assert torch.equal(before[3], after[3])


def test_nothing_is_left_displaced():
    model = deep(dropout=0.5).train()
    model[2].eval()
    measured = objective(model, cut(*data(), [250, 6]))
    before = state(model)
    recompute_batchnorm(measured)
    assert_same(before, state(model))


def test_within_a_session_the_loss_is_afterwards_what_it_was():
    measured = objective(deep(dropout=0.5), cut(*data(), [250, 6]))
    with measured.session():
        before = measured.loss()
        recompute_batchnorm(measured)
        assert measured.loss() == before


def test_a_batch_of_one_is_refused_and_leaves_nothing():
    model = deep().train()
    measured = objective(model, cut(*data(), [255, 1]))
    before = state(model)
    with pytest.raises(MeasurementError, match="at least two examples"):
        recompute_batchnorm(measured)
    assert_same(before, state(model))
