from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.averaging import recompute_batchnorm
from landscape.connectivity import Curve, linear_path, profile

DOUBLE = {"dtype": torch.float64}
LOSS = nn.CrossEntropyLoss()


def batches(seed: int = 0, n: int = 64) -> list:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator, **DOUBLE)
    return [(x[:40], (x[:40, 0] > 0).long()), (x[40:], (x[40:, 0] > 0).long())]


def mlp(seed: int, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 6), nn.Dropout(dropout), nn.Tanh(), nn.Linear(6, 2)).double()


def normed(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 2)).double()
    model.train()
    for _ in range(3):
        model(torch.randn(32, 3, **DOUBLE) + seed)
    return model


def between(one: nn.Module, other: nn.Module, t: float) -> nn.Module:
    """A model with interpolated parameters and floating-point buffers, made the plain way."""
    mixed, ends = copy.deepcopy(one), [dict(one.state_dict()), dict(other.state_dict())]
    floating = [name for name, value in ends[0].items() if value.is_floating_point()]
    mixed.load_state_dict({name: (1 - t) * ends[0][name] + t * ends[1][name] for name in floating}, strict=False)
    return mixed.eval()


def plain_loss_and_error(model: nn.Module, data: list) -> tuple[float, float]:
    x, y = torch.cat([x for x, _ in data]), torch.cat([y for _, y in data])
    with torch.no_grad():
        scores = model(x)
    return float(LOSS(scores, y)), float((scores.argmax(1) != y).double().mean())


def test_loss_and_error_equal_those_of_interpolated_models():
    one, other, data = mlp(0, dropout=0.5), mlp(1, dropout=0.5), batches()
    found = linear_path(one, other, LOSS, data).evaluate()
    assert found.t.tolist() == np.linspace(0, 1, 21).tolist()
    expected = np.array([plain_loss_and_error(between(one, other, t), data) for t in found.t])
    np.testing.assert_allclose(found.loss, expected[:, 0], rtol=1e-12)
    np.testing.assert_array_equal(found.error, expected[:, 1])
    assert set(found.to_dict()) == {"t", "loss", "error"}


def test_kept_statistics_are_interpolated_and_the_ends_are_the_models_own():
    one, other, data = normed(0), normed(1), batches()
    grid = [0.0, 0.3, 1.0]
    found = linear_path(one, other, LOSS, data).evaluate(t=grid, batchnorm="interpolate")
    expected = [plain_loss_and_error(between(one, other, t), data)[0] for t in grid]
    np.testing.assert_allclose(found.loss, expected, rtol=1e-12)


def test_statistics_are_recomputed_at_every_point():
    one, other, data = normed(0), normed(1), batches()
    curve = linear_path(one, other, LOSS, data)
    found = curve.evaluate(t=[0.0, 0.3, 1.0])
    for t, loss in zip(found.t, found.loss, strict=True):
        mixed = between(one, other, t)
        statistics = recompute_batchnorm(Objective(mixed, LOSS, data))
        mixed.load_state_dict(statistics, strict=False)
        assert loss == pytest.approx(plain_loss_and_error(mixed, data)[0], rel=1e-12)
    assert not np.allclose(found.loss, curve.evaluate(t=found.t, batchnorm="interpolate").loss, rtol=1e-3)


def test_held_out_examples_are_measured_with_statistics_of_the_training_examples():
    one, other, train, held_out = normed(0), normed(1), batches(0), batches(1, n=41)
    curve = linear_path(one, other, LOSS, train)
    mixed = between(one, other, 0.5)
    mixed.load_state_dict(recompute_batchnorm(Objective(mixed, LOSS, train)), strict=False)
    expected = plain_loss_and_error(mixed, held_out)
    # The last held-out batch has one example, of which no statistics could be taken.
    by_batches = curve.evaluate(held_out, [0.5])
    by_objective = profile(curve, Objective(one, LOSS, held_out), [0.5])
    unbound = Curve("linear", curve.points, curve.layout, curve.end_buffers)
    by_statistics = profile(unbound, Objective(one, LOSS, held_out), [0.5], statistics=Objective(one, LOSS, train))
    for found in (by_batches, by_objective, by_statistics):
        assert (found.loss[0], found.error[0]) == pytest.approx(expected, rel=1e-12)


def test_statistics_from_an_objective_of_train_mode_leave_the_measurement_in_eval_mode():
    one, other, data = normed(0), normed(1), batches()
    curve = linear_path(one, other, LOSS, data)
    train_mode = Objective(one, LOSS, data, mode="train")
    found = profile(curve, curve.objective, [0.5], statistics=train_mode)
    assert found.loss[0] == curve.evaluate(t=[0.5]).loss[0]


def test_a_loss_without_classes_has_no_error():
    one, other = nn.Linear(3, 1).double(), nn.Linear(3, 1).double()
    data = [(x, x[:, :1]) for x, _ in batches()]
    assert np.isnan(linear_path(one, other, nn.MSELoss(), data).evaluate().error).all()


def test_nan_stays_nan():
    one, other = mlp(0), mlp(1)
    nn.init.constant_(other[0].weight, float("nan"))
    found = linear_path(one, other, LOSS, batches()).evaluate()
    assert np.isfinite(found.loss[0])
    assert np.isnan(found.loss[1:]).all()


def test_nothing_is_left_displaced():
    one, other = normed(0), normed(1)
    kept = [copy.deepcopy(model.state_dict()) for model in (one, other)]
    state = torch.get_rng_state()
    curve = linear_path(one, other, LOSS, batches())
    curve.evaluate()
    curve.evaluate(batches(1))
    for model, before in zip((one, other), kept, strict=True):
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert all(part.training for part in model.modules())
        assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("t", [[-0.1, 1.0], [0.0, 1.1], [float("nan")], [], [[0.5]]])
def test_positions_outside_the_path_are_refused(t):
    with pytest.raises(ValueError, match="from 0 to 1"):
        linear_path(mlp(0), mlp(1), LOSS, batches()).evaluate(t=t)


def test_another_model_or_policy_is_refused():
    curve = linear_path(mlp(0), mlp(1), LOSS, batches())
    other = Objective(normed(0), LOSS, batches())
    with pytest.raises(ValueError, match="another model"):
        curve.evaluate(other)
    with pytest.raises(ValueError, match="recompute, interpolate, keep"):
        curve.evaluate(batchnorm="momentum")


def test_positions_may_be_a_tensor():
    path = linear_path(mlp(0), mlp(1), LOSS, batches())
    assert path.evaluate(t=torch.linspace(0, 1, 5)).t.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert repr(path.evaluate(t=[0.0, 1.0])).startswith("PathProfile(n=2, loss ")
