from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from landscape import MeasurementError, Objective
from landscape.curvature import hessian, top_eigenpairs

ENDS = ["LA", "SA", "LM", "BE"]


def expected(exact: np.ndarray, k: int, which: str) -> np.ndarray:
    exact = np.sort(exact)
    if which == "LA":
        return exact[::-1][:k]
    if which == "SA":
        return exact[:k]
    if which == "LM":
        return exact[np.argsort(-np.abs(exact), kind="stable")][:k]
    bottom = k // 2
    return np.sort(np.concatenate([exact[:bottom], exact[len(exact) - (k - bottom) :]]))[::-1]


@pytest.mark.parametrize("method", ["auto", "lanczos", "dense"])
@pytest.mark.parametrize("which", ENDS)
def test_eigenvalues_of_networks(network, which, method):
    k = 5
    pairs = top_eigenpairs(network.operator, k, which, method=method, max_matvecs=139)
    reference = expected(network.eigenvalues, k, which)
    assert pairs.converged
    np.testing.assert_allclose(pairs.values, reference, rtol=1e-5)
    vectors = pairs.vectors
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(k, dtype=torch.float64), rtol=0, atol=1e-8)
    scale = np.abs(network.eigenvalues).max()
    misses = torch.linalg.vector_norm(network.matrix @ vectors - vectors * torch.as_tensor(pairs.values.copy()), dim=0)
    np.testing.assert_allclose(pairs.residuals, misses.numpy(), atol=1e-7 * scale)


def test_eigenvalues_of_a_network_from_few_products_in_float32(cases):
    x, y = cases.data(60)
    model = cases.mlp(width=24)  # 795 parameters: beyond the dense method
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    operator = hessian(objective)
    double = cases.mlp(width=24).double()
    matrix = cases.dense_hessian(double, lambda: nn.functional.cross_entropy(double(x.double()), y))
    exact = torch.linalg.eigvalsh(matrix).numpy()
    for which in ("LA", "SA"):
        pairs = top_eigenpairs(operator, 5, which)
        assert pairs.converged
        assert pairs.n_matvecs <= 100
        np.testing.assert_allclose(pairs.values, expected(exact, 5, which), rtol=1e-5)
    assert operator.n_matvecs < 200


def test_largest_magnitude_may_be_negative(with_eigenvalues):
    exact = np.concatenate([[-0.37, -0.1], np.linspace(-0.05, 0.05, 300), [0.1, 0.199]])
    operator = with_eigenvalues(exact)
    for method in ("lanczos", "dense"):
        pairs = top_eigenpairs(operator, 2, "LM", method=method)
        assert pairs.converged
        np.testing.assert_allclose(pairs.values, [-0.37, 0.199], rtol=1e-5)
        both = top_eigenpairs(operator, 3, "BE", method=method)
        np.testing.assert_allclose(both.values, [0.199, 0.1, -0.37], rtol=1e-5)


SPECTRA = {
    "decay": np.exp(-np.arange(150) / 5.0),
    "power law": 1 / np.arange(1.0, 151.0) ** 2,
    "indefinite": np.concatenate([-3 * np.exp(-np.arange(20) / 4.0), np.exp(-np.arange(130) / 10.0)]),
    "cluster": np.concatenate([[1, 1 - 1e-4, 1 - 2e-4, 1 - 3e-4], np.linspace(0, 0.5, 146)]),
    "flat": np.linspace(-1, 1.001, 150),
    "normal": np.random.default_rng(0).standard_normal(150),
    "multiple": np.concatenate([[2, 2, 1.5, 1.5, 1], np.linspace(-0.5, 0.5, 145)]),
    "spikes": np.concatenate([[5, 4, 3, 2, 1], 1e-4 * np.random.default_rng(0).standard_normal(145)]),
}


BUDGETS = (1, 5, 15, 17, 20, 30, 60, 149, 150)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize(
    ("ks", "budgets", "seeds"),
    [
        ((1, 5), BUDGETS, 1),
        pytest.param((1, 3, 8), (*BUDGETS, 2, 4, 9, 10, 16, 25, 40, 100), 8, marks=pytest.mark.slow),
    ],
)
def test_converged_is_never_true_when_wrong(with_eigenvalues, spectrum, dtype, ks, budgets, seeds):
    exact = SPECTRA[spectrum]
    operator = with_eigenvalues(exact, dtype=dtype)
    claims = 0
    for which in ("LA", "SA", "LM"):
        for k in ks:
            for budget in budgets:
                for seed in range(seeds):
                    pairs = top_eigenpairs(operator, k, which, seed=seed, max_matvecs=budget, method="lanczos")
                    assert pairs.n_matvecs <= budget
                    known = pairs.converged_each
                    claims += known.sum()
                    found, right = pairs.values, expected(exact, k, which)
                    if which == "LM":  # of equal magnitudes either may come first
                        found, right = np.abs(found), np.abs(right)
                    miss = np.abs(found - right)
                    size = np.maximum(np.abs(right), 1e-3 * np.abs(exact).max())
                    assert np.all(miss[known] <= 1e-3 * size[known])
                    assert pairs.converged == known.all()
    assert claims > 20


def test_zero_matrix(with_eigenvalues):
    for method in ("lanczos", "dense"):
        pairs = top_eigenpairs(with_eigenvalues(np.zeros(30)), 3, method=method)
        np.testing.assert_allclose(pairs.values, 0, atol=1e-15)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_tiny_operators(with_eigenvalues, size):
    exact = np.arange(1.0, size + 1)
    for method in ("lanczos", "dense"):
        pairs = top_eigenpairs(with_eigenvalues(exact), size, method=method)
        assert pairs.converged
        np.testing.assert_allclose(pairs.values, exact[::-1], rtol=1e-12)


def test_a_budget_below_k_leaves_pairs_unknown(with_eigenvalues):
    pairs = top_eigenpairs(with_eigenvalues(np.linspace(0, 1, 50)), 5, max_matvecs=3, method="lanczos")
    assert pairs.values.shape == pairs.residuals.shape == pairs.converged_each.shape == (5,)
    assert np.isnan(pairs.values[3:]).all()
    assert not pairs.converged


def test_refusals(with_eigenvalues):
    operator = with_eigenvalues(np.ones(4))
    with pytest.raises(
        MeasurementError, match=r"k=5 eigenpairs were asked of an operator with P=4 parameters; ask for"
    ):
        top_eigenpairs(operator, 5)
    with pytest.raises(ValueError, match="k is 0"):
        top_eigenpairs(operator, 0)
    with pytest.raises(ValueError, match="which is 'LR'"):
        top_eigenpairs(operator, 1, "LR")
    with pytest.raises(ValueError, match="method is 'power'"):
        top_eigenpairs(operator, 1, method="power")


def test_results_turn_into_arrays(with_eigenvalues):
    stored = top_eigenpairs(with_eigenvalues(np.arange(4.0)), 2).to_dict()
    assert isinstance(stored["vectors"], np.ndarray)
    assert stored["vectors"].shape == (4, 2)
