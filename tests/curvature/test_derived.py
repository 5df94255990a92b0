from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape.curvature import (
    condition_number,
    effective_dimension,
    negative_share,
    spectral_density,
    spectral_entropy,
)
from landscape.curvature._dense import DenseOperator


@pytest.fixture(scope="module")
def mixed():
    """A diagonal matrix, of which signs see the whole spectrum: all results are exact."""
    values = np.concatenate([np.linspace(0.1, 3, 20), [-0.5, -0.25], np.zeros(3)])
    return values, spectral_density(DenseOperator(torch.diag(torch.as_tensor(values))), probes=3, steps=len(values))


def test_effective_dimension_and_complement(mixed):
    values, density = mixed
    positive = np.maximum(values, 0)
    z = [0.1, 1.0, 10.0]
    exact = np.array([(positive / (positive + level)).sum() for level in z])
    for n_examples, most in ((12, 12), (1000, 25)):
        found = effective_dimension(density, z, n_examples)
        np.testing.assert_allclose(found.value, exact, rtol=1e-10)
        np.testing.assert_allclose(found.complement, most - exact, rtol=1e-10)
        assert (found.stderr < 1e-10).all()
        assert density.n_eff_complement(0.1, n_examples).value == pytest.approx(most - exact[0])
    assert (np.diff(found.value) < 0).all()
    summed = effective_dimension(density, [100.0], 100, scale="sum")
    assert summed.value[0] == pytest.approx(exact[1])


def test_errors_of_the_ladder_are_those_of_n_eff(networks):
    density = spectral_density(networks["tanh trained"].operator, probes=4, steps=20)
    found = effective_dimension(density, [0.1, 1.0], 60)
    assert found.stderr.tolist() == [density.n_eff(z).stderr for z in (0.1, 1.0)]
    assert set(found.to_dict()) >= {"z", "value", "complement", "stderr", "scale", "n_examples"}


def test_negative_share(mixed, with_eigenvalues):
    values, density = mixed
    assert negative_share(density).value == pytest.approx(0.75 / np.abs(values).sum(), rel=1e-10)
    assert negative_share(density).stderr < 1e-10
    assert negative_share(spectral_density(with_eigenvalues(np.linspace(1, 2, 30)))).value == 0
    assert np.isnan(negative_share(spectral_density(with_eigenvalues(np.zeros(30)))).value)


@pytest.mark.parametrize("order", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("scale", [1.0, 1e-9])
def test_entropy(mixed, order, scale):
    values, _ = mixed
    density = spectral_density(DenseOperator(torch.diag(scale * torch.as_tensor(values))), probes=3, steps=25)
    p = np.abs(values[values != 0]) / np.abs(values).sum()
    exact = -(p * np.log(p)).sum() if order == 1 else np.log((p**order).sum()) / (1 - order)
    found = spectral_entropy(density, order)
    # Zero eigenvalues come out at rounding, whose square root a low order still sees.
    assert found.value == pytest.approx(exact, rel=1e-5)
    assert found.stderr < 1e-5
    assert found.order == order
    assert found.effective_rank == pytest.approx(np.exp(exact), rel=1e-4)


def test_entropy_of_networks(networks):
    for network in networks.values():
        density = spectral_density(DenseOperator(network.matrix), probes=20, steps=40)
        p = np.abs(network.eigenvalues) / np.abs(network.eigenvalues).sum()
        found = spectral_entropy(density)
        assert abs(found.value + (p * np.log(p)).sum()) <= 4 * found.stderr
        participation = spectral_entropy(density, 2.0)
        assert abs(participation.value + np.log((p**2).sum())) <= 4 * participation.stderr
        assert participation.value <= found.value


def test_entropy_at_its_bounds(with_eigenvalues):
    identity = spectral_density(with_eigenvalues(np.ones(40)))
    assert spectral_entropy(identity).value == pytest.approx(np.log(40), rel=1e-10)
    assert np.isnan(spectral_entropy(spectral_density(with_eigenvalues(np.zeros(40)))).value)
    assert spectral_entropy(spectral_density(with_eigenvalues([3.0]))).value == pytest.approx(0, abs=1e-12)


def test_condition_number():
    assert condition_number(np.array([4.0, -2.0, 0.5])) == 8
    assert condition_number(np.array([4.0, 1e-9, 2.0]), cutoff=1e-6) == 2
    assert condition_number(np.array([1.0, 0.0])) == np.inf
    assert np.isnan(condition_number(np.zeros(3)))


def test_refusals(mixed):
    _, density = mixed
    with pytest.raises(ValueError, match="scale is 'max'"):
        effective_dimension(density, [1.0], 10, scale="max")
    with pytest.raises(ValueError, match="n_examples is 0"):
        effective_dimension(density, [1.0], 0)
    with pytest.raises(ValueError, match="z is -1"):
        effective_dimension(density, [-1.0], 10)
    with pytest.raises(ValueError, match="order is 0"):
        spectral_entropy(density, 0)
    with pytest.raises(ValueError, match="at least one eigenvalue"):
        condition_number(np.array([]))
    with pytest.raises(ValueError, match="cutoff is 1"):
        condition_number(np.ones(2), cutoff=1)
