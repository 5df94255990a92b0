"""What other packages get wrong, as tests that this one passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.curvature import hessian, pyhessian_spectrum, top_eigenpairs

INDEFINITE = np.concatenate([[-0.370, -0.2], np.linspace(-0.05, 0.05, 700), [0.1, 0.199]])


def plain_lanczos(matrix: torch.Tensor, steps: int) -> np.ndarray:
    """Ritz values of the three-term recurrence without reorthogonalisation."""
    vector = torch.randn(len(matrix), generator=torch.Generator().manual_seed(0)).to(matrix)
    vector, before, beta = vector / vector.norm(), torch.zeros_like(vector), 0.0
    diagonal, off_diagonal = [], []
    for _ in range(steps):
        product = matrix @ vector - beta * before
        diagonal.append(float(product @ vector))
        product = product - diagonal[-1] * vector
        beta = float(product.norm())
        off_diagonal.append(beta)
        before, vector = vector, product / beta
    off_diagonal.pop()
    tridiagonal = np.diag(diagonal) + np.diag(off_diagonal, 1) + np.diag(off_diagonal, -1)
    return np.linalg.eigvalsh(tridiagonal)[::-1]


def test_the_negative_end_of_an_indefinite_spectrum_is_found(with_eigenvalues):
    operator = with_eigenvalues(INDEFINITE)
    for which, expected in (("SA", -0.370), ("LM", -0.370), ("LA", 0.199)):
        for memory in ("default", "low"):
            pairs = top_eigenpairs(operator, 1, which, method="lanczos", memory=memory)
            assert pairs.converged
            np.testing.assert_allclose(pairs.values, [expected], rtol=1e-5)


def test_power_iteration_takes_the_wrong_sign_where_the_ends_balance():
    # Two ends of nearly equal size: power iteration hops between them and stops where two iterates agree.
    class Saddle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(60))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            curvature = torch.linspace(-0.05, 0.05, 60)
            curvature[0], curvature[-1] = -0.370, 0.369
            return (x * 0 + 0.5 * (curvature * self.w**2).sum()).mean()

    data = [(torch.zeros(4, 1), torch.zeros(4))]
    objective = Objective(Saddle(), lambda loss, _: loss, data)
    ours = top_eigenpairs(hessian(objective), 2, "BE", method="lanczos")
    np.testing.assert_allclose(ours.values, [0.369, -0.370], rtol=1e-5)
    theirs, _ = pyhessian_spectrum(objective, k=1)
    assert abs(theirs.values[0] + 0.370) > 0.05
    assert not theirs.converged


@pytest.mark.parametrize("steps", [60, 100])
def test_ghost_copies(with_eigenvalues, steps):
    exact = np.exp(-np.arange(600) / 4.0)
    operator = with_eigenvalues(exact, dtype=torch.float32)
    ghosts = plain_lanczos(operator.matrix, steps)
    assert (np.abs(ghosts / exact[0] - 1) < 1e-4).sum() > 1
    pairs = top_eigenpairs(operator, 10, max_matvecs=steps, method="lanczos")
    assert pairs.converged
    np.testing.assert_allclose(pairs.values, exact[:10], rtol=1e-4)
    overlaps = pairs.vectors.T @ pairs.vectors
    torch.testing.assert_close(overlaps, torch.eye(10), rtol=0, atol=1e-5)


def test_uneven_batches_and_a_small_loss(cases):
    x, y = cases.data(60)
    model = cases.mlp(width=24)
    reference = cases.mlp(width=24).double()
    matrix = cases.dense_hessian(reference, lambda: nn.functional.cross_entropy(reference(x.double()), y))
    exact = torch.linalg.eigvalsh(matrix).flip(0)[:10].numpy()
    for scale in (1.0, 1e-6):
        for parts in ([60], [50, 10], [1, 59]):
            loss = lambda scores, y, scale=scale: scale * nn.functional.cross_entropy(scores, y)  # noqa: E731
            objective = Objective(model, loss, list(zip(x.split(parts), y.split(parts), strict=True)))
            pairs = top_eigenpairs(hessian(objective), 10, max_matvecs=300)
            assert pairs.converged
            np.testing.assert_allclose(pairs.values, scale * exact, rtol=1e-4)
