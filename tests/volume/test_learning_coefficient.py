"""The local learning coefficient against closed forms, and its diagnostics against what goes wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import chi2
from sklearn.datasets import load_digits
from torch import nn

from landscape import MeasurementError, Objective
from landscape.volume import learning_coefficient
from landscape.volume._langevin import Proposal, run_chain
from landscape.volume._posterior import LocalPosterior

CURVATURES = np.geomspace(0.1, 1, 20)
NBETA = 100.0


@pytest.mark.parametrize("method", ["sgld", "rmsprop", "mala"])
def test_a_regular_minimum_has_half_its_parameters(quadratic, method):
    found = learning_coefficient(quadratic(CURVATURES), 2, 600, 0.0, method=method, nbeta=NBETA)
    assert found.value == pytest.approx(10, rel=0.1)
    assert found.flags == () or (method, found.flags) == ("sgld", ("not_mixed",))  # 600 plain draws are few
    assert found.n_parameters == 20
    assert found.chains.mean() == pytest.approx(found.value)


def test_four_parameters_count_two(quadratic):
    found = learning_coefficient(quadratic(np.geomspace(0.3, 1, 4)), 4, 500, 0.0, nbeta=NBETA, method="mala")
    assert found.value == pytest.approx(2, rel=0.1)
    assert found.stderr < 0.15


def test_preconditioned_chains_are_there_sooner_and_equilibrium_tells(quadratic):
    """With curvatures apart by 10⁴ the step that the stiffest allows is short for all others."""
    objective = quadratic(np.geomspace(1e-3, 10, 20))
    plain, scaled = (learning_coefficient(objective, 2, 400, 0.0, method=m, nbeta=NBETA) for m in ("sgld", "rmsprop"))
    assert plain.value < 6
    assert plain.equilibrium == pytest.approx(plain.value / 10, rel=0.2)
    assert "not_mixed" in plain.flags
    assert scaled.value == pytest.approx(10, rel=0.1)
    assert scaled.equilibrium == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("gamma", [10.0, 100.0])
def test_a_tether_leaves_half_of_the_effective_dimension(quadratic, gamma):
    found = learning_coefficient(quadratic(CURVATURES), 2, 600, gamma, nbeta=NBETA)
    assert found.value == pytest.approx((CURVATURES / (CURVATURES + gamma / NBETA)).sum() / 2, rel=0.1)


@pytest.mark.parametrize("stiffness", [pytest.param(0.2, marks=pytest.mark.slow), 1.0, 3.0])
def test_the_bias_of_a_finite_step_is_the_known_one(quadratic, stiffness):
    step = stiffness / NBETA
    found = learning_coefficient(quadratic(CURVATURES), 2, 600, 0.0, nbeta=NBETA, step_size=step)
    expected = (0.5 / (1 - step * NBETA * CURVATURES / 4)).sum()
    assert abs(found.value - expected) < 3 * found.stderr
    assert found.stderr < 0.07 * expected
    assert found.equilibrium == pytest.approx(found.value / 10, rel=1e-6)  # here one is half the other
    assert found.stiffness == pytest.approx(stiffness)
    assert ("large_step" in found.flags) is (stiffness > 0.5)


def test_a_chain_that_diverges_is_no_number(quadratic):
    found = learning_coefficient(quadratic(CURVATURES), 2, 200, 0.0, nbeta=NBETA, step_size=5 / NBETA)
    assert math.isnan(found.value)
    assert math.isnan(found.stderr)
    assert {"diverged", "large_step", "not_mixed"} <= set(found.flags)


def test_chains_that_are_too_short_are_flagged(quadratic):
    found = learning_coefficient(quadratic([1.0, 1e-3]), 4, 100, 0.0, nbeta=NBETA, step_size=1e-4)
    assert "not_mixed" in found.flags


def test_a_point_that_is_no_minimum_is_flagged(quadratic):
    objective = quadratic(CURVATURES)
    found = learning_coefficient(objective.at(objective.vector() + 1), 2, 300, 1.0, nbeta=NBETA)
    assert found.value < 0
    assert "negative" in found.flags


def degenerate(nbeta, gamma, inputs, outputs):
    """Exact λ(nβ) of ½‖a‖²‖b‖² with a tether: the integral over a is Gaussian, the one over ‖b‖² is done here."""

    def partition(power):
        def integrand(u):
            s = math.exp(u)
            return s * chi2.pdf(s, outputs) * (1 + nbeta * s / gamma**2) ** power

        return quad(integrand, -60, 6, limit=500)[0]

    half = inputs / 2
    return half * (1 - partition(-half - 1) / partition(-half))


def test_a_degenerate_minimum_has_less_and_exactly_what_the_integral_says(deep_linear):
    found = learning_coefficient(deep_linear(4, 1, 3, 0), 2, 500, 3.0, nbeta=100.0, method="mala")
    expected = degenerate(100.0, 3.0, 4, 3)
    assert abs(found.value - expected) < 2.5 * found.stderr
    assert found.stderr < 0.2 * expected
    assert found.value < 1.5 < found.n_parameters / 2
    assert degenerate(1e12, 3.0, 4, 3) == pytest.approx(1.5, rel=1e-3)  # the formula of the slow test


def test_batches_change_nothing_but_the_noise(quadratic):
    expected = CURVATURES.size / 2
    apart = learning_coefficient(quadratic(CURVATURES, batches=4, spread=0.02), 2, 600, 0.0, nbeta=NBETA)
    assert apart.value == pytest.approx(expected, rel=0.1)
    assert 0 < apart.gradient_noise < 0.1
    assert apart.evaluations < 1.15 * (apart.trace.size + 300)
    whole = learning_coefficient(quadratic(CURVATURES, 4, 0.02), 2, 100, 0.0, nbeta=NBETA, full_batch=True)
    assert whole.gradient_noise == 0
    noisy = learning_coefficient(quadratic(CURVATURES, 4, 1.0), 2, 300, 0.0, nbeta=NBETA)
    assert "gradient_noise" in noisy.flags


@pytest.mark.slow
def test_the_gradient_noise_says_how_much_hotter_the_chain_is(quadratic):
    found = learning_coefficient(quadratic(np.ones(20), 8, 0.2), 4, 1000, 0.0, nbeta=NBETA)
    step_bias = 1 - found.step_size * NBETA / 4
    assert found.value * step_bias / 10 == pytest.approx(1 + found.gradient_noise, rel=0.05)
    assert found.gradient_noise > 0.1


def test_only_the_chosen_parameters_move(quadratic):
    found = learning_coefficient(quadratic(CURVATURES), 2, 600, 0.0, nbeta=NBETA, parameters="second")
    assert found.n_parameters == 10
    assert found.value == pytest.approx(5, rel=0.1)
    # The restricted posterior's gradient is that part of the whole one.
    objective = quadratic(CURVATURES, batches=2, spread=1.0)
    point = torch.linspace(-1, 1, 20, dtype=torch.float64)
    with objective.session():
        whole, part = (LocalPosterior(objective.at(point), NBETA, 2.0, names) for names in (None, "second"))
        for batch in (0, 1, None):
            full = whole.excess_and_force(point, batch)
            cut = part.excess_and_force(point[10:], batch)
            assert cut[0] == full[0] == 0
            torch.testing.assert_close(cut[1], full[1][10:])


def test_a_seed_gives_the_same_numbers_and_chains_have_streams_of_their_own(quadratic):
    objective = quadratic(CURVATURES, batches=2, spread=0.02)
    first, again = (learning_coefficient(objective, 2, 50, 1.0, 3) for _ in range(2))
    other = learning_coefficient(objective, 2, 50, 1.0, 4)
    np.testing.assert_array_equal(first.trace, again.trace)
    assert not (first.trace[0, 1:] == first.trace[1, 1:]).any()
    assert not (first.trace[:, 1:] == other.trace[:, 1:]).any()
    more = learning_coefficient(objective, 3, 50, 1.0, 3)
    np.testing.assert_array_equal(more.trace[:2], first.trace)


def test_the_model_and_the_random_generators_are_left_alone(cases):
    x, y = cases.data()
    model = cases.mlp()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    found = learning_coefficient(objective, 2, 20, method="rmsprop")
    assert math.isfinite(found.value)
    assert found.nbeta == 40 / math.log(40)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_rejected_steps_stay_where_they_are(quadratic):
    objective = quadratic(CURVATURES)
    with objective.session():
        posterior = LocalPosterior(objective, NBETA, 0.0)
        chain = run_chain(posterior, Proposal(3 / NBETA, None, adjusted=True), 300, (0, 0))
    stayed = np.mean(np.diff(chain.excess) == 0)
    assert 0 < stayed < 1
    assert stayed == pytest.approx(1 - chain.acceptance, abs=0.1)


def test_arguments(quadratic):
    objective = quadratic([1.0, 2.0])
    for given, message in (
        ({"method": "hmc"}, "method is 'hmc'; it must be 'sgld' or 'rmsprop' or 'mala'"),
        ({"chains": 0}, "chains is 0; it must be at least 1"),
        ({"draws": 3}, "draws is 3; it must be at least 4"),
        ({"gamma": -1.0}, "gamma is -1.0"),
        ({"step_size": 0.0}, "step_size is 0.0; it must be a positive finite number"),
        ({"n": 1}, "at least 2 training examples"),
        ({"parameters": "third"}, "matches no trainable parameter"),
    ):
        with pytest.raises(ValueError, match=message):
            learning_coefficient(objective, **given)
    with pytest.raises(MeasurementError, match="give gamma > 0 or step_size"):
        learning_coefficient(quadratic([0.0, 0.0]), gamma=0.0, draws=10)
    flat = learning_coefficient(quadratic([0.0, 0.0]), 1, 10, 0.0, step_size=0.1)
    assert (flat.value, flat.stiffness) == (0, 0)


@pytest.mark.slow
def test_true_labels_have_less_than_random_ones_at_equal_loss():
    """Handwritten digits, 1000 examples, memorised to a cross-entropy of 0.04 with no, half and all labels random."""
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x[:1000] / 16).float(), torch.tensor(y[:1000])
    torch.manual_seed(0)
    wrong, order = torch.randint(10, y.shape), torch.rand(len(y))
    found = []
    for share in (0.0, 0.5, 1.0):
        targets = torch.where(order < share, wrong, y)
        model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
        optimizer, loss_fn, loss = torch.optim.Adam(model.parameters(), lr=3e-3), nn.CrossEntropyLoss(), math.inf
        while loss > 0.04:
            optimizer.zero_grad()
            present = loss_fn(model(x), targets)
            present.backward()
            optimizer.step()
            loss = present.item()
        batches = list(zip(x.split(250), targets.split(250), strict=True))
        found.append(learning_coefficient(Objective(model, loss_fn, batches), 2, 400, 350.0))
    true, half, random = (one.value for one in found)
    assert 2 < true < 4
    assert 20 < half < 34
    assert 40 < random < 55
    assert all(set(one.flags) <= {"not_mixed"} and one.equilibrium > 0.9 for one in found)
