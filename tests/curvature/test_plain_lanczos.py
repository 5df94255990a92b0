from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape.curvature._dense import DenseOperator
from landscape.curvature._lanczos import Krylov, rademacher
from landscape.curvature._operator import Diagonal
from landscape.curvature._plain_lanczos import PlainLanczos, distinct

EXACT = np.concatenate([np.geomspace(100, 1, 30), -np.geomspace(5, 0.1, 20), np.linspace(-0.05, 0.05, 2950)])


def chain_of(values, steps, dtype=torch.float32, seed=0):
    chain = PlainLanczos(Diagonal(torch.tensor(values, dtype=dtype)), rademacher(len(values), seed))
    chain.grow(steps)
    return chain


def test_without_rounding_it_is_the_lanczos_process_with_a_basis():
    torch.manual_seed(0)
    matrix = torch.randn(40, 40, dtype=torch.float64)
    operator = DenseOperator(matrix + matrix.T)
    chain, krylov = PlainLanczos(operator, rademacher(40, 1)), Krylov(operator, rademacher(40, 1))
    chain.grow(12)
    krylov.grow(12)
    diagonal, couplings = chain.matrix()
    np.testing.assert_allclose(diagonal, krylov.alpha, rtol=1e-10)
    np.testing.assert_allclose(couplings, krylov.beta, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [60, 150])
def test_copies_count_once_and_ghosts_are_left_out(dtype, steps):
    chain = chain_of(EXACT, steps, dtype)
    found = chain.distinct()
    top = np.sort(EXACT)[::-1][:8]
    np.testing.assert_allclose(found.values[::-1][:8], top, rtol=1e-5)
    # The matrix itself holds more eigenvalues there than the operator has: the test would be empty otherwise.
    nodes = chain.quadrature().nodes
    assert (nodes > top[-1] * 1.001).sum() > 8 or steps < 100
    # Every value that is called known to its residual is one.
    exact = np.sort(EXACT)
    nearest = np.abs(found.values[:, None] - exact[None, :]).min(axis=1)
    assert (nearest <= 2.5 * found.residuals).all()


def test_the_quadrature_stays_right_without_orthogonality():
    quadrature = chain_of(EXACT, 150).quadrature()
    nodes, weights = quadrature.nodes, quadrature.weights
    assert weights.sum() == pytest.approx(1.0, rel=1e-6)
    # Signs see the moments of a diagonal matrix exactly, whatever they are.
    for order in (1, 2, 4):
        assert (weights * nodes**order).sum() == pytest.approx((EXACT**order).mean(), rel=1e-4)
    # Gauss's rule converges on what is smooth; a kink among the 2,950 small values would cost per cents.
    for z in (1.0, 0.5):
        smoothed = (weights * nodes**2 / (nodes**2 + z**2)).sum() * len(EXACT)
        assert smoothed == pytest.approx((EXACT**2 / (EXACT**2 + z**2)).sum(), rel=1e-4)


def test_an_exhausted_space_ends_the_matrix():
    chain = chain_of(np.array([2.0] * 16), 5, torch.float64)
    assert chain.exhausted
    diagonal, couplings = chain.matrix()
    assert (len(diagonal), couplings[-1]) == (1, 0.0)
    assert chain.distinct().values == pytest.approx([2.0])


def test_a_value_with_a_small_component_is_kept_unless_it_may_be_a_copy():
    # Two decoupled halves of T: the second has no weight at all on the start vector.
    diagonal, couplings = np.array([3.0, 1.0, 7.0]), np.array([0.1, 0.0, 1e-6])
    assert distinct(diagonal, couplings, 1e-7, 1000).n_ghosts == 1
    # A weight of 1e-9 for P = 1e6 is rare luck, but nothing known lies near.
    couplings = np.array([0.1, 1e-4, 1e-3])
    found = distinct(diagonal, couplings, 1e-7, 10**6)
    assert found.n_ghosts == 0
    assert found.values[-1] == pytest.approx(7.0)


def test_it_takes_three_vectors():
    """A product is one of them; here the operator makes none of its own."""
    chain = chain_of(EXACT, 5)
    held = [value for value in vars(chain).values() if isinstance(value, torch.Tensor) and value.numel() == len(EXACT)]
    assert len(held) == 2
