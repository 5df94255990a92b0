"""Intervals over examples hold what a large population gives, for draws of some hundred examples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape._sampling_error import Clusters
from landscape.curvature import condition_of_pairs, spectral_density, spectral_entropy, top_eigenpairs, trace
from landscape.curvature._dense import DenseOperator

FEATURES, POPULATION, DRAWS = 20, 40_000, 250
EVEN, UNEVEN, FEW = [50] * 8, [20, 80, 35, 65, 100, 30, 50, 20], [130, 140, 130]


@pytest.fixture(scope="module")
def population() -> tuple[torch.Tensor, torch.Tensor]:
    """Logistic regression: the Hessian of one example is p(1 − p) x xᵀ; correlated features of different sizes."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.linalg.qr(torch.randn(FEATURES, FEATURES, generator=generator, dtype=torch.float64))[0]
    scales = 0.75 ** torch.arange(FEATURES, dtype=torch.float64)
    x = (torch.randn(POPULATION, FEATURES, generator=generator, dtype=torch.float64) * scales) @ mix
    p = torch.sigmoid(2 * x @ torch.randn(FEATURES, generator=generator, dtype=torch.float64))
    return x, p * (1 - p)


def hessian_of(x: torch.Tensor, factors: torch.Tensor, sizes: list[int]) -> DenseOperator:
    parts = [(a.T * f) @ a for a, f in zip(x.split(sizes), factors.split(sizes), strict=True)]
    stacked = torch.stack(parts) / len(x)
    clusters = Clusters.of(np.array(sizes) / len(x), sizes, False)
    return DenseOperator(stacked.sum(0), stacked, clusters)


def measured(operator: DenseOperator, whole: bool = True) -> dict[str, tuple[float, float]]:
    pairs = top_eigenpairs(operator, 3)
    exactly, condition = trace(operator), condition_of_pairs(pairs, operator)
    numbers = {f"eigenvalue {i}": (pairs.values[i], pairs.stderr_sample[i]) for i in range(3)}
    numbers["trace"] = exactly.value, exactly.stderr_sample
    numbers["condition number"] = condition.value, condition.stderr_sample
    if not whole:
        return numbers
    density = spectral_density(operator, probes=2, steps=FEATURES)
    estimates = {
        "trace by probes": trace(operator, "hutchinson", max_matvecs=8),
        "second moment": density.moment(2),
        "n_eff": density.n_eff(0.05),
        "entropy": spectral_entropy(density),
    }
    return numbers | {name: (one.value, one.stderr_sample) for name, one in estimates.items()}


@pytest.mark.parametrize(
    ("sizes", "whole"),
    [
        pytest.param(EVEN, False, id="even"),
        pytest.param(FEW, False, id="few"),
        pytest.param(UNEVEN, True, id="uneven", marks=pytest.mark.slow),
    ],
)
def test_intervals_over_examples_cover(population, sizes, whole):
    x, factors = population
    exact = measured(hessian_of(x, factors, [POPULATION // 2] * 2), whole)
    rng = np.random.default_rng(0)
    hits = dict.fromkeys(exact, 0)
    for _ in range(DRAWS):
        chosen = torch.from_numpy(rng.integers(POPULATION, size=sum(sizes)))
        for name, (value, error) in measured(hessian_of(x[chosen], factors[chosen], sizes), whole).items():
            hits[name] += abs(value - exact[name][0]) <= 1.96 * error
    shares = {name: count / DRAWS for name, count in hits.items()}
    assert all(0.90 <= share <= 0.98 for share in shares.values()), shares


def test_the_largest_eigenvalue_of_few_examples_is_too_large(population):
    """The maximum over directions is convex, so its mean over draws lies above that of the population."""
    x, factors = population
    exact = measured(hessian_of(x, factors, [POPULATION // 2] * 2), False)["eigenvalue 0"][0]
    rng = np.random.default_rng(0)

    def mean(n: int) -> float:
        found = []
        for _ in range(100):
            chosen = torch.from_numpy(rng.integers(POPULATION, size=n))
            matrix = hessian_of(x[chosen], factors[chosen], [n // 2, n // 2]).matrix
            found.append(float(torch.linalg.eigvalsh(matrix)[-1]))
        return float(np.mean(found))

    few, many = mean(20), mean(1000)
    assert few > many > 0
    assert few > 1.03 * exact
    assert abs(many / exact - 1) < 0.02
