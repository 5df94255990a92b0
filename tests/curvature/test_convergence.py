from __future__ import annotations

import numpy as np

from landscape.curvature._convergence import errors, ranked, slack


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


def test_errors_fall_with_the_square_of_the_residual():
    values, residuals = np.array([0.0, 1.0, 3.0]), np.array([0.1, 0.1, 5.0])
    np.testing.assert_allclose(errors(values, residuals), [0.01, 0.01, 5.0])


def test_what_is_next_to_zero_is_measured_by_the_largest():
    values = np.array([-100.0, 1e-9, 10.0])
    np.testing.assert_allclose(slack(values, values, 0.01), [1.0, 0.01, 0.1])
