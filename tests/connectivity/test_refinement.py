"""Grids refined near the top, and standard errors of barriers over examples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.connectivity import Curve, barrier, barriers, linear_path, profile

DOUBLE = {"dtype": torch.float64}


class Bump(nn.Module):
    """A loss with a narrow top along its one weight, at 0.37."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, **DOUBLE))

    def forward(self, x):
        return x + torch.exp(-(((self.w - 0.37) / 0.01) ** 2))


def bump() -> tuple[Curve, Objective]:
    objective = Objective(Bump(), nn.L1Loss(), [(torch.zeros(6, 1, **DOUBLE), torch.full((6, 1), -1.0, **DOUBLE))])
    return Curve("linear", (torch.zeros(1, **DOUBLE), torch.ones(1, **DOUBLE)), objective.layout), objective


def test_refinement_finds_a_top_that_the_grid_steps_over():
    curve, objective = bump()
    coarse = profile(curve, objective)
    assert barrier(coarse) < 0.2
    fine = profile(curve, objective, refine=8)
    assert barrier(fine) == pytest.approx(1, abs=1e-3)
    assert (np.diff(fine.t) > 0).all()
    assert set(coarse.t) <= set(fine.t)
    assert len(fine.t) <= 21 + 4 * 8
    for t, loss in zip(fine.t, fine.loss, strict=True):
        assert loss == pytest.approx(float(objective.loss(torch.tensor([t], **DOUBLE))), rel=1e-12)
    with pytest.raises(ValueError, match="number of rounds"):
        profile(curve, objective, refine=-1)


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return tuple(nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 3)).double() for _ in range(2))


def data(n: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 3, generator=generator, **DOUBLE)
    return x, x.argmax(1)


def test_the_standard_error_is_that_of_the_differences_example_by_example():
    one, other = networks()
    x, y = data()
    for name in ("weight", "bias"):  # ends of unequal loss
        getattr(other[2], name).data *= 3
    path = linear_path(one, other, nn.CrossEntropyLoss(), [(x[:40], y[:40]), (x[40:], y[40:])])
    found = {(each.which, each.definition): each for each in barriers(path.evaluate())}

    def single(t):
        w = path.layout.named(path.point(t))
        scores = torch.func.functional_call(one, w, (x,))
        losses = nn.functional.cross_entropy(scores, y, reduction="none").detach().numpy()
        return {"loss": losses, "error": (scores.argmax(1) != y).double().numpy()}

    start, end = single(0.0), single(1.0)
    for (which, definition), each in found.items():
        t, ends = each.t, (start[which], end[which])
        base = {
            "interpolated": (1 - t) * ends[0] + t * ends[1],
            "mean_of_ends": (ends[0] + ends[1]) / 2,
            "worse_end": max(ends, key=np.mean),
        }[definition]
        differences = single(t)[which] - base
        assert each.value == pytest.approx(differences.mean(), rel=1e-10, abs=1e-12)
        assert each.stderr == pytest.approx(differences.std(ddof=1) / np.sqrt(60), rel=1e-9, abs=1e-12)
        assert each.n_examples == 60


def test_the_standard_error_has_the_spread_of_fresh_samples():
    one, other = networks()
    x, y = data(6000)
    heights, errors = [], []
    for part in range(60):
        here = slice(100 * part, 100 * (part + 1))
        path = linear_path(one, other, nn.CrossEntropyLoss(), [(x[here], y[here])])
        found = barriers(path.evaluate(t=[0.0, 0.5, 1.0]))[1]
        heights.append(found.value)
        errors.append(found.stderr)
    assert np.std(heights, ddof=1) == pytest.approx(np.mean(errors), rel=4 / np.sqrt(2 * 59))


def test_ignored_targets_and_class_weights_give_a_ratio_of_sums():
    """Against the delta method, by leaving out one example after another (jackknife)."""
    one, other = networks()
    x, y = data(50)
    y = y.clone()
    y[::7] = -100
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 5.0], **DOUBLE))
    grid = [0.0, 0.4, 1.0]

    def height(chosen):
        return linear_path(one, other, loss, [(x[chosen], y[chosen])]).evaluate(t=grid).loss @ np.array([-0.6, 1, -0.4])

    profile_ = linear_path(one, other, loss, [(x, y)]).evaluate(t=grid)
    differences = np.array([-0.6, 1, -0.4]) @ profile_.examples[:, 0]
    found = differences.std(ddof=1) / np.sqrt(50)
    left_out = [height(np.delete(np.arange(50), k)) for k in range(50)]
    jackknife = np.sqrt(49 / 50 * np.square(left_out - np.mean(left_out)).sum())
    assert found == pytest.approx(jackknife, rel=0.05)


def test_every_loss_of_torch_tells_examples_apart():
    one, other = nn.Linear(3, 3).double(), nn.Linear(3, 3).double()
    x, variance = data()[0], torch.tensor([0.2, 1.0, 3.0], **DOUBLE)

    def gaussian(z, y, reduction="mean"):
        return nn.functional.gaussian_nll_loss(z, y, variance.expand_as(y), reduction=reduction)

    found = linear_path(one, other, gaussian, [(x[:20], x[:20]), (x[20:], x[20:])]).evaluate(t=[0.0, 1.0])
    with torch.no_grad():
        shares = [gaussian(model(x), x, "none").mean(1).numpy() for model in (one, other)]
    np.testing.assert_allclose(found.examples[:, 0], [each - each.mean() for each in shares], rtol=1e-9, atol=1e-12)


def custom(scores, target):
    return ((scores - target) ** 4).mean()


def two(scores, target):
    return nn.functional.mse_loss(scores, target) + nn.functional.l1_loss(scores, target)


@pytest.mark.parametrize("loss", [custom, two])
def test_a_loss_that_does_not_tell_examples_apart_has_no_standard_error(loss):
    one, other = nn.Linear(3, 3).double(), nn.Linear(3, 3).double()
    x = data()[0]
    found = barriers(linear_path(one, other, loss, [(x, x)]).evaluate())
    assert all(np.isnan(each.stderr) for each in found)
    assert found[0].n_examples == 0
    assert found[0].value >= 0


def test_the_three_policies_of_batch_normalisation():
    torch.manual_seed(0)
    x, y = data()
    ends = []
    for seed in range(2):
        model = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()
        model(x + seed)
        ends.append(model.eval())
    path = linear_path(*ends, nn.CrossEntropyLoss(), [(x, y)])
    found = {
        name: path.evaluate(t=[0.0, 0.5, 1.0], batchnorm=name).loss for name in ("recompute", "interpolate", "keep")
    }
    own = [float(nn.functional.cross_entropy(model(x), y).detach()) for model in ends]
    np.testing.assert_allclose(found["interpolate"][[0, 2]], own, rtol=1e-12)
    # "keep" is the first model with other weights in it, at the other end too.
    mixed = dict(ends[0].named_buffers()) | dict(ends[1].named_parameters())
    scores = torch.func.functional_call(ends[0], mixed, (x,))
    assert found["keep"][2] == pytest.approx(float(nn.functional.cross_entropy(scores, y).detach()), rel=1e-12)
    assert found["keep"][0] == pytest.approx(own[0], rel=1e-12)
    assert len({round(float(values[1]), 9) for values in found.values()}) == 3
