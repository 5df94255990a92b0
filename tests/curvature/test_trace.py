from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape.curvature import trace
from landscape.curvature._dense import DenseOperator

METHODS = ["xtrace", "hutch++", "hutchinson"]
SPECTRA = {
    "flat": np.linspace(0.5, 1.5, 100),
    "decay": np.exp(-np.arange(100) / 8.0),
    "indefinite": np.concatenate([np.exp(-np.arange(60) / 6.0), -0.3 * np.exp(-np.arange(40) / 6.0)]),
    "low rank": np.concatenate([np.ones(5), np.zeros(95)]),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "spectrum", ["decay", *(pytest.param(name, marks=pytest.mark.slow) for name in SPECTRA if name != "decay")]
)
def test_trace_is_within_three_standard_errors(with_eigenvalues, spectrum, method):
    operator = with_eigenvalues(SPECTRA[spectrum])
    exact = SPECTRA[spectrum].sum()
    inside, values = [], []
    for seed in range(200):
        estimate = trace(operator, method, tol=0.05, seed=seed, max_matvecs=60)
        inside.append(abs(estimate.value - exact) <= 3 * estimate.stderr)
        values.append(estimate.value)
        assert estimate.n_matvecs <= 60
    assert np.mean(inside) >= 0.95
    assert np.mean(values) == pytest.approx(exact, abs=4 * np.std(values) / np.sqrt(200) + 0.01 * abs(exact))


@pytest.mark.parametrize("method", METHODS)
def test_trace_of_networks_over_200_seeds(networks, with_eigenvalues, method):
    network = networks["tanh trained"]
    operator = DenseOperator(network.matrix)  # the same products, without the network's cost
    exact = float(network.matrix.trace())
    estimates = [trace(operator, method, seed=seed, max_matvecs=80) for seed in range(200)]
    assert np.mean([abs(e.value - exact) <= 3 * e.stderr for e in estimates]) >= 0.95


@pytest.mark.parametrize("method", METHODS)
def test_trace_of_a_hessian(network, method):
    estimate = trace(network.operator, method, max_matvecs=100)
    assert abs(estimate.value - float(network.matrix.trace())) <= 4 * estimate.stderr


def test_converged_means_the_tolerance_was_reached(with_eigenvalues):
    operator = with_eigenvalues(SPECTRA["decay"])
    for method in METHODS:
        for tolerance in (0.5, 0.05, 0.001):
            estimate = trace(operator, method, tol=tolerance, max_matvecs=40)
            assert estimate.converged == (estimate.stderr <= tolerance * abs(estimate.value))
            assert isinstance(estimate.converged, bool)


def test_xtrace_is_exact_for_low_rank(with_eigenvalues):
    estimate = trace(with_eigenvalues(SPECTRA["low rank"]), "xtrace", tol=1e-6)
    assert estimate.value == pytest.approx(5, rel=1e-9)
    assert estimate.converged


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_matrix(with_eigenvalues, method, dtype):
    estimate = trace(with_eigenvalues(np.zeros(50), dtype=dtype), method)
    assert (estimate.value, estimate.stderr, estimate.converged) == (0, 0, True)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 24])
def test_small_operators_are_exact(with_eigenvalues, size):
    exact = np.arange(1.0, size + 1)
    estimate = trace(with_eigenvalues(exact))
    assert estimate.value == pytest.approx(exact.sum(), rel=1e-12)
    assert estimate.stderr == 0
    assert estimate.n_matvecs == size


@pytest.mark.parametrize("size", [25, 30, 40])
def test_sizes_near_the_budget(with_eigenvalues, size):
    exact = np.linspace(-1, 2, size)
    inside = []
    for seed in range(30):
        estimate = trace(with_eigenvalues(exact), "xtrace", seed=seed, tol=1e-3)
        inside.append(abs(estimate.value - exact.sum()) <= 3 * estimate.stderr)
    assert np.mean(inside) >= 0.9


def test_float32_agrees(with_eigenvalues):
    single, double = (trace(with_eigenvalues(SPECTRA["decay"], dtype=t)) for t in (torch.float32, torch.float64))
    assert single.value == pytest.approx(double.value, rel=1e-4)


def test_refusals(with_eigenvalues):
    with pytest.raises(ValueError, match="method is 'exact'"):
        trace(with_eigenvalues([1.0]), "exact")
    with pytest.raises(ValueError, match="max_matvecs is 4"):
        trace(with_eigenvalues([1.0]), max_matvecs=4)
