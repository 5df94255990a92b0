"""The local free energy of a quadratic against its closed form, and its derivative against λ̂."""

from __future__ import annotations

import numpy as np
import pytest

from landscape.volume import coefficient_grid, free_energy, gaussian_free_energy, learning_coefficient

CURVATURES = np.geomspace(0.05, 1, 40)


def test_the_closed_forms_derivative_is_the_effective_dimension():
    step = 1e-4
    upper, lower = (gaussian_free_energy(CURVATURES, 100 * np.exp(sign * step), 10.0)[0] for sign in (1, -1))
    exact = gaussian_free_energy(CURVATURES, 100.0, 10.0)[1]
    assert (upper - lower) / (2 * step) == pytest.approx(exact, rel=1e-7)
    sign, log_det = np.linalg.slogdet(np.eye(40) + 10 * np.diag(CURVATURES))
    assert sign == 1
    assert gaussian_free_energy(CURVATURES, 100.0, 10.0)[0] == pytest.approx(log_det / 2)


def test_the_integral_is_the_closed_form(quadratic):
    found = free_energy(quadratic(CURVATURES), 10.0, 100.0, 2, 100, points=8, method="mala")
    exact = gaussian_free_energy(CURVATURES, 100.0, 10.0)[0]
    assert abs(found.value - exact) < 2 * found.stderr
    assert found.value == pytest.approx(exact, rel=0.05)
    assert found.at[-1] < 100
    assert len(found.coefficients) == 8


def test_the_quadrature_is_exact_to_a_thousandth(quadratic):
    """With exact λ at the nodes, the rule and its tail give the closed form."""
    found = free_energy(quadratic(CURVATURES), 10.0, 100.0, 1, 4, burn_in=0)
    shares = np.polynomial.legendre.leggauss(12)[1] * 6 * np.log(10) / 2
    shares[0] += 100 * 1e-6 / found.at[0]
    exact = [gaussian_free_energy(CURVATURES, float(nbeta), 10.0)[1] for nbeta in found.at]
    assert shares @ exact == pytest.approx(gaussian_free_energy(CURVATURES, 100.0, 10.0)[0], rel=1e-3)
    assert shares @ found.coefficients == pytest.approx(found.value)


@pytest.mark.slow
def test_the_derivative_is_the_learning_coefficient_to_a_hundredth(quadratic):
    exact = gaussian_free_energy(CURVATURES, 100.0, 10.0)[1]
    found = learning_coefficient(quadratic(CURVATURES), 4, 8000, 10.0, nbeta=100.0, method="mala")
    assert found.stderr < 0.005 * exact
    assert found.value == pytest.approx(exact, rel=0.01)


def test_a_grid_is_one_estimate_a_pair(quadratic):
    objective = quadratic(CURVATURES)
    grid = coefficient_grid(objective, [1.0, 100.0], [10.0, 100.0, 1000.0], 2, 60, seed=3)
    assert grid.value.shape == grid.stderr.shape == grid.rhat.shape == grid.flagged.shape == (2, 3)
    alone = learning_coefficient(objective, 2, 60, 100.0, 3, nbeta=1000.0)
    assert grid.value[1, 2] == alone.value
    assert (np.diff(grid.value, axis=1) > 0).all()  # colder chains meet more dimensions
    assert (np.diff(grid.value, axis=0) < 0).all()  # a stronger tether leaves fewer


def test_arguments(quadratic):
    objective = quadratic([1.0, 2.0])
    with pytest.raises(ValueError, match="gammas or nbetas is empty"):
        coefficient_grid(objective, [], [1.0])
    with pytest.raises(ValueError, match="needs a tether"):
        free_energy(objective, 0.0)
    with pytest.raises(ValueError, match="at least 2 points"):
        free_energy(objective, 1.0, points=1)
