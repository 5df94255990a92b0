from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape.curvature import top_eigenpairs
from landscape.curvature._lanczos import rademacher
from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._ritz_space import RitzSpace
from landscape.curvature._verification import evidence, look, second_look


@pytest.mark.parametrize("copied", [2.0, 1.8, 1.5, 1.2])
def test_a_second_look_sees_what_was_left_out(with_eigenvalues, copied):
    exact = np.concatenate([[2.0, 1.8, 1.5, 1.2, 1.1], np.linspace(-0.5, 0.5, 300)])
    wanted = ((5, "LA"),)
    for eigenvalues, complete in ((exact, True), (np.append(exact, copied), False)):
        for seed in range(5):
            space = RitzSpace(with_eigenvalues(eigenvalues), rademacher(len(eigenvalues), seed), 60, seed)
            space.grow(24)
            steps = space.steps
            seen = look(space, wanted, 1e-3, 16)[0]
            assert seen.all() == complete
            assert seen[: np.searchsorted(-exact[:5], -copied)].all()
            assert 3 <= space.steps - steps <= 16
            if complete:
                assert space.steps - steps < 12


def test_evidence_bounds_the_component_of_an_unmet_eigenvalue(with_eigenvalues):
    exact = np.concatenate([[1.5], np.linspace(-1, 1, 199)])
    operator = with_eigenvalues(exact)
    hidden = torch.linalg.eigh(operator.matrix)[1][:, -1]
    start = rademacher(200, 0).double()
    for component in (1e-1, 1e-4, 1e-8):
        vector = start - hidden * (hidden @ start)
        vector = vector / torch.linalg.vector_norm(vector) + component * hidden
        space = RitzSpace(operator, vector, 40)
        for steps in range(1, 12):
            space.grow(1)
            assert space.steps == steps
            bound = evidence(*space.chain, at=1.5, size=200) / 200
            assert component**2 / (1 + component**2) <= bound * (1 + 1e-6)
    # Without the component the bound falls without end.
    space = RitzSpace(operator, start - hidden * (hidden @ start), 40)
    space.grow(30)
    assert evidence(*space.chain, at=1.5, size=200) < 1e-15
    assert evidence(np.ones(2), np.array([1.0, 0.0]), 2.0, 10) == 0.0


def test_a_missed_copy_of_a_multiple_eigenvalue_is_not_passed_over(with_eigenvalues):
    exact = np.concatenate([[2.0, 2.0, 1.5], np.linspace(-0.5, 0.5, 600)])
    for seed in range(4):
        pairs = top_eigenpairs(with_eigenvalues(exact), 3, seed=seed)
        assert pairs.converged
        np.testing.assert_allclose(pairs.values, [2, 2, 1.5], rtol=1e-5)
        overlaps = pairs.vectors.T @ pairs.vectors
        torch.testing.assert_close(overlaps, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-8)


def test_threefold_eigenvalues_of_a_squared_error_are_all_found(with_eigenvalues):
    # The Hessian of a linear model under a squared error repeats every eigenvalue once an output.
    exact = np.repeat(1.0 / np.arange(1, 201) ** 2, 3)
    pairs = top_eigenpairs(with_eigenvalues(exact), 6, max_matvecs=300)
    assert pairs.converged
    np.testing.assert_allclose(pairs.values, np.sort(exact)[::-1][:6], rtol=1e-5)


def test_the_share_of_the_second_look():
    assert [second_look(budget) for budget in (15, 16, 60, 90, 1000)] == [0, 8, 10, 15, 16]


class _Diagonal(SymmetricOperator):
    """A large operator with given eigenvalues, whose products cost nothing."""

    def __init__(self, eigenvalues: np.ndarray, dtype: torch.dtype = torch.float32):
        super().__init__(len(eigenvalues), dtype, torch.device("cpu"))
        # Rademacher starts have components of one size on a diagonal; with random axes they would be normal.
        order = torch.randperm(len(eigenvalues), generator=torch.Generator().manual_seed(0))
        self._eigenvalues = torch.as_tensor(eigenvalues, dtype=self.dtype)[order]
        self._signs = torch.randn(len(eigenvalues), generator=torch.Generator().manual_seed(1)).sign().to(dtype)

    def _matvec(self, vector: torch.Tensor) -> torch.Tensor:
        return self._mix(self._eigenvalues * self._mix(vector))

    def _mix(self, vector: torch.Tensor) -> torch.Tensor:
        """Reflect at a random direction of signs, which is orthogonal and its own inverse."""
        return vector - 2 / len(vector) * self._signs * torch.dot(self._signs, vector)


def _network_like(size: int, doubled: int | None) -> np.ndarray:
    """Ten outliers, one of them double, and a bulk whose edge is next to the last."""
    outliers = np.array([40.8, 39.1, 25.0, 22.4, 19.7, 13.7, 12.6, 10.0, 7.0, 2.8])
    bulk = 2.6 * np.random.default_rng(0).uniform(-1, 1, size - 10) ** 5
    exact = np.concatenate([outliers, bulk])
    if doubled is not None:
        exact[-1] = outliers[doubled]
    return np.sort(exact)[::-1].copy()


@pytest.mark.parametrize("doubled", [None, 0, 4, 8])
def test_claims_hold_where_products_are_dear(doubled):
    exact = _network_like(6000, doubled)
    operator = _Diagonal(exact)
    for seed in range(6):
        pairs = top_eigenpairs(operator, 10, seed=seed)
        assert pairs.converged
        np.testing.assert_allclose(pairs.values, exact[:10], rtol=1e-3)
        if doubled is None:
            unverified = top_eigenpairs(operator, 10, seed=seed, verify=False)
            assert unverified.converged
            assert unverified.n_matvecs < pairs.n_matvecs
            np.testing.assert_allclose(unverified.values, exact[:10], rtol=1e-3)


def test_without_the_second_look_a_copy_goes_unnoticed():
    outliers = np.array([40.8, 39.1, 25.0, 22.4, 19.7, 13.7, 12.6, 12.6, 10.0, 7.0])
    exact = np.concatenate([outliers, np.linspace(1, -1, 6000)])
    operator = _Diagonal(exact, torch.float64)  # in float32 rounding brings the copy in after some steps
    quick = top_eigenpairs(operator, 9, verify=False)
    assert quick.converged
    assert abs(quick.values[7] - 10.0) < 1e-2  # in place of the second 12.6
    np.testing.assert_allclose(top_eigenpairs(operator, 9).values, exact[:9], rtol=1e-3)
