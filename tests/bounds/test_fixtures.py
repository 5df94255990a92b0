"""Published and worked-out numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from landscape.bounds import countable_bound

# Lotfi et al. 2022, CIFAR-10: training error, bits, their bound (Catoni's) in per cent.
LOTFI = [
    (0.39018, 7816.86, 62.118),
    (0.38848, 4786.44, 57.063),
    (0.32160, 8258.01, 55.965),
    (0.29142, 11802.05, 57.500),
    (0.39710, 8284.02, 63.424),
]


@pytest.mark.parametrize(("error", "bits", "percent"), LOTFI)
def test_bounds_of_lotfi_et_al(error, bits, percent):
    bound = countable_bound(error=error, n=50_000, bits=bits, delta=0.05, method="catoni")
    assert round(100 * bound, 3) == percent


# The same networks by the inverse of kl: with two bits more, and with the bits of the table.
@pytest.mark.parametrize("row", range(5))
def test_kl_of_the_same_networks(row):
    error, bits, _ = LOTFI[row]
    two_more = [62.073, 57.004, 55.919, 57.460, 63.380][row]
    plain = [62.070, 57.000, 55.916, 57.458, 63.377][row]
    assert round(100 * countable_bound(error=error, n=50_000, bits=bits, delta=0.05, choices=4), 3) == two_more
    assert round(100 * countable_bound(error=error, n=50_000, bits=bits, delta=0.05), 3) == plain


@pytest.mark.parametrize(
    ("method", "value"), [("hoeffding", 0.1176), ("kl", 0.0481), ("exact", 0.0480), ("catoni", 0.0486)]
)
def test_the_row_of_sixty_thousand(method, value):
    assert round(countable_bound(error=0.01, n=60_000, bits=2000, delta=0.05, method=method), 4) == value


def test_closed_forms_without_errors():
    # kl(0‖p) = −ln(1 − p), and P(Bin(n, p) = 0) = (1 − p)^n: both give 1 − e^(−c/n).
    n, bits, delta = 500, 37.5, 1e-3
    expected = -math.expm1(-(bits * math.log(2) - math.log(delta)) / n)
    for method in ("kl", "exact"):
        assert countable_bound(error=0.0, n=n, bits=bits, delta=delta, method=method) == pytest.approx(
            expected, rel=1e-12
        )


@pytest.mark.parametrize("method", ["hoeffding", "kl", "exact", "catoni"])
def test_random_labels_stay_above_guessing(method):
    # The first m of n labels learned by heart cost m log2 10 bits; the others are guessed.
    n, classes = 1000, 10
    for learned in range(0, n + 1, 50):
        error = (n - learned) * (classes - 1) // classes / n
        bound = countable_bound(error=error, n=n, bits=learned * math.log2(classes), delta=0.05, method=method)
        assert bound >= 1 - 1 / classes


def test_arrays_agree_with_single_numbers():
    errors, bits = np.array([0.0, 0.1, 0.25])[:, None], np.array([0.0, 12.5, 300.0, 1e6])
    for method in ("hoeffding", "kl", "exact", "catoni"):
        table = countable_bound(error=errors, n=100, bits=bits, delta=0.01, method=method)
        assert table.shape == (3, 4)
        for (i, j), value in np.ndenumerate(table):
            one = countable_bound(error=float(errors[i, 0]), n=100, bits=float(bits[j]), delta=0.01, method=method)
            assert isinstance(one, float)
            assert one == value
