"""Spectral mass on a grid: conserved, and nowhere that no node is near."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from landscape.analysis._density import cell_masses, step_edges

_EDGES = np.linspace(-2.0, 2.0, 41)


@settings(deadline=None, max_examples=50)
@given(
    nodes=arrays(np.float64, (3, 7), elements=st.floats(-1.5, 1.5)),
    weights=arrays(np.float64, (3, 7), elements=st.floats(1e-3, 1.0)),
)
def test_mass_is_conserved_and_local(nodes: np.ndarray, weights: np.ndarray) -> None:
    weights = weights / weights.sum(axis=1, keepdims=True)
    bandwidth = 0.2
    masses = cell_masses(nodes, weights, _EDGES, bandwidth)
    assert masses.sum() == pytest.approx(1.0, abs=1e-9)
    assert (masses >= 0).all()
    gap = np.maximum(_EDGES[:-1, None] - nodes.ravel(), nodes.ravel() - _EDGES[1:, None]).min(axis=1)
    assert (masses[gap > bandwidth] == 0).all()


def test_one_node_is_the_kernel() -> None:
    edges = np.array([-1.0, 0.0, 1.0, 2.0])
    # The integral of 3/4 (1 − t²) over [0, 1] is 1/2, over [1, 2] it is 0.
    assert cell_masses(np.array([[0.0]]), np.array([[1.0]]), edges, 1.0) == pytest.approx([0.5, 0.5, 0.0])


def test_padding_and_failed_probes_do_not_count() -> None:
    nodes = np.array([[0.05, 99.0], [np.nan, np.nan], [0.05, np.nan]])
    weights = np.array([[1.0, 0.0], [np.nan, np.nan], [1.0, 0.0]])
    assert cell_masses(nodes, weights, _EDGES, 0.01).sum() == pytest.approx(1.0)


def test_a_failed_row_is_nan() -> None:
    assert np.isnan(cell_masses(np.full((2, 3), np.nan), np.full((2, 3), np.nan), _EDGES, 0.1)).all()


def test_borders_between_steps() -> None:
    assert step_edges(np.array([0, 10, 30])).tolist() == [0.0, 5.0, 20.0, 30.0]
    assert step_edges(np.array([7])).tolist() == [6.5, 7.5]
