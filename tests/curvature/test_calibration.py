"""Over 300 seeds the 95 % intervals cover the exact value in 92 to 98 %, with default arguments and stopped early.

The rate itself is counted over seeds, so that it scatters by 1.3 %: the bounds of the single cases leave room for that,
those of the averages over cases do not.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape.curvature import SpectralDensity, diagonal, negative_share, spectral_density, spectral_entropy, trace
from landscape.curvature._calibration import form_error
from landscape.curvature._dense import DenseOperator
from landscape.curvature._lanczos import rademacher

SEEDS = 300
SPECTRA = {
    "flat": np.linspace(0.5, 1.5, 150),
    "exponential": np.exp(-np.arange(150) / 8.0),
    "power law": 1 / np.arange(1.0, 151),
    "fast power law": 1 / np.arange(1.0, 151) ** 2,
    "indefinite": np.concatenate([np.exp(-np.arange(90) / 9.0), -0.3 * np.exp(-np.arange(60) / 9.0)]),
    "outliers": np.concatenate([np.linspace(4, 12, 10), np.linspace(0.01, 0.2, 140)]),
}
NAMES = [*SPECTRA, "network"]


@pytest.fixture(scope="module")
def operators(with_eigenvalues, networks):
    made = {name: with_eigenvalues(values) for name, values in SPECTRA.items()}
    return made | {"network": DenseOperator(networks["tanh trained"].matrix)}


def covers(estimates, exact):
    return np.mean([abs(e.value - exact) <= 1.96 * e.stderr for e in estimates])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["xtrace", "hutch++", "hutchinson"])
def test_traces_cover_at_the_stated_rate(operators, method):
    rates = {}
    for name, operator in operators.items():
        exact = float(operator.matrix.trace())
        for tol in (0.2, 0.03):
            estimates = [trace(operator, method, tol=tol, seed=seed, max_matvecs=60) for seed in range(SEEDS)]
            rates[name, tol] = covers(estimates, exact)
            inside = [e.interval()[0] <= exact <= e.interval()[1] for e in estimates]
            assert np.mean(inside) == pytest.approx(rates[name, tol], abs=0.02)
    assert min(rates.values()) >= 0.91, rates
    assert max(rates.values()) <= 0.99, rates
    assert 0.93 <= np.mean(list(rates.values())) <= 0.97, rates


def densities_of(operator, probes, steps):
    """Densities of 300 seeds; steps=None takes the measures that infinitely many steps would give."""
    if steps is not None:
        return [spectral_density(operator, seed=seed, probes=probes, steps=steps) for seed in range(SEEDS)]
    eigenvalues, vectors = np.linalg.eigh(operator.matrix.numpy())
    size = len(eigenvalues)
    found = []
    for seed in range(SEEDS):
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], (probes, size))
        weights = (signs @ vectors) ** 2 / size
        found.append(SpectralDensity(np.tile(eigenvalues, (probes, 1)), weights, size, seed, 0))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("probes", "steps"), [(2, None), (4, 15), (12, None)])
def test_moments_and_effective_dimensions_cover_at_the_stated_rate(operators, probes, steps):
    rates = {}
    for name, operator in operators.items():
        eigenvalues = np.linalg.eigvalsh(operator.matrix.numpy())
        top, positive = np.abs(eigenvalues).max(), np.maximum(eigenvalues, 0)
        densities = densities_of(operator, probes, steps)
        for order in (1, 2, 4):
            rates[name, order] = covers([d.moment(order) for d in densities], (eigenvalues**order).mean())
        for z in (1e-1 * top, top):
            rates[name, f"N_eff {z:.2g}"] = covers([d.n_eff(z) for d in densities], (positive / (positive + z)).sum())
    assert min(rates.values()) >= 0.91, rates
    assert max(rates.values()) <= 0.995, rates
    assert 0.93 <= np.mean(list(rates.values())) <= 0.97, rates


@pytest.mark.slow
def test_an_unresolved_kink_is_in_the_error(operators):
    operator = operators["indefinite"]
    eigenvalues = np.linalg.eigvalsh(operator.matrix.numpy())
    positive = np.maximum(eigenvalues, 0)
    densities = densities_of(operator, 4, 20)
    for z in (1e-3, 1e-2):
        assert covers([d.n_eff(z) for d in densities], (positive / (positive + z)).sum()) >= 0.9


@pytest.mark.slow
def test_derived_numbers_cover_at_the_stated_rate(operators):
    operator = operators["network"]
    eigenvalues = np.linalg.eigvalsh(operator.matrix.numpy())
    magnitudes = np.abs(eigenvalues)
    p = magnitudes / magnitudes.sum()
    densities = densities_of(operator, 10, None)
    exact_share = magnitudes[eigenvalues < 0].sum() / magnitudes.sum()
    assert 0.91 <= covers([negative_share(d) for d in densities], exact_share) <= 1
    shannon = -(p * np.log(p)).sum()
    assert 0.9 <= covers([spectral_entropy(d) for d in densities], shannon) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("method", ["xdiag", "bekas"])
def test_diagonal_entries_cover_at_the_stated_rate(operators, method):
    rates = {}
    for name, operator in operators.items():
        exact = operator.matrix.diagonal().numpy()
        found = [diagonal(operator, method, tol=0.2, seed=seed, max_matvecs=60) for seed in range(30)]
        rates[name] = np.mean([np.abs(e.value - exact) <= 1.96 * e.stderr for e in found])
    assert min(rates.values()) >= 0.91, rates
    assert max(rates.values()) <= 0.985, rates


def test_the_known_variance_is_that_of_rotation_invariant_probes():
    generator = np.random.default_rng(0)
    values = np.exp(-np.arange(40) / 5.0)
    probes = generator.standard_normal((4000, 40))
    probes *= np.sqrt(40) / np.linalg.norm(probes, axis=1, keepdims=True)
    samples = probes**2 @ values
    error, dof = form_error(samples[:2], (values**2).sum(), (values**4).sum(), 40, signs=False)
    assert error * np.sqrt(2) == pytest.approx(samples.std(), rel=0.1)
    assert dof > 2  # far more than the one that two samples have of their own


def test_a_form_that_no_probe_changes_has_no_error():
    diagonal_form = np.array([rademacher(30, 0, i).double().numpy() ** 2 @ np.arange(30.0) for i in range(3)])
    assert form_error(diagonal_form, (np.arange(30.0) ** 2).sum(), 1.0, 30, signs=True)[0] == 0
    assert form_error(np.zeros(4), 0.0, 0.0, 30, signs=True) == (0, 3)


def test_early_stopping_spends_less_than_the_budget(operators):
    estimate = trace(operators["network"], tol=0.2, max_matvecs=100)
    assert estimate.converged
    assert estimate.n_matvecs < 50
    assert torch.isfinite(torch.tensor(estimate.stderr))
