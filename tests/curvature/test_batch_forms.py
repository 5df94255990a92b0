from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from landscape._sampling_error import Clusters
from landscape.curvature import (
    condition_number,
    condition_of_pairs,
    operator_gap,
    spectral_density,
    spectrum,
    top_eigenpairs,
    trace,
    track,
)
from landscape.curvature._dense import DenseOperator
from landscape.curvature._lanczos import rademacher
from landscape.curvature._ritz_space import RitzSpace

GROUPS, SIZE = 5, 120


@pytest.fixture(scope="module")
def operator() -> DenseOperator:
    """Five groups with different spectra and eigenvectors, uneven weights."""
    generator = torch.Generator().manual_seed(0)
    weights = np.array([0.1, 0.3, 0.2, 0.15, 0.25])
    clusters = Clusters.of(weights, [10, 30, 20, 15, 25], False)
    common = torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64) * 0.93 ** torch.arange(SIZE)
    own = torch.randn(GROUPS, SIZE, 40, generator=generator, dtype=torch.float64)
    matrices = (
        common @ common.T / SIZE + 0.02 * (own @ own.transpose(1, 2)) - 0.3 * torch.eye(SIZE, dtype=torch.float64)
    )
    parts = torch.as_tensor(weights)[:, None, None] * matrices
    return DenseOperator(parts.sum(0), parts, clusters)


def forms(operator: DenseOperator, vectors: torch.Tensor) -> np.ndarray:
    assert operator._parts is not None
    return torch.einsum("ik,gij,jk->gk", vectors, operator._parts, vectors).numpy()


def test_they_follow_the_basis_through_restarts_and_fresh_starts(operator):
    space = RitzSpace(operator, rademacher(SIZE, 0), 30)
    space.grow(20)
    space.forms.matrices()  # asked for on the way
    space.grow(10)
    space.restart(np.arange(18, 30))
    space.grow(5)
    space.inject()
    space.grow(4)
    exact = torch.einsum("ia,gab,jb->gij", space.basis, operator._parts, space.basis).numpy()
    np.testing.assert_allclose(space.forms.matrices(), exact, atol=1e-12)
    space.forget_chain()
    np.testing.assert_allclose(space.forms.matrices(), exact[:, :17, :17], atol=1e-12)
    np.testing.assert_allclose(space.forms.first_chain().sum(0), _first(operator), atol=1e-9)


def _first(operator: DenseOperator) -> np.ndarray:
    space = RitzSpace(operator, rademacher(SIZE, 0), 30)
    space.grow(30)
    return (space.basis @ operator.matrix @ space.basis.T).numpy()


@pytest.mark.parametrize("how", ["dense", "lanczos", "low", "spectrum", "track"])
def test_eigenvalues_have_the_error_of_their_batches(operator, how):
    if how == "spectrum":
        pairs = spectrum(operator, 4, 3).bottom
    elif how == "track":
        first = track(operator, None, 4)
        pairs = track(operator, first, 4).pairs
    elif how == "low":
        pairs = top_eigenpairs(operator, 4, method="lanczos", memory="low")
    else:
        pairs = top_eigenpairs(operator, 4, method=how)
    exact = forms(operator, pairs.vectors)
    np.testing.assert_allclose(pairs.parts, exact, atol=1e-10)
    np.testing.assert_allclose(pairs.parts.sum(axis=0), pairs.values, rtol=1e-4)
    np.testing.assert_allclose(pairs.stderr_sample, operator.clusters.stderr(exact))
    assert "parts" not in pairs.to_dict()


def test_a_vector_whose_product_is_known_brings_its_groups(operator):
    first = track(operator, None, 2)
    generator = torch.Generator().manual_seed(3)
    given = torch.randn(operator.shape[0], generator=generator, dtype=torch.float64) + 3 * first.basis[:, 0]
    known = given, operator.matrix @ given
    own = forms(operator, given[:, None])[:, 0]
    found = track(operator, first, 2, known=known, known_forms=own).pairs
    np.testing.assert_allclose(found.parts, forms(operator, found.vectors), atol=1e-10)
    np.testing.assert_allclose(found.stderr_sample, operator.clusters.stderr(found.parts))
    assert np.isnan(track(operator, first, 2, known=known).pairs.stderr_sample).all()
    within = first.basis[:, 0], operator.matrix @ first.basis[:, 0]  # nothing new: left out, and nothing is unknown
    left_out = track(operator, first, 2, known=within).pairs
    np.testing.assert_allclose(left_out.parts, forms(operator, left_out.vectors), atol=1e-10)


def test_without_groups_the_error_is_unknown(operator):
    plain = DenseOperator(operator.matrix)
    for method in ("dense", "lanczos"):
        assert np.isnan(top_eigenpairs(plain, 3, method=method).stderr_sample).all()
    for method in ("xtrace", "hutch++", "hutchinson"):
        assert np.isnan(trace(plain, method).stderr_sample)
    assert np.isnan(spectral_density(plain).n_eff(0.1).stderr_sample)


def moved(operator: DenseOperator, group: int, size: float) -> DenseOperator:
    """The operator with a little more of one group."""
    assert operator._parts is not None
    return DenseOperator(operator.matrix + size * operator._parts[group])


def expected(operator: DenseOperator, measure, size: float = 1e-5) -> float:
    """The standard error by differences of the measured number itself in each group's share."""
    changes = [
        (measure(moved(operator, group, size)) - measure(moved(operator, group, -size))) / (2 * size)
        for group in range(GROUPS)
    ]
    return float(operator.clusters.stderr(np.array(changes)))


@pytest.mark.parametrize("method", ["hutchinson", "xtrace", "hutch++", "known", "streamed", "streamed, known"])
def test_traces_have_the_error_of_their_batches(operator, method):
    exact = operator.clusters.stderr(np.array([float(part.trace()) for part in operator._parts]))
    settings = {"method": method if method in ("hutchinson", "xtrace") else "hutch++", "tol": 0.01}
    if "known" in method:
        found = spectrum(operator, 6, 2)
        settings["known"] = found.top, found.bottom
    if "streamed" in method:
        settings["memory_budget"] = 12 * SIZE * 8
    estimate = trace(operator, **settings)
    assert abs(estimate.stderr_sample - exact) <= 0.2 * exact + 2 * estimate.stderr
    if method == "hutchinson":  # linear in the matrix, so the error with these probes is exact
        settings["max_matvecs"] = estimate.n
        change = expected(operator, lambda each: trace(each, **settings).value)
        assert estimate.stderr_sample == pytest.approx(change, rel=1e-6)


FUNCTIONS = {
    "trace": lambda density: density.moment(1),
    "fourth moment": lambda density: density.moment(4),
    "n_eff": lambda density: density.n_eff(0.5),
}


@pytest.mark.parametrize(("name", "accuracy"), [("trace", 1e-6), ("fourth moment", 1e-3), ("n_eff", 0.05)])
def test_densities_have_the_error_of_their_batches(operator, name, accuracy):
    """The quadrature is exact for polynomials; of N_eff it knows what its nodes resolve."""

    def measure(each: DenseOperator) -> float:
        return FUNCTIONS[name](spectral_density(each, probes=2, steps=40)).value

    found = FUNCTIONS[name](spectral_density(operator, probes=2, steps=40))
    assert found.stderr_sample == pytest.approx(expected(operator, measure), rel=accuracy)


@pytest.mark.parametrize("name", ["fourth moment", "n_eff"])
def test_known_pairs_bring_their_part_of_the_error(operator, name):
    exact, found = (
        FUNCTIONS[name](
            spectral_density(operator, probes=20, steps=40, known=(top_eigenpairs(operator, k, method="dense"),))
        ).stderr_sample
        for k in (SIZE, 4)
    )
    assert found == pytest.approx(exact, rel=0.3)


def test_the_gap_of_two_traces_has_the_error_of_its_batches(operator):
    """Of an operator and its half in some of the groups."""
    shares = torch.tensor([0.5, 1.0, 0.5, 1.0, 0.5], dtype=torch.float64)[:, None, None] * operator._parts
    halved = DenseOperator(shares.sum(0), shares, operator.clusters)
    found = operator_gap(operator, halved, probes=6)
    a, b = (np.array([_probed(part) for part in each._parts]) for each in (operator, halved))
    ratio = (a.sum() - b.sum()) / abs(a.sum())
    moves = (a - b) / abs(a.sum()) - ratio * np.sign(a.sum()) * a / abs(a.sum())
    assert found.trace.value == pytest.approx(ratio)
    assert found.trace.stderr_sample == pytest.approx(float(operator.clusters.stderr(moves)))
    other = DenseOperator(operator.matrix, operator._parts, dataclasses.replace(operator.clusters))
    assert np.isnan(operator_gap(operator, other, probes=6).trace.stderr_sample)  # of other examples, perhaps


def _probed(part: torch.Tensor) -> float:
    probes = torch.stack([rademacher(SIZE, 0, index) for index in range(6)]).double()
    return float(torch.einsum("ki,ij,kj->k", probes, part, probes).mean())


def test_a_condition_number_has_the_error_of_its_two_eigenvalues(operator):
    pairs = top_eigenpairs(operator, 6, method="dense")
    found = condition_of_pairs(pairs, operator)
    assert found.value == condition_number(pairs.values) == pairs.values[0] / pairs.values[-1]
    change = expected(operator, lambda each: condition_number(top_eigenpairs(each, 6, method="dense").values))
    assert found.stderr_sample == pytest.approx(change, rel=1e-4)
    assert np.isnan(condition_of_pairs(pairs).stderr_sample)
    short = dataclasses.replace(pairs, values=np.append(pairs.values[:3], [np.nan] * 3))
    assert condition_of_pairs(short, operator).value == pairs.values[0] / pairs.values[2]
    assert np.isnan(condition_of_pairs(dataclasses.replace(pairs, values=np.full(6, np.nan)), operator).value)
