from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape._errors import MeasurementError
from landscape.curvature import diagonal, trace
from landscape.curvature._dense import DenseOperator
from landscape.curvature._lanczos import rademacher

METHODS = ["xdiag", "bekas"]


@pytest.mark.parametrize("method", METHODS)
def test_diagonal_of_hessians(network, method):
    exact = network.matrix.diagonal().numpy()
    estimate = diagonal(network.operator, method, max_matvecs=60)
    assert estimate.value.shape == estimate.stderr.shape == exact.shape
    assert np.mean(np.abs(estimate.value - exact) <= 3 * estimate.stderr) >= 0.95
    assert estimate.n_matvecs <= 60


def test_xdiag_equals_its_definition(with_eigenvalues):
    operator = with_eigenvalues(np.exp(-np.arange(40) / 4.0))
    estimate = diagonal(operator, "xdiag", tol=1e-12, max_matvecs=12, seed=3)
    matrix = operator.matrix.numpy()
    tests = np.stack([rademacher(40, 3, i).double().numpy() for i in range(6)], axis=1)
    singles = []
    for i in range(6):
        others = np.delete(tests, i, axis=1)
        basis = np.linalg.qr(matrix @ others)[0]
        rest = matrix @ tests[:, i] - basis @ (basis.T @ (matrix @ tests[:, i]))
        singles.append(np.diag(basis @ basis.T @ matrix) + tests[:, i] * rest)
    np.testing.assert_allclose(estimate.value, np.mean(singles, axis=0), atol=1e-10)


def test_xdiag_needs_fewer_products_where_the_spectrum_decays(with_eigenvalues):
    operator = with_eigenvalues(1 / np.arange(1.0, 201) ** 2)
    better, plain = (diagonal(operator, method, tol=0.1, max_matvecs=150) for method in METHODS)
    assert better.converged
    assert not plain.converged
    assert better.n_matvecs * 3 <= plain.n_matvecs


@pytest.mark.parametrize("method", METHODS)
def test_zero_low_rank_and_diagonal_matrices(with_eigenvalues, method):
    zero = diagonal(with_eigenvalues(np.zeros(50)), method)
    assert (zero.value == 0).all()
    assert (zero.stderr == 0).all()
    assert zero.converged
    assert np.isnan(zero.relative_error)
    exact = np.arange(30.0)
    found = diagonal(DenseOperator(torch.diag(torch.as_tensor(exact))), "bekas")
    np.testing.assert_allclose(found.value, exact)
    assert found.converged
    low = with_eigenvalues([1.0, *np.zeros(60)])
    np.testing.assert_allclose(diagonal(low, "xdiag").value, low.matrix.diagonal().numpy(), atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 24])
def test_small_operators_are_exact(with_eigenvalues, size):
    operator = with_eigenvalues(np.arange(1.0, size + 1))
    estimate = diagonal(operator, max_matvecs=24)
    np.testing.assert_allclose(estimate.value, operator.matrix.diagonal().numpy(), rtol=1e-12)
    assert (estimate.method, estimate.n_matvecs, estimate.relative_error) == ("exact", size, 0)
    assert estimate.value.sum() == pytest.approx(trace(operator).value)


def test_converged_means_the_tolerance_was_reached(with_eigenvalues):
    operator = with_eigenvalues(np.exp(-np.arange(100) / 8.0))
    for method in METHODS:
        for tolerance in (0.9, 0.3, 0.01):
            estimate = diagonal(operator, method, tol=tolerance, max_matvecs=40)
            assert estimate.converged == (estimate.relative_error <= tolerance)


def test_interval_widens_with_confidence(with_eigenvalues):
    estimate = diagonal(with_eigenvalues(1 / np.arange(1.0, 101)), max_matvecs=20)
    (low, high), (lower, higher) = estimate.interval(), estimate.interval(0.99)
    np.testing.assert_allclose(high - low, 2 * 1.959964 * estimate.stderr, rtol=1e-6)
    assert (higher - lower > high - low).all()
    with pytest.raises(ValueError, match="confidence is 2"):
        estimate.interval(2)


def test_refusals(with_eigenvalues):
    with pytest.raises(ValueError, match="method is 'exact'"):
        diagonal(with_eigenvalues([1.0]), "exact")
    with pytest.raises(ValueError, match="max_matvecs is 4"):
        diagonal(with_eigenvalues([1.0]), max_matvecs=4)
    with pytest.raises(MeasurementError, match="not finite"):
        diagonal(DenseOperator(torch.full((30, 30), torch.nan)))
