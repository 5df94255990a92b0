from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from landscape import MeasurementError, Objective
from landscape.curvature import hessian, spectrum
from landscape.curvature._verification import second_look


def test_both_ends_and_density_of_networks(network):
    found = spectrum(network.operator, k=5, k_bottom=3, max_matvecs=139)
    assert found.top.converged
    assert found.bottom.converged
    np.testing.assert_allclose(found.top.values, network.eigenvalues[::-1][:5], rtol=1e-5)
    np.testing.assert_allclose(found.bottom.values, network.eigenvalues[:3], rtol=1e-5)
    mean = found.density.moment(1)
    assert abs(mean.value - network.eigenvalues.mean()) <= 5 * mean.stderr
    assert found.density.nodes.shape[0] == 4
    np.testing.assert_allclose(found.density.weights.sum(axis=1), 1, rtol=1e-10)


def test_products_are_counted_and_stay_within_the_budget(networks):
    operator = networks["tanh"].operator
    before = operator.n_matvecs
    found = spectrum(operator, k=2, k_bottom=1, probes=3, steps=10, max_matvecs=60)
    assert operator.n_matvecs - before == found.n_matvecs
    # One second look is within the budget of the first run, that of the other end beside it.
    assert found.n_matvecs <= 60 + second_look(60) + 2 * 10


def test_density_equals_that_of_the_probes_alone(with_eigenvalues):
    exact = np.linspace(-1, 2, 100)
    found = spectrum(with_eigenvalues(exact), k=1, k_bottom=1, probes=8, steps=12, seed=3)
    for order in (1, 2):
        moment = found.density.moment(order)
        assert abs(moment.value - np.mean(exact**order)) <= 4 * moment.stderr


def test_ends_of_uneven_batches_agree(cases):
    x, y = cases.data(256)
    whole, parts = (
        spectrum(hessian(Objective(cases.mlp().double(), nn.CrossEntropyLoss(), batches)), k=3, k_bottom=2)
        for batches in ([(x, y)], list(zip(x.split(250), y.split(250), strict=True)))
    )
    np.testing.assert_allclose(parts.top.values, whole.top.values, rtol=1e-8)
    np.testing.assert_allclose(parts.bottom.values, whole.bottom.values, rtol=1e-8)
    np.testing.assert_allclose(parts.density.moment(1).value, whole.density.moment(1).value, rtol=1e-8)


def test_more_pairs_than_parameters(with_eigenvalues):
    with pytest.raises(MeasurementError, match="k=6"):
        spectrum(with_eigenvalues(np.ones(5)), k=2, k_bottom=6)


def test_tiny_operators(with_eigenvalues):
    found = spectrum(with_eigenvalues([2.0]), k=1, k_bottom=1)
    assert found.top.values[0] == found.bottom.values[0] == pytest.approx(2)
    assert found.top.converged
