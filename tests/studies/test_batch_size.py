"""Small batches end in flatter, shorter solutions than large ones, at an equal training loss (Keskar et al. 2017)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from landscape import Objective
from landscape.compression import bits
from landscape.curvature import hessian, trace
from landscape.sharpness import average_case

CROSS = nn.CrossEntropyLoss()


def measured(batch_size: int, seed: int, n: int = 700) -> dict[str, float]:
    """Train on digits with a tenth of the labels random, plain SGD of rate .1, to a cross-entropy of .02."""
    images, labels = load_digits(return_X_y=True)
    chosen = np.random.default_rng(0).permutation(len(labels))[:n]
    x, y = torch.tensor(images[chosen] / 16).float(), torch.tensor(labels[chosen])
    generator = torch.Generator().manual_seed(seed)
    y = torch.where(torch.rand(n, generator=generator) < 0.1, torch.randint(10, y.shape, generator=generator), y)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    while CROSS(model(x), y) > 0.02:
        for batch in torch.randperm(n, generator=generator).split(batch_size):
            optimizer.zero_grad()
            CROSS(model(x[batch]), y[batch]).backward()
            optimizer.step()
    objective = Objective(model, CROSS, [(x, y)])
    return {
        "loss": float(objective.loss()),
        "trace": trace(hessian(objective)).value,
        "average_case": average_case(objective, rho=0.1).value,
        "bits": float(bits(objective, tolerances=(0.05,)).bits[0]),
    }


# Measured with seeds 0 and 1, batches of 10 and of 100: trace 18 and 49, 14 and 45; adaptive average case .019 and
# .044, .013 and .026; bits 24,256 and 28,040, 20,912 and 25,240.
@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_large_batches_are_sharper_and_longer_at_equal_loss(seed: int) -> None:
    small, large = (measured(batch_size, seed) for batch_size in (10, 100))
    for each in (small, large):
        assert 0.01 < each["loss"] <= 0.02
    assert large["trace"] > 2 * small["trace"]
    assert large["average_case"] > 1.5 * small["average_case"]
    assert large["bits"] > small["bits"]
