"""Bounds are violated in at most δ of simulated draws, and in far more where a charge is left out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import binom

from landscape.bounds import (
    bits_per_token_bound,
    countable_bound,
    gaussian_kl,
    pac_bayes_bound,
    prior_split,
    sampled_risk_bound,
)

DRAWS, DELTA = 2000, 0.05
METHODS = ["hoeffding", "kl", "exact", "catoni"]


def violations(bounds, risk):
    return int(np.count_nonzero(np.asarray(bounds) < risk))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1, 7, 50, 200])
def test_one_network_by_enumeration(method, n):
    counts = np.arange(n + 1)
    bounds = countable_bound(error=counts / n, n=n, bits=0.0, delta=DELTA, method=method)
    # The probability of a violation is largest just above each value that the bound can take.
    risks = np.nextafter(bounds[bounds < 1], 1)
    probabilities = np.array([binom.pmf(counts, n, risk)[bounds < risk].sum() for risk in risks])
    assert (probabilities <= DELTA * (1 + 1e-9)).all()
    if method == "exact":  # and no smaller bound would do
        np.testing.assert_allclose(probabilities, DELTA, rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("n", "risk"), [(20, 0.5), (60, 0.06), (200, 0.3)])
def test_one_network(method, n, risk):
    errors = np.random.default_rng(0).binomial(n, risk, DRAWS) / n
    bounds = countable_bound(error=errors, n=n, bits=0.0, delta=DELTA, method=method)
    assert violations(bounds, risk) <= DELTA * DRAWS
    assert violations(errors, risk) > DRAWS / 4


@pytest.mark.parametrize("method", ["hoeffding", "kl", "exact"])
def test_best_of_many_by_training_error(method):
    n, networks, risk = 90, 512, 0.5  # random labels: no network is better than another
    best = np.random.default_rng(1).binomial(n, risk, (DRAWS, networks)).min(axis=1) / n
    charged = countable_bound(error=best, n=n, bits=0.0, delta=DELTA, method=method, choices=networks)
    coded = countable_bound(error=best, n=n, bits=np.log2(networks), delta=DELTA, method=method)
    free = countable_bound(error=best, n=n, bits=0.0, delta=DELTA, method=method)
    assert violations(charged, risk) <= DELTA * DRAWS
    assert violations(coded, risk) <= DELTA * DRAWS
    assert violations(free, risk) > DRAWS / 2


@pytest.mark.parametrize("method", METHODS)
def test_best_of_2_to_the_60(method):
    n, networks, risk = 1000, 2**60, 0.5
    # The least of K binomials is below k with probability 1 − (1 − F(k))^K.
    uniform = np.random.default_rng(2).uniform(size=DRAWS)
    best = binom.ppf(-np.expm1(np.log(uniform) / networks), n, risk) / n
    charged = countable_bound(error=best, n=n, bits=0.0, delta=DELTA, method=method, choices=networks)
    free = countable_bound(error=best, n=n, bits=0.0, delta=DELTA, method=method)
    assert violations(charged, risk) <= DELTA * DRAWS
    assert violations(free, risk) > 0.9 * DRAWS


def test_codes_of_unequal_length():
    # Network j has a code of j bits (the last two share a length): the one with the best bound is kept.
    n, risk = 50, 0.3
    bits = np.concatenate([np.arange(1.0, 15.0), [14.0]])
    errors = np.random.default_rng(3).binomial(n, risk, (DRAWS, len(bits))) / n
    kept = countable_bound(error=errors, n=n, bits=bits, delta=DELTA, method="exact").min(axis=1)
    free = countable_bound(error=errors, n=n, bits=0.0, delta=DELTA, method="exact").min(axis=1)
    assert violations(kept, risk) <= DELTA * DRAWS
    assert violations(free, risk) > DRAWS / 4


def memorised(seed, margin, n, cells):
    """Gibbs errors on n examples with random labels, and the KL, of N(margin·label, 1) at the cells that were seen."""
    rng = np.random.default_rng(seed)
    cell, label = rng.integers(cells, size=n), rng.choice([-1.0, 1.0], n)
    mean = np.zeros(cells)
    mean[cell] = margin * label
    return ndtr(-mean[cell] * label), gaussian_kl(mean, 1.0, 0.0, 1.0)


@pytest.mark.parametrize("method", ["mcallester", "kl", "quadratic", "catoni"])
def test_posteriors_that_learn_labels_by_heart(method):
    margins = np.random.default_rng(4).uniform(0, 4, 100)
    cases = [memorised(seed, margin, 200, 2000) for seed, margin in enumerate(margins)]
    bounds = [pac_bayes_bound(error=e.mean(), kl=kl, n=200, delta=DELTA, method=method) for e, kl in cases]
    assert violations(bounds, 0.5) <= DELTA * 100
    free = [pac_bayes_bound(error=e.mean(), kl=0.0, n=200, delta=DELTA, method=method) for e, _ in cases]
    assert violations(free, 0.5) > 50


def test_sampled_networks():
    # Half of the posterior's networks err on 1 %, half on 9 % of the same examples.
    rng, m = np.random.default_rng(5), 12
    means = rng.choice([0.01, 0.09], (DRAWS, m)).mean(axis=1)
    bounds = {mean: sampled_risk_bound(error=mean, draws=m, delta=DELTA) for mean in np.unique(means)}
    assert violations([bounds[mean] for mean in means], 0.05) <= DELTA * DRAWS
    # Single examples: errors of networks drawn anew for each.
    means = rng.binomial(m, 0.05, DRAWS) / m
    bounds = {mean: sampled_risk_bound(error=mean, draws=m, delta=DELTA) for mean in np.unique(means)}
    assert violations([bounds[mean] for mean in means], 0.05) <= DELTA * DRAWS
    assert violations(means, 0.05) > DRAWS / 4


def test_a_prior_that_has_seen_its_own_part():
    # The prior knows the labels of its part by heart, and nothing else can be known.
    n, split = 200, prior_split(200, share=0.6, seed=6)
    rng, kept, spoilt = np.random.default_rng(6), [], []
    for _ in range(200):
        wrong = rng.integers(0, 2, n)
        wrong[split.prior] = 0
        kept.append(split.countable_bound(wrong, bits=0.0, delta=DELTA))
        spoilt.append(countable_bound(error=wrong.mean(), n=n, bits=0.0, delta=DELTA))
    assert violations(kept, 0.5) <= DELTA * 200
    assert violations(spoilt, 0.5) == 200


@pytest.mark.parametrize("method", ["hoeffding", "kl"])
@pytest.mark.parametrize("m", [None, 1000])
def test_language_models(method, m):
    # Each document costs least or most with equal chances, whatever the model; the best of 2^60 on all n is kept.
    n, models, alpha, vocabulary = 2000, 2**60, 0.1, 50
    low, high = -np.log2(1 - alpha + alpha / vocabulary), np.log2(vocabulary / alpha)
    rng = np.random.default_rng(7)
    counts = binom.ppf(-np.expm1(np.log(rng.uniform(size=DRAWS)) / models), n, 0.5).astype(int)
    if m is not None:
        counts = rng.hypergeometric(counts, n - counts, m)

    def bounds(choices):
        by_count = {}
        for count in np.unique(counts):
            by_count[count] = bits_per_token_bound(
                loss=low + (high - low) * count / (m or n),
                vocabulary=vocabulary,
                alpha=alpha,
                n=n,
                bits=0.0,
                delta=DELTA,
                subsample=m,
                method=method,
                choices=choices,
            )
        return [by_count[count] for count in counts]

    risk = (low + high) / 2
    assert violations(bounds(models), risk) <= DELTA * DRAWS
    assert violations(bounds(1), risk) > DRAWS / 2
