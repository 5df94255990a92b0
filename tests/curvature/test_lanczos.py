from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape.curvature._lanczos import Krylov, rademacher

DECAYS = {
    "exponential": np.exp(-np.arange(300) / 4.0),
    "steep": 10.0 ** (-np.arange(300) / 2.0),
    "power law": 1.0 / np.arange(1, 301) ** 2,
    "indefinite": np.concatenate([-np.exp(-np.arange(100) / 5.0), np.exp(-np.arange(200) / 10.0) / 3]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [60, 100])
@pytest.mark.parametrize("decay", DECAYS)
def test_no_ghosts_on_decaying_spectra(with_eigenvalues, decay, steps, dtype):
    exact = np.sort(DECAYS[decay])
    operator = with_eigenvalues(exact, dtype=dtype)
    krylov = Krylov(operator, rademacher(300, 0))
    krylov.grow(steps)
    eps = torch.finfo(dtype).eps
    overlaps = krylov.basis.double() @ krylov.basis.double().T
    assert float((overlaps - torch.eye(steps)).abs().max()) < 50 * eps
    values, vectors = krylov.ritz()
    # A ghost would be a second Ritz value beside a well separated converged one.
    converged = krylov.residuals(vectors) < 1e-4 * np.abs(values)
    separated = np.array([np.sort(np.abs(exact - value))[1] for value in values]) > 1e-2 * np.abs(values)
    for value in values[converged & separated]:
        assert np.sum(np.abs(values - value) < 1e-3 * abs(value)) == 1
    assert np.all(
        np.min(np.abs(values[:, None] - exact), axis=1)[converged] < 1e-3 * np.abs(values[converged]) + 10 * eps
    )
    assert values[-1] == pytest.approx(exact[-1], rel=2e-6)
    assert values[0] == pytest.approx(exact[0], rel=2e-6, abs=1e-6)


def test_ritz_values_interlace_and_are_complete_at_full_size(with_eigenvalues):
    exact = np.sort(np.random.default_rng(0).standard_normal(40))
    krylov = Krylov(with_eigenvalues(exact), rademacher(40, 0))
    krylov.grow(25)
    values = krylov.ritz()[0]
    assert np.all(values >= exact[:25] - 1e-12)
    assert np.all(values <= exact[-25:] + 1e-12)
    krylov.grow(100)
    assert krylov.steps == 40
    np.testing.assert_allclose(krylov.ritz()[0], exact, atol=1e-12)


def test_multiple_eigenvalues_come_out_of_the_whole_space(with_eigenvalues):
    exact = np.sort([3.0] * 5 + [1.0] * 10 + [-2.0] * 3)
    krylov = Krylov(with_eigenvalues(exact), rademacher(18, 0))
    krylov.grow(18)
    np.testing.assert_allclose(krylov.ritz()[0], exact, atol=1e-10)


def test_residuals_are_those_of_the_lifted_vectors(with_eigenvalues):
    operator = with_eigenvalues(np.linspace(-1, 3, 80))
    krylov = Krylov(operator, rademacher(80, 0))
    krylov.grow(20)
    values, vectors = krylov.ritz()
    lifted = krylov.lift(vectors)
    measured = torch.linalg.vector_norm(operator @ lifted - lifted * torch.as_tensor(values), dim=0).numpy()
    np.testing.assert_allclose(krylov.residuals(vectors), measured, atol=1e-12)
    torch.testing.assert_close(torch.linalg.vector_norm(lifted, dim=0), torch.ones(20, dtype=torch.float64))


def test_probes_are_signs_and_differ():
    first, again, other = rademacher(1000, 1, 0), rademacher(1000, 1, 0), rademacher(1000, 1, 1)
    assert set(first.tolist()) == {-1.0, 1.0}
    assert torch.equal(first, again)
    assert abs(float((first * other).mean())) < 0.1
