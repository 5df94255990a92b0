from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape.curvature import top_eigenpairs
from landscape.curvature._lanczos import Krylov, rademacher
from landscape.curvature._ritz_space import RitzSpace

EXACT = np.sort(1.0 / np.arange(1, 401) ** 1.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_space_holds_its_relation_through_restarts_and_fresh_directions(with_eigenvalues, dtype):
    operator = with_eigenvalues(EXACT, dtype=dtype)
    space = RitzSpace(operator, rademacher(400, 0), 30)
    for _ in range(4):
        space.grow(30)
        space.restart(np.arange(space.count - 12, space.count))
    space.inject()
    space.grow(6)
    eps = torch.finfo(dtype).eps
    basis = space.basis.double()
    torch.testing.assert_close(basis @ basis.T, torch.eye(18, dtype=torch.float64), rtol=0, atol=100 * eps)
    projected = basis @ operator.matrix.double() @ basis.T
    np.testing.assert_allclose(projected.numpy(), space._projected[:18, :18], atol=100 * eps)
    values, vectors = space.ritz()
    lifted = space.lift(vectors).double()
    measured = torch.linalg.vector_norm(operator.matrix.double() @ lifted - lifted * torch.as_tensor(values), dim=0)
    assert (measured.numpy() <= space.residuals(vectors) + 100 * eps).all()


def test_without_restarts_it_is_the_lanczos_process(with_eigenvalues):
    operator = with_eigenvalues(EXACT)
    space, krylov = RitzSpace(operator, rademacher(400, 0), 30), Krylov(operator, rademacher(400, 0))
    space.grow(25)
    krylov.grow(25)
    np.testing.assert_allclose(space.ritz()[0], krylov.ritz()[0], atol=1e-12)
    np.testing.assert_allclose(space.residuals(space.ritz()[1]), krylov.residuals(krylov.ritz()[1]), atol=1e-12)
    quadrature = space.quadrature()
    nodes, weights = quadrature.nodes, quadrature.weights
    np.testing.assert_allclose(nodes, krylov.ritz()[0], atol=1e-12)
    assert weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("which", ["LA", "SA", "LM", "BE"])
def test_every_end_through_restarts(with_eigenvalues, which):
    exact = np.concatenate([-0.3 * EXACT[-150:], EXACT])
    pairs = top_eigenpairs(with_eigenvalues(exact), 12, which, method="lanczos", max_basis=40, max_matvecs=400)
    order = np.sort(exact)
    expected = {
        "LA": order[::-1][:12],
        "SA": order[:12],
        "LM": order[np.argsort(-np.abs(order))][:12],
        "BE": np.concatenate([order[::-1][:6], order[:6][::-1]]),
    }[which]
    assert pairs.converged

    np.testing.assert_allclose(pairs.values, expected, rtol=1e-5)


def test_k_50_in_a_basis_of_124(with_eigenvalues):
    exact = np.concatenate([np.exp(-np.arange(60) / 30.0), np.linspace(-0.05, 0.05, 900)])
    operator = with_eigenvalues(exact)
    pairs = top_eigenpairs(operator, 50, max_basis=124, max_matvecs=500)
    assert pairs.converged
    np.testing.assert_allclose(pairs.values, exact[:50], rtol=1e-5)


def test_a_basis_that_is_too_small_is_refused(with_eigenvalues):
    with pytest.raises(ValueError, match="a basis of 10 vectors is too small for k=10; allow 16 at least"):
        top_eigenpairs(with_eigenvalues(EXACT), 10, method="lanczos", max_basis=10)
    with pytest.raises(ValueError, match="memory is 'tiny'"):
        top_eigenpairs(with_eigenvalues(EXACT), 10, method="lanczos", memory="tiny")
