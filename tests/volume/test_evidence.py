"""Laplace's evidence against the closed form of linear regression, where it is exact."""

from __future__ import annotations

import importlib.util
import math
import sys

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits
from torch import nn

from landscape import MeasurementError, Objective
from landscape.curvature import ggn
from landscape.volume import laplace_evidence

PRECISIONS = np.geomspace(1e-2, 1e2, 9)


def closed_form(x, y, precision):
    """Return ln N(y; 0, I + XXᵀ/τ) without the normalisation of the noise, which the loss leaves out too."""
    covariance = np.eye(len(y)) + x @ x.T / precision
    return multivariate_normal(np.zeros(len(y)), covariance).logpdf(y) + len(y) / 2 * math.log(2 * math.pi)


def test_the_occam_curve_of_linear_regression_is_the_closed_form(regression):
    objective, x, y = regression
    found = laplace_evidence(objective, PRECISIONS, shifted=True)
    exact = [closed_form(x, y, precision) for precision in PRECISIONS]
    np.testing.assert_allclose(found.log_evidence, exact, rtol=1e-9)
    assert found.best_precision == PRECISIONS[int(np.argmax(exact))]
    assert PRECISIONS[0] < found.best_precision < PRECISIONS[-1]
    np.testing.assert_allclose(found.fit + found.prior + found.occam, found.log_evidence)


def test_without_a_shift_it_is_exact_at_the_posteriors_own_maximum(regression):
    objective, x, y = regression
    at = torch.from_numpy(np.linalg.solve(x.T @ x + 3 * np.eye(6), x.T @ y))
    found = laplace_evidence(objective.at(at), 3.0)
    assert found.log_evidence[0] == pytest.approx(closed_form(x, y, 3.0), rel=1e-9)
    elsewhere = laplace_evidence(objective, 3.0)
    assert elsewhere.log_evidence[0] < found.log_evidence[0]


def test_the_effective_number_of_parameters_is_mackays(regression):
    objective, x, _ = regression
    eigenvalues = np.linalg.eigvalsh(x.T @ x)
    found = laplace_evidence(objective, [0.1, 10.0])
    np.testing.assert_allclose(found.n_eff, [(eigenvalues / (eigenvalues + tau)).sum() for tau in (0.1, 10.0)])


def test_the_diagonal_structure_is_that_of_the_diagonal(regression):
    objective, x, _ = regression
    found = laplace_evidence(objective, [0.5], structure="diagonal")
    assert found.occam[0] == pytest.approx(-np.log((x**2).sum(axis=0) + 0.5).sum() / 2, rel=1e-6)


def test_a_posterior_without_a_maximum_is_no_number(cases):
    x, y = cases.data()
    objective = Objective(cases.mlp(), nn.CrossEntropyLoss(), [(x, y)], dtype=torch.float64)
    found = laplace_evidence(objective, [1e-6, 1e6], curvature="hessian")
    assert math.isnan(found.log_evidence[0])
    assert math.isfinite(found.log_evidence[1])
    assert found.best_precision == 1e6
    assert math.isfinite(laplace_evidence(objective, 1e-6).log_evidence[0])


def test_without_curvlinops_kronecker_factors_are_refused(cases, monkeypatch):
    monkeypatch.setitem(sys.modules, "curvlinops", None)
    objective = Objective(cases.mlp(), nn.CrossEntropyLoss(), [cases.data()])
    with pytest.raises(MeasurementError, match=r"curvlinops, which is not installed.*\[kfac\]"):
        laplace_evidence(objective, 1.0, "kfac")


def test_arguments(regression):
    objective = regression[0]
    for given, message in (
        ({"precision": 0.0}, "precision is 0.0"),
        ({"precision": []}, "one or several positive finite numbers"),
        ({"structure": "blocks"}, "structure is 'blocks'; it must be 'full' or 'kfac' or 'diagonal'"),
        ({"structure": "kfac", "curvature": "hessian"}, "Kronecker factors are those of the Gauss-Newton matrix"),
        ({"curvature": "fisher"}, "curvature is 'fisher'"),
    ):
        with pytest.raises(ValueError, match=message):
            laplace_evidence(objective, **given)


def maximum_of_posterior(x, labels, precision):
    """Train a small network on Σ cross-entropy + τ/2 ‖w‖² to its minimum."""
    torch.manual_seed(0)
    model, loss_fn = nn.Sequential(nn.Linear(64, 10), nn.Tanh(), nn.Linear(10, 10)).double(), nn.CrossEntropyLoss()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=400, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        penalty = sum(parameter.square().sum() for parameter in model.parameters())
        loss = len(x) * loss_fn(model(x), labels) + precision / 2 * penalty
        loss.backward()
        return loss

    optimizer.step(closure)
    return Objective(model, loss_fn, [(x, labels)])


@pytest.mark.slow
def test_occams_razor_sees_label_noise():
    """Digits, 300 examples: evidence falls with noise at every precision, and noisy labels ask for a larger one."""
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x[:300] / 16), torch.tensor(y[:300])
    generator = torch.Generator().manual_seed(0)
    order, wrong = torch.rand(300, generator=generator), torch.randint(10, (300,), generator=generator)
    precisions, curves, sizes = (0.03, 0.3, 3.0), [], []
    for noise in (0.0, 0.25, 0.5, 1.0):
        labels = torch.where(order < noise, wrong, y)
        found = [laplace_evidence(maximum_of_posterior(x, labels, tau), tau) for tau in precisions]
        curves.append([float(one.log_evidence[0]) / 300 for one in found])
        sizes.append(float(found[1].n_eff[0]))
    assert (np.diff(curves, axis=0) < -0.2).all()
    assert max(curves[0]) > -1
    assert [precisions[int(np.argmax(curve))] for curve in curves] == [0.3, 3.0, 3.0, 3.0]
    assert (np.diff(sizes) > 0).all()
    # Nothing is in random labels: a prior that leaves no freedom is best, and it says 1/10 for every class.
    narrow = laplace_evidence(maximum_of_posterior(x, wrong, 100.0), 100.0)
    assert max(curves[-1]) < narrow.log_evidence[0] / 300 == pytest.approx(-math.log(10), abs=0.01)


# curvlinops is an optional extra; the benchmark environment has it.
if importlib.util.find_spec("curvlinops"):

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its own imports
    class TestKroneckerFactors:
        def test_of_one_layer_the_occam_curve_is_the_full_one_and_the_closed_form(self, regression):
            """A sum of squared errors is −ln of a Gaussian with variance ½: X and y count √2 times."""
            plain, x, y = regression
            objective = Objective(plain.module, nn.MSELoss(), plain.batches)
            found, full = (laplace_evidence(objective, PRECISIONS, s, shifted=True) for s in ("kfac", "full"))
            root = math.sqrt(2)
            exact = [closed_form(root * x, root * y, precision) for precision in PRECISIONS]
            np.testing.assert_allclose(found.log_evidence, exact, rtol=1e-9)
            np.testing.assert_allclose(found.n_eff, full.n_eff, rtol=1e-9)
            assert PRECISIONS[0] < found.best_precision == full.best_precision < PRECISIONS[-1]

        @pytest.mark.parametrize("shifted", [False, True])
        def test_of_a_deep_linear_network_on_one_example_it_is_that_of_the_blocks(self, shifted):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).double()
            objective = Objective(model, nn.MSELoss(), [(torch.randn(1, 4), torch.randn(1, 2))])
            found = laplace_evidence(objective, PRECISIONS, "kfac", n=50, shifted=shifted)
            operator = ggn(objective)
            blocks = torch.block_diag(*[operator.restrict(name).dense() for name in operator.layout.names]).numpy()
            w, g = objective.vector().numpy(), objective.gradient().numpy()
            for index, tau in enumerate(PRECISIONS):
                posterior = 50 * blocks + tau * np.eye(len(w))
                away = 50 * g + tau * w
                exact = -np.linalg.slogdet(posterior)[1] / 2 + shifted * away @ np.linalg.solve(posterior, away) / 2
                assert found.occam[index] == pytest.approx(exact, rel=1e-9)
                assert found.n_eff[index] == pytest.approx(np.trace(np.linalg.solve(posterior, 50 * blocks)), rel=1e-9)

        def test_a_softmax_layer_on_one_example_is_exact(self):
            torch.manual_seed(1)
            data = [(torch.randn(1, 5), torch.tensor([2]))]
            objective = Objective(nn.Linear(5, 3, bias=False).double(), nn.CrossEntropyLoss(), data)
            found, full = (laplace_evidence(objective, PRECISIONS, s, n=100) for s in ("kfac", "full"))
            np.testing.assert_allclose(found.log_evidence, full.log_evidence, rtol=1e-9)

        def test_parameters_without_factors_are_refused(self):
            model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
            objective = Objective(model, nn.MSELoss(), [(torch.randn(4, 3), torch.randn(4, 3))])
            with pytest.raises(MeasurementError, match=r"1.bias, 1.weight would have no curvature"):
                laplace_evidence(objective, 1.0, "kfac")
