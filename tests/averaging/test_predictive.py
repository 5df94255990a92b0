from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from landscape import MeasurementError, Objective
from landscape.averaging import bayesian_average, samples_of, swag


def setting(loss=None, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(40, 4, generator=generator)
    y = torch.randint(0, 3, (40,), generator=generator)
    torch.manual_seed(seed)
    model = nn.Linear(4, 3)
    batches = [(x[:25], y[:25]), (x[25:], y[25:])]
    return model, x, y, Objective(model, loss or nn.CrossEntropyLoss(), batches)


def by_hand(x, y, samples):
    p = np.stack([torch.softmax(x.double() @ s["weight"].double().T + s["bias"].double(), 1).numpy() for s in samples])
    mean = p.mean(0)
    entropy = -(mean * np.log(mean)).sum(1)
    mutual = entropy + (p * np.log(p)).sum(2).mean(0)
    surprise = -np.log(mean[np.arange(len(y)), y])
    confidence, right = mean.max(1), mean.argmax(1) == y.numpy()
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [abs(confidence[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    return mean, surprise, mutual, sum(gaps), 1 - right.mean()


def draws(n: int = 5) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(7)
    return [
        {"weight": torch.randn(3, 4, generator=generator), "bias": torch.randn(3, generator=generator)}
        for _ in range(n)
    ]


def test_equals_the_definition_by_hand():
    _, x, y, objective = setting()
    samples = draws()
    found = bayesian_average(objective, samples)
    mean, surprise, mutual, calibration, error = by_hand(x, y, samples)
    np.testing.assert_allclose(found.probabilities, mean, rtol=1e-5)
    assert found.nll.value == pytest.approx(surprise.mean(), rel=1e-5)
    assert found.nll.stderr == pytest.approx(surprise.std(ddof=1) / 40**0.5, rel=1e-5)
    np.testing.assert_allclose(found.mutual_information, mutual, rtol=1e-4, atol=1e-6)
    assert found.calibration_error == pytest.approx(calibration, abs=1e-5)
    assert found.error.value == pytest.approx(error)
    assert found.nll.value < found.sample_nll
    assert (found.mutual_information >= 0).all()
    assert found.n_samples == 5
    assert torch.equal(found.targets, y)


def test_one_sample_is_its_own_average():
    model, _, _, objective = setting()
    found = bayesian_average(objective, [objective.vector()])
    assert found.nll.value == pytest.approx(float(objective.loss()), rel=1e-5)
    assert found.sample_nll == pytest.approx(found.nll.value, rel=1e-12)
    assert found.mutual_information.abs().max() < 1e-12
    by_name = bayesian_average(objective, [model.state_dict()])
    assert torch.equal(found.probabilities, by_name.probabilities)


def test_ignored_targets_are_left_out_and_nll_loss_is_read():
    model, x, y, _ = setting()
    masked = y.clone()
    masked[::4] = -100

    def loss(scores, target):
        return nn.functional.nll_loss(scores.log_softmax(1), target)

    found = bayesian_average(Objective(model, loss, [(x, masked)]), draws())
    rest = bayesian_average(Objective(model, nn.CrossEntropyLoss(), [(x[masked >= 0], y[masked >= 0])]), draws())
    torch.testing.assert_close(found.probabilities, rest.probabilities, rtol=1e-6, atol=1e-7)
    assert found.calibration_error == pytest.approx(rest.calibration_error)


def test_binary_scores():
    torch.manual_seed(0)
    model, x = nn.Linear(4, 1), torch.randn(30, 4)
    y = torch.randint(0, 2, (30, 1)).float()
    objective = Objective(model, nn.BCEWithLogitsLoss(), [(x, y)])
    found = bayesian_average(objective, [objective.vector()])
    assert found.nll.value == pytest.approx(float(objective.loss()), rel=1e-6)
    assert found.error.value == pytest.approx(objective.evaluate().error)


def test_statistics_of_a_sample_are_used_and_nothing_is_left_displaced():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    x, y = torch.randn(20, 4), torch.randint(0, 3, (20,))
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sample = before | {"1.running_mean": torch.ones(3), "1.running_var": torch.full((3,), 4.0)}
    found = bayesian_average(objective, [sample])
    buffers = {"1.running_mean": torch.ones(3), "1.running_var": torch.full((3,), 4.0)}
    assert found.nll.value == pytest.approx(float(objective.loss(buffers=buffers)), rel=1e-6)
    assert found.nll.value != pytest.approx(float(objective.loss()), rel=1e-3)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_samples_of_a_recorded_run(make_run):
    rng = np.random.default_rng(0)
    path = make_run(rng.normal(size=(8, 12)))
    model = nn.Linear(4, 3, bias=False)
    x, y = torch.randn(20, 4), torch.randint(0, 3, (20,))
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    posterior = swag(path)
    named = list(samples_of(posterior, 4, first_seed=2, scale=0.5))
    assert torch.equal(named[1]["weight"], posterior.sample(3, 0.5)["weight"])
    vectors = bayesian_average(objective, [s["weight"] for s in named])
    shaped = bayesian_average(objective, [{"weight": s["weight"].reshape(3, 4)} for s in named])
    assert torch.equal(vectors.probabilities, shaped.probabilities)


def test_what_cannot_be_is_told():
    model, x, _, objective = setting()
    with pytest.raises(ValueError, match="no samples"):
        bayesian_average(objective, [])
    with pytest.raises(MeasurementError, match="'bias'"):
        bayesian_average(objective, [{"weight": torch.zeros(3, 4)}])
    regression = Objective(model, nn.MSELoss(), [(x, x[:, :3])])
    with pytest.raises(MeasurementError, match="classification"):
        bayesian_average(regression, [regression.vector()])
    _, _, y, _ = setting()
    within = Objective(model, lambda z, y: torch.vmap(nn.functional.cross_entropy)(z, y).mean(), [(x, y)])
    with pytest.raises(MeasurementError, match="classification"):
        bayesian_average(within, [within.vector()])
