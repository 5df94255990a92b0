from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape import MeasurementError
from landscape.curvature import top_eigenpairs, trace
from landscape.curvature._calibration import fourth_power
from landscape.curvature._dense import DenseOperator
from landscape.curvature._operator import Diagonal
from landscape.curvature._streamed_trace import StreamedTrace

SIZE = 2000
EXACT = np.concatenate([np.geomspace(50, 0.5, 40), -np.geomspace(3, 0.1, 20), np.linspace(-0.02, 0.03, SIZE - 60)])


def operator(dtype=torch.float32) -> Diagonal:
    return Diagonal(torch.tensor(EXACT, dtype=dtype))


def vectors(count: int) -> int:
    return count * SIZE * 4


@pytest.mark.parametrize("count", [4, 10, 30])
@pytest.mark.parametrize("method", ["xtrace", "hutch++"])
def test_a_small_budget_gives_the_trace_within_its_error(count, method):
    found = trace(operator(), method, tol=0.05, memory_budget=vectors(count), max_matvecs=120)
    assert found.method == "hutch++"
    assert found.n_matvecs <= 120
    assert abs(found.value - EXACT.sum()) <= 4 * found.stderr
    assert found.converged == (found.stderr <= 0.05 * max(abs(found.value), 0.1 * np.linalg.norm(EXACT)))


def test_a_large_budget_changes_nothing():
    one, other = trace(operator(), tol=0.05), trace(operator(), tol=0.05, memory_budget="1GB")
    assert (one.value, one.method) == (other.value, other.method)


def test_known_pairs_are_the_subspace():
    pairs = top_eigenpairs(operator(), 8)
    found = trace(operator(), "hutch++", tol=0.05, known=[pairs], memory_budget=vectors(4))
    assert found.converged
    assert abs(found.value - EXACT.sum()) <= 4 * found.stderr
    without = trace(operator(), "hutch++", tol=0.05, memory_budget=vectors(4))
    assert found.n_matvecs < without.n_matvecs
    bare = top_eigenpairs(operator(), 8, vectors=False)
    assert trace(operator(), "hutch++", tol=0.05, known=[bare], memory_budget=vectors(4)).value == without.value


def test_directions_that_are_not_orthogonal_are_projected_out_exactly():
    torch.manual_seed(0)
    matrix = torch.randn(30, 30, dtype=torch.float64)
    dense = DenseOperator(matrix @ matrix.T)
    values, columns = torch.linalg.eigh(dense.matrix)
    skew = columns[:, -3:].clone()
    streamed = StreamedTrace(dense, 0, [(skew[:, :2], values[-3:-1].numpy()), (skew[:, 2:], values[-1:].numpy())])
    streamed._blocks[0] = skew[:, :2] @ torch.tensor([[1.0, 0.3], [0.0, 1.0]], dtype=torch.float64)
    streamed._gram = streamed._inner()
    rest = streamed._outside(torch.randn(30, dtype=torch.float64))
    torch.testing.assert_close(columns[:, -3:].T @ rest, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-13)


def test_intervals_cover():
    covered = []
    for seed in range(60):
        streamed = StreamedTrace(operator(torch.float64), seed)
        streamed.span(4)
        streamed.probe(6)
        estimate, square = streamed.estimate(fourth_power)
        assert square > 0
        covered.append(abs(estimate.value - EXACT.sum()) <= 1.96 * estimate.stderr)
    assert np.mean(covered) >= 0.88  # 95 % within 2.5 standard errors of 60 draws


def test_an_exhausted_space_is_no_failure():
    found = trace(Diagonal(torch.full((SIZE,), 2.0)), memory_budget=vectors(20))
    assert found.value == pytest.approx(2.0 * SIZE, rel=1e-5)


def test_too_small_a_budget_is_refused():
    with pytest.raises(MeasurementError, match="holds 3 vectors .* a trace and its probes take 4"):
        trace(operator(), memory_budget=vectors(3))
    assert trace(operator(), "hutchinson", memory_budget=vectors(3)).method == "hutchinson"
