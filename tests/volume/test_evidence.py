"""Laplace's evidence against the closed form of linear regression, where it is exact."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import nn

from landscape import Objective
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


def test_arguments(regression):
    objective = regression[0]
    for given, message in (
        ({"precision": 0.0}, "precision is 0.0"),
        ({"precision": []}, "one or several positive finite numbers"),
        ({"structure": "kfac"}, "structure is 'kfac'; it must be 'full' or 'diagonal'"),
        ({"curvature": "fisher"}, "curvature is 'fisher'"),
    ):
        with pytest.raises(ValueError, match=message):
            laplace_evidence(objective, **given)
