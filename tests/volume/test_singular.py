"""Minima that are no points: λ̂ against exact integrals, and these against the theory of their limits."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.volume import learning_coefficient

POWERS = [(1, 1), (2, 1), (1, 2), (2, 2), (3, 1)]


def exact(a: int, b: int, nbeta: float) -> float:
    """nβ E[(xᵃ yᵇ)²] over p ∝ e^{−nβ (xᵃ yᵇ)² − (x² + y²)/2}, by the trapezoidal rule in ln x and ln y."""
    u = np.linspace(-60, 6, 1651)
    x, y = u[:, None], u[None, :]
    loss = np.exp(2 * a * x + 2 * b * y)
    log_density = x + y - nbeta * loss - (np.exp(2 * x) + np.exp(2 * y)) / 2
    density = np.exp(log_density - log_density.max())
    return float(nbeta * (density * loss).sum() / density.sum())


@pytest.mark.parametrize(("a", "b"), [(2, 1), (1, 2), (3, 1)])
def test_the_larger_power_alone_sets_the_limit(a, b):
    limit = min(1 / (2 * a), 1 / (2 * b))
    away = limit - np.array([exact(a, b, nbeta) for nbeta in (1e2, 1e4, 1e6, 1e8)])
    assert (away > 0).all()
    assert (np.diff(away) < 0).all()
    assert exact(a, b, 1e14) == pytest.approx(limit, rel=0.01)


@pytest.mark.parametrize("a", [1, 2])
def test_equal_powers_have_a_multiplicity_of_two(a):
    """λ(nβ) = λ − (m − 1)/ln(c nβ): x² y² is at .45 where nβ is 10⁸, and 1/(λ − λ(nβ)) grows by ln 10 a decade."""
    nbetas = np.array([1e6, 1e8, 1e10])
    away = 1 / (2 * a) - np.array([exact(a, a, nbeta) for nbeta in nbetas])
    np.testing.assert_allclose(np.diff(1 / away), np.log(100), rtol=0.01)


def test_at_moderate_temperatures_x2y2_shows_less_than_a_half():
    """As the slope of ln V over ln ε does, ½ − ½/(1 − ln √ε) in the unit square: .39 at ε = 10⁻³."""
    assert exact(1, 1, 1e3) == pytest.approx(0.5 - 0.5 / (1 - np.log(1e-3) / 2), rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("a", "b"), POWERS)
def test_chains_have_the_coefficient_of_the_integral(a, b):
    """At nβ = 10; the colder, the narrower the arms along the axes and the rarer a chain goes far into them."""

    class Monomial(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(2, dtype=torch.float64))

        def forward(self, x):
            return x * (self.w[0] ** a * self.w[1] ** b) ** 2

    data = (torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    objective = Objective(Monomial(), lambda out, target: (out - target).mean(), [data])
    found = learning_coefficient(objective, 4, 5000, 1.0, nbeta=10.0, method="mala", step_size=0.05, burn_in=300)
    assert found.flags == ()
    assert found.stderr < 0.05 * found.value
    assert abs(found.value - exact(a, b, 10.0)) < 2.5 * found.stderr
    assert found.value < min(1 / (2 * a), 1 / (2 * b))


def reduced_rank(inputs: int, hidden: int, outputs: int, rank: int) -> Fraction:
    """The learning coefficient of x ↦ BAx around a map of some rank, in four cases: Aoyagi & Watanabe 2005."""
    m, h, n, r = inputs, hidden, outputs, rank
    if n + r > m + h:
        return Fraction(h * m - h * r + n * r, 2)
    if m + r > n + h:
        return Fraction(h * n - h * r + m * r, 2)
    if h + r > m + n:
        return Fraction(m * n, 2)
    squares = (h + r) ** 2 + m**2 + n**2
    return Fraction(((h + r + m + n) % 2) - squares + 2 * (h + r) * (m + n) + 2 * m * n, 8)


def aoyagi(widths: list[int], rank: int) -> Fraction:
    """That of linear networks of any depth, of all layers' widths with input and output: Aoyagi 2025, arXiv:2501.12747.

    The ℓ + 1 narrowest layers count, as many as leave the mean Σ M/ℓ of their excess widths M at least as large as each
    of them and below those of the others.
    """
    excess = sorted(width - rank for width in widths)
    for kept in range(2, len(excess) + 1):
        chosen, links = excess[:kept], kept - 1
        mean = Fraction(sum(chosen), links)
        if chosen[-1] <= mean and all(other > mean for other in excess[kept:]):
            break
    else:
        raise AssertionError(f"no set of layers of {widths} with rank {rank} meets the theorem's conditions")
    over = sum(chosen) - (-(-sum(chosen) // links) - 1) * links
    pairs = sum(one * other for one, other in itertools.combinations(chosen, 2))
    outer = Fraction(rank * (widths[0] + widths[-1]) - rank**2, 2)
    return (
        outer
        + Fraction(over * (links - over), 4 * links)
        - Fraction(links * (links - 1), 4) * mean**2
        + Fraction(pairs, 2)
    )


def test_both_formulas_agree_on_all_small_networks():
    cases = [(m, h, n, r) for m, h, n in itertools.product(range(1, 9), repeat=3) for r in range(min(m, h, n) + 1)]
    assert len(cases) == 1808
    assert [case for case in cases if reduced_rank(*case) != aoyagi(list(case[:3]), case[3])] == []


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "draws"), [((3, 2, 4, 1), 4000), ((2, 5, 2, 0), 2500), ((2, 1, 5, 1), 4000)])
def test_deep_linear_networks_have_aoyagis_coefficient(deep_linear, shape, draws):
    found = learning_coefficient(deep_linear(*shape), 4, draws, 1.0, nbeta=1000.0, method="mala")
    # Of the second the flat directions alone, which have no part in λ, would need ten times as many draws.
    assert found.flags == (("not_mixed",) if shape == (2, 5, 2, 0) else ())
    assert abs(found.value - aoyagi(list(shape[:3]), shape[3])) < 1.96 * found.stderr
    assert found.stderr < 0.05 * found.value
