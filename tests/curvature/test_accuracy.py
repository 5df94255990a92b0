from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape._sampling_error import Clusters
from landscape.curvature import spectrum, top_eigenpairs
from landscape.curvature._accuracy import FALLBACK, Accuracy
from landscape.curvature._lanczos import rademacher
from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._products import Reader
from landscape.curvature._ritz_space import RitzSpace

GROUPS = 6
OUTLIERS = np.array([40.8, 39.1, 25.0, 22.4, 19.7, 13.7, 12.6, 10.0, 7.0, 2.8])


class _Batches(SymmetricOperator):
    """A large operator with given eigenvalues, whose groups of batches scatter about them by a share of their size."""

    def __init__(self, eigenvalues: np.ndarray, noise: float, groups: bool = True):
        super().__init__(len(eigenvalues), torch.float32, torch.device("cpu"))
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(eigenvalues), generator=generator)
        scatter = np.random.default_rng(0).normal(size=(GROUPS, len(eigenvalues))) * noise * np.sqrt(GROUPS)
        parts = eigenvalues * (1 + scatter - scatter.mean(axis=0)) / GROUPS
        self.parts = torch.tensor(parts, dtype=self.dtype)[:, order]
        self._eigenvalues = torch.tensor(eigenvalues, dtype=self.dtype)[order]
        self._signs = torch.randn(len(eigenvalues), generator=generator).sign()
        self.clusters = Clusters.of([1 / GROUPS] * GROUPS, [256] * GROUPS, False) if groups else None

    def _matvec(self, vector: torch.Tensor) -> torch.Tensor:
        return self._mix(self._eigenvalues * self._mix(vector))

    def _by_batch(
        self, block: torch.Tensor, read: Reader, shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        inner = self._mix(block)
        return self._matvec(block), torch.stack([read(self._mix(part * inner)) for part in self.parts])

    def _mix(self, vector: torch.Tensor) -> torch.Tensor:
        return vector - 2 / len(vector) * self._signs * torch.dot(self._signs, vector)


def network_like(size: int = 6000, doubled: int | None = None) -> np.ndarray:
    bulk = 2.6 * np.random.default_rng(0).uniform(-1, 1, size - 10) ** 5
    exact = np.concatenate([OUTLIERS, bulk])
    if doubled is not None:
        exact[-1] = OUTLIERS[doubled]
    return np.sort(exact)[::-1].copy()


@pytest.mark.parametrize("doubled", [None, 0, 5])
def test_a_search_stops_at_a_tenth_of_the_error_over_examples(doubled):
    exact = network_like(doubled=doubled)
    operator = _Batches(exact, noise=0.05)
    assert operator.clusters is not None
    spent = usual = 0
    for seed in range(4):
        pairs = top_eigenpairs(operator, 10, tol="sample", seed=seed)
        assert pairs.converged
        assert pairs.tolerance_from == "sample"
        spread = operator.clusters.spread(pairs.parts)
        np.testing.assert_allclose(spread, 0.05 * exact[:10], rtol=0.8)
        assert (np.abs(pairs.values - exact[:10]) <= 0.1 * spread).all()
        assert pairs.tolerance == pytest.approx(0.1 * (spread / pairs.values).min(), rel=0.3)
        spent += pairs.n_matvecs
        usual += top_eigenpairs(operator, 10, tol=1e-3, seed=seed).n_matvecs
    assert spent <= usual - 4 * (doubled is None)


def test_the_ends_of_a_spectrum_stop_there_too():
    exact = np.append(network_like(), [-5.0, -7.0])
    found, usual = (spectrum(_Batches(exact, noise=0.05), tol=tol, probes=2, steps=10) for tol in ("sample", 1e-4))
    assert found.top.converged
    assert found.top.tolerance_from == found.bottom.tolerance_from == "sample"
    assert found.n_matvecs < usual.n_matvecs
    assert (np.abs(found.top.values - exact[:10]) <= 0.2 * found.top.stderr_sample).all()


def test_without_an_error_over_examples_a_number_is_taken(with_eigenvalues):
    operator = _Batches(network_like(), noise=0.05, groups=False)
    pairs, usual = (top_eigenpairs(operator, 10, tol=tol) for tol in ("sample", FALLBACK))
    assert (pairs.tolerance, pairs.tolerance_from) == (FALLBACK, "fallback")
    assert pairs.n_matvecs == usual.n_matvecs
    assert usual.tolerance_from == "given"
    dense = top_eigenpairs(with_eigenvalues(np.arange(20.0)), 2, tol="sample")
    assert (dense.tolerance, dense.tolerance_from) == (FALLBACK, "fallback")


def test_neither_a_vanishing_nor_an_enormous_spread_is_a_tolerance():
    for noise, expected in ((0.0, 1e-4), (50.0, 0.05)):
        operator = _Batches(network_like(800), noise)
        space = RitzSpace(operator, rademacher(800, 0), 30)
        space.grow(20)
        tol = Accuracy("sample", operator.clusters).of(space)
        assert tol[-1] == pytest.approx(expected)
        assert Accuracy(1e-3, operator.clusters).of(space).tolist() == [1e-3] * 20


@pytest.mark.parametrize("tol", ["examples", 0.0, -1e-3, float("nan"), float("inf")])
def test_what_is_no_tolerance_is_refused(tol):
    with pytest.raises(ValueError, match="give a relative accuracy such as 1e-3, or 'sample'"):
        top_eigenpairs(_Batches(network_like(600), 0.1), 2, tol=tol)
