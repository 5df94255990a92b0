from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape.curvature import top_eigenpairs
from landscape.curvature._verification import outermost, ranked


def test_a_second_look_sees_what_was_left_out(with_eigenvalues):
    exact = np.concatenate([[2.0, 2.0, 1.5], np.linspace(-0.5, 0.5, 200)])
    operator = with_eigenvalues(exact)
    vectors = torch.linalg.eigh(operator.matrix)[1].flip(1)
    for taken, left in ((1, 2.0), (2, 1.5), (3, 0.5)):
        low, high = outermost(operator, vectors[:, :taken], 20, seed=0)
        assert high == pytest.approx(left, rel=0.02)
        assert high <= left + 1e-12
        assert low == pytest.approx(-0.5, rel=0.02)


def test_a_missed_copy_of_a_multiple_eigenvalue_is_not_passed_over(with_eigenvalues):
    exact = np.concatenate([[2.0, 2.0, 1.5], np.linspace(-0.5, 0.5, 600)])
    pairs = top_eigenpairs(with_eigenvalues(exact), 3)
    right = np.abs(pairs.values - [2, 2, 1.5]) < 1e-5
    assert not (pairs.converged_each & ~right).any()
    assert pairs.converged_each[0]


def test_convergence_goes_from_the_ends_inwards():
    values = np.arange(8.0)
    errors = np.zeros(8)
    met = np.array([True, True, False, True, True, False, True, True])
    assert ranked(values, np.array([7, 6, 5, 4]), met, errors, "LA").tolist() == [True, True, False, False]
    assert ranked(values, np.array([0, 1, 2, 3]), met, errors, "SA").tolist() == [True, True, False, False]
    everything = np.ones(8, dtype=bool)
    # Beyond the middle nothing is known to belong to this end.
    assert ranked(values, np.array([7, 6, 5, 4, 3]), everything, errors, "LA").tolist() == [True] * 4 + [False]


def test_by_magnitude_the_other_end_must_be_known_to_be_smaller():
    values = np.array([-3.0, -1.0, 0.0, 1.0, 2.0, 4.0])
    met = np.ones(6, dtype=bool)
    wanted = np.array([5, 0])
    assert ranked(values, wanted, met, np.zeros(6), "LM").all()
    uncertain = np.array([0.0, 0.0, 0.0, 0.0, 1.5, 0.0])
    assert ranked(values, wanted, met, uncertain, "LM").tolist() == [True, False]
