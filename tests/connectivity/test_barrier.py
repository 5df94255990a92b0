from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscape.connectivity import PathProfile, barrier

NAN = float("nan")
INF = float("inf")


def path(loss, t=None, error=None) -> PathProfile:
    loss = np.array(loss, dtype=float)
    t = np.linspace(0, 1, len(loss)) if t is None else np.array(t)
    return PathProfile(t, loss, np.full(len(loss), NAN) if error is None else np.array(error))


def heights(profile, which="loss"):
    return [barrier(profile, name, which) for name in ("interpolated", "mean_of_ends", "worse_end")]


def test_the_three_definitions_by_hand():
    assert heights(path([1.0, 4.0, 2.0, 3.0, 3.0])) == [2.5, 2.0, 1.0]
    # A straight rise from one end to the other is no barrier by two of the definitions.
    assert heights(path([1.0, 1.5, 2.0, 2.5, 3.0])) == [0.0, 1.0, 0.0]
    assert heights(path([2.0, 1.0, 2.0])) == [0.0, 0.0, 0.0]


def test_the_error_has_its_own_barrier():
    profile = path([1, 9, 1], error=[0.25, 0.5, 0.75])
    assert heights(profile, "error") == [0.0, 0.25, 0.0]


def test_an_uneven_grid_in_any_order():
    assert heights(path([3.0, 4.0, 1.0], t=[1.0, 0.25, 0.0])) == [2.5, 2.0, 1.0]


@given(st.lists(st.floats(0, 100), min_size=2, max_size=20))
def test_never_negative_and_ordered(losses):
    interpolated, mean_of_ends, worse_end = heights(path(losses))
    assert worse_end >= 0
    assert interpolated >= worse_end - 1e-12
    assert mean_of_ends >= max(worse_end, abs(losses[0] - losses[-1]) / 2) - 1e-12


@pytest.mark.parametrize("losses", [[1, NAN, 1], [NAN, 2, 1], [1, 2, NAN], [INF, 2, 1]])
def test_nan_stays_nan(losses):
    assert np.isnan(barrier(path(losses)))
    assert np.isnan(barrier(path([0, 0, 0], error=losses), "mean_of_ends", "error"))


def test_an_infinite_loss_between_finite_ends_is_an_infinite_barrier():
    assert heights(path([1, INF, 1])) == [INF, INF, INF]


@pytest.mark.parametrize("t", [[0.0, 0.5, 0.9], [0.1, 0.5, 1.0]])
def test_a_grid_without_an_end_is_refused(t):
    with pytest.raises(ValueError, match="both ends"):
        barrier(path([1, 2, 1], t=t))


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="interpolated, mean_of_ends, worse_end"):
        barrier(path([1, 1]), "max")
    with pytest.raises(ValueError, match="'loss' or 'error'"):
        barrier(path([1, 1]), which="accuracy")


def test_a_path_is_evaluated_first():
    with pytest.raises(TypeError, match=r"give curve\.evaluate\(\)"):
        barrier(object())
