"""Regression on random features: the risk peaks where they can just fit, and so does the complement of N_eff."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import nn

from landscape import Objective
from landscape.curvature import effective_dimension, hessian, spectral_density

N, Z = 400, 1e-5
COUNTS = (100, 200, 300, 360, 385, 400, 415, 430, 460, 600, 1000, 2000)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_risk_and_complement_peak_at_the_interpolation_threshold(seed: int) -> None:
    """Ridgeless, on digits with a fifth of the labels random; one output an example, so that min(n, m) is the rank."""
    images, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    x, truth = images[order] / 16, np.eye(10)[labels[order]]
    noisy = np.where((rng.random(N) < 0.2)[:, None], np.eye(10)[rng.integers(0, 10, N)], truth[:N])
    risk, complement, exact = [], [], []
    for count in COUNTS:
        features = np.maximum(x @ rng.standard_normal((64, count)) / 8, 0) * np.sqrt(2 / count)
        weights = np.linalg.lstsq(features[:N], noisy, rcond=1e-12)[0]
        risk.append(((features[N:] @ weights - truth[N:]) ** 2).sum(axis=1).mean())
        seen = features[:N]
        batch = (torch.tensor(seen), torch.zeros(N, 1, dtype=torch.float64))
        objective = Objective(nn.Linear(count, 1, bias=False).double(), nn.MSELoss(), [batch])
        found = effective_dimension(spectral_density(hessian(objective)), [Z], N)
        # The Hessian of the mean squared error is 2 FᵀF/n.
        spectrum = np.linalg.eigvalsh(2 * (seen.T @ seen if count < N else seen @ seen.T) / N)
        exact.append(min(N, count) - (spectrum / (spectrum + Z)).sum())
        complement.append(found.complement[0])
        assert abs(complement[-1] - exact[-1]) < 3 * found.stderr[0]
    assert 385 <= COUNTS[int(np.argmax(risk))] <= 430
    assert max(risk) > 20 * risk[-1]
    assert COUNTS[int(np.argmax(exact))] == N
    # Beyond the threshold the complement falls with the risk, while N_eff itself only rises.
    beyond = slice(COUNTS.index(415), None)
    assert spearmanr(complement[beyond], risk[beyond]).statistic > 0.6
    assert spearmanr(exact[beyond], risk[beyond]).statistic > 0.9
