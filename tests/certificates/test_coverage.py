"""Certificates of networks whose true error is known: broken in at most δ of the draws, unlike without their bits."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from landscape.certificates import best_of, certify, decoded, train_subspace
from landscape.certificates._certificate import claimable

POINTS = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=10)))
DELTA, N, NOISE = 0.05, 40, 0.5


def linear() -> nn.Module:
    return nn.Linear(10, 2, bias=False)


def true_error(network: nn.Module) -> float:
    """Return the error rate over all 2^10 inputs, each as likely; a label is that of the first coordinate, or noise."""
    with torch.no_grad():
        right = network(POINTS).argmax(1) == (POINTS[:, 0] > 0)
    return float(torch.where(right, NOISE / 2, 1 - NOISE / 2).double().mean())


def draw(seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    x = POINTS[torch.randint(0, len(POINTS), (N,), generator=generator)]
    noisy = torch.rand(N, generator=generator) < NOISE
    y = torch.where(noisy, torch.randint(0, 2, (N,), generator=generator), (x[:, 0] > 0).long())
    return [(x, y)]


def test_the_true_error_is_what_a_large_sample_gives():
    generator = torch.Generator().manual_seed(0)
    network = linear()
    x = POINTS[torch.randint(0, len(POINTS), (200_000,), generator=generator)]
    noisy = torch.rand(len(x), generator=generator) < NOISE
    y = torch.where(noisy, torch.randint(0, 2, (len(x),), generator=generator), (x[:, 0] > 0).long())
    with torch.no_grad():
        found = float((network(x).argmax(1) != y).double().mean())
    assert true_error(network) == pytest.approx(found, abs=0.005)


@pytest.mark.slow
def test_certificates_hold_and_do_not_without_their_bits() -> None:
    draws, broken, free, unpaid = 300, 0, 0, 0
    for seed in range(draws):
        batches = draw(seed)
        found = [
            certify(
                train_subspace(
                    linear, batches, dimension=None, start="zero", levels=levels, epochs=12, batch_size=10,
                    length_weight=0.0, delta=DELTA, progress=False
                ),
                batches,
                architecture=linear,
                delta=DELTA,
                method="exact",
                repeats_are_draws=True,  # 40 of 1,024 points: some come twice
            )
            for levels in (3, 7)
        ]  # fmt: skip
        best = best_of(found, "levels")
        risk = true_error(decoded(best, linear))
        broken += risk > best.bound
        parts = {"n": best.n, "delta": DELTA, "method": "exact"}
        free += risk > claimable(wrong=best.wrong, payload_bits=0, choices={}, **parts)
        # The same for a network that was trained for its error alone.
        least = min(found, key=lambda each: each.wrong)
        risk = true_error(decoded(least, linear))
        unpaid += risk > claimable(wrong=least.wrong, payload_bits=0, choices={}, **parts)
    assert broken <= DELTA * draws
    assert free > 4 * DELTA * draws
    assert unpaid > 4 * DELTA * draws
