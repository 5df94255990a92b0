from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape.curvature import spectrum, top_eigenpairs, trace
from landscape.curvature._dense import DenseOperator
from landscape.curvature._hutchpp import Deflated


def test_samples_equal_their_definition_after_growing(with_eigenvalues):
    operator = with_eigenvalues(np.exp(-np.arange(60) / 6.0))
    deflated = Deflated(operator, seed=1)
    deflated.probe(5)
    assert deflated.grow(12) == 12
    deflated.probe(3)
    assert deflated.spent == operator.n_matvecs == 20
    basis, probes = deflated._basis, deflated._probes
    np.testing.assert_allclose((basis.T @ basis).numpy(), np.eye(12), atol=1e-12)
    rest = probes - basis @ (basis.T @ probes)
    forms = (rest * (operator.matrix @ rest)).sum(dim=0) * 48 / (rest**2).sum(dim=0)
    exact = float((basis.T @ operator.matrix @ basis).trace() + forms.mean())
    assert deflated.estimate()[0].value == pytest.approx(exact, rel=1e-10)


def test_low_rank_is_exact(with_eigenvalues):
    estimate = trace(with_eigenvalues([3.0, 2.0, -1.0, *np.zeros(70)]), "hutch++", tol=1e-6)
    assert estimate.value == pytest.approx(4, rel=1e-9)
    assert estimate.converged
    assert estimate.n_matvecs < 30


def test_many_equal_eigenvalues_do_not_stop_the_subspace_from_growing(with_eigenvalues):
    operator = with_eigenvalues([*np.full(10, 10.0), *np.linspace(0.01, 0.2, 290)])
    spent = [trace(operator, "hutch++", tol=0.02, seed=seed).n_matvecs for seed in range(10)]
    assert np.mean(spent) < 100


def test_known_eigenpairs_cost_nothing_and_change_no_expectation(networks):
    network = networks["tanh trained"]
    operator = DenseOperator(network.matrix)
    exact = float(network.matrix.trace())
    found = spectrum(operator, k=8, k_bottom=2)
    with_pairs, without = (
        [trace(operator, "hutch++", tol=0.01, seed=seed, known=known) for seed in range(100)]
        for known in ((found.top, found.bottom), ())
    )
    assert np.mean([e.n_matvecs for e in with_pairs]) < np.mean([e.n_matvecs for e in without])
    values = np.array([e.value for e in with_pairs])
    assert values.mean() == pytest.approx(exact, abs=4 * values.std() / 10)
    assert 0.88 <= np.mean([abs(e.value - exact) <= 1.96 * e.stderr for e in with_pairs]) <= 1


def test_known_eigenpairs_that_are_rough_leave_the_trace_unbiased(with_eigenvalues):
    operator = with_eigenvalues(np.exp(-np.arange(100) / 10.0))
    rough = top_eigenpairs(operator, 5, tol=0.3, max_matvecs=20)
    exact = float(operator.matrix.trace())
    values = np.array([trace(operator, "hutch++", tol=0.1, seed=s, known=(rough,)).value for s in range(100)])
    assert values.mean() == pytest.approx(exact, abs=4 * values.std() / 10)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e9])
def test_scale_changes_nothing(with_eigenvalues, scale):
    values = 1 / np.arange(1.0, 81)
    estimate = trace(with_eigenvalues(scale * values), "hutch++", tol=0.01)
    plain = trace(with_eigenvalues(values), "hutch++", tol=0.01)
    assert estimate.value == pytest.approx(scale * plain.value, rel=1e-9)
    assert estimate.n_matvecs == plain.n_matvecs


def test_a_trace_that_cancels_stops_at_the_floor(with_eigenvalues):
    values = np.exp(-np.arange(60) / 4.0)
    operator = with_eigenvalues(np.concatenate([values, -values]))
    for method in ("xtrace", "hutch++"):
        estimate = trace(operator, method, tol=0.2)
        assert estimate.converged
        assert abs(estimate.value) <= 5 * estimate.stderr
        assert not trace(operator, method, tol=0.2, floor=0.0, max_matvecs=40).converged


def test_trace_of_a_network_takes_far_fewer_products_than_hutchinson(networks):
    operator = DenseOperator(networks["tanh trained"].matrix)
    norm, exact = float(operator.matrix.norm()), float(operator.matrix.trace())
    diagonal = float((operator.matrix.diagonal() ** 2).sum())
    plain = 2 * (norm**2 - diagonal) / (0.02 * exact) ** 2  # what 2 % takes with signs
    for method in ("xtrace", "hutch++"):
        found = [trace(operator, method, tol=0.02, seed=seed) for seed in range(50)]
        assert all(estimate.converged for estimate in found)
        assert 3 * np.mean([estimate.n_matvecs for estimate in found]) <= plain
        error = np.sqrt(np.mean([(estimate.value - exact) ** 2 for estimate in found]))
        assert error <= 0.025 * exact


def test_refusals(with_eigenvalues):
    operator = with_eigenvalues(np.ones(30))
    with pytest.raises(ValueError, match=r"known eigenpairs serve method='hutch\+\+' only"):
        trace(operator, "xtrace", known=(top_eigenpairs(operator, 1),))


def test_float32(with_eigenvalues):
    values = np.exp(-np.arange(100) / 8.0)
    single = trace(with_eigenvalues(values, dtype=torch.float32), "hutch++", tol=1e-3)
    assert single.value == pytest.approx(values.sum(), abs=4 * single.stderr)
