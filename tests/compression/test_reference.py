"""The format of "uniform-tensor" written down a second time, in plain Python, from its description alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from landscape.compression import decode, encode


def kt(counts: Sequence[int]) -> float:
    """Krichevsky-Trofimov symbol by symbol: Σ −log2 (n_a + ½)/(n + K/2)."""
    bits, seen, gone = 0.0, [0] * len(counts), 0
    for symbol, count in enumerate(counts):
        for _ in range(count):
            bits -= math.log2((seen[symbol] + 0.5) / (gone + len(counts) / 2))
            seen[symbol] += 1
            gone += 1
    return bits if len(counts) > 1 else 0.0


def natural(value: int) -> int:
    """Number of binary digits in 6 bits, then those after the leading one."""
    return 6 + max(value.bit_length() - 1, 0)


def naturals(values: list[int]) -> float:
    """Last digits as they are, of the others their number in adaptive unary, then those after the leading one."""
    last = max(0, sorted(values)[len(values) // 2].bit_length() - 2)
    lengths = [(value >> last).bit_length() for value in values]
    bits = 1 + (6 if last else 0) + last * len(values) + sum(max(length - 1, 0) for length in lengths)
    for digit in range(max(lengths) + 1):
        reaching = [length for length in lengths if length >= digit]
        bits += kt([reaching.count(digit), len(reaching) - reaching.count(digit)])
    return bits


def folded(value: int) -> int:
    return 2 * value if value >= 0 else -2 * value - 1


def symbols(counts: list[int]) -> float:
    """One bit for the model, then the shorter one; the static model is preceded by the roots of the counts."""
    if len(counts) < 2:
        return 0.0
    roots = [max(round(math.sqrt(count / 3)), int(count > 0)) for count in counts]
    whole = sum(root * root for root in roots)
    body = -sum(count * math.log2(root * root / whole) for count, root in zip(counts, roots, strict=True) if count)
    padded = [0, 0, *roots]
    constant = [folded(c - b) for b, c in zip(padded[1:], padded[2:], strict=False)]
    straight = [folded(c - 2 * b + a) for a, b, c in zip(padded, padded[1:], padded[2:], strict=False)]
    sizes = [math.fsum(math.log2(d + 1) for d in differences) for differences in (constant, straight)]
    return 1 + min(kt(counts), 1 + naturals(straight if sizes[1] < sizes[0] else constant) + body)


def integers(values: list[int]) -> float:
    """Every shift is tried; the shortest body decides, its header is added."""
    found = []
    for shift in range(53):
        high = [value >> shift for value in values]
        least, size = min(high), max(high) - min(high) + 1
        if size <= 2**14:
            counts = np.bincount(np.array(high) - least, minlength=size).tolist()
            found.append((symbols(counts) + shift * len(values), 6 + natural(folded(least)) + natural(size - 1)))
        if size <= 2:
            break
    return sum(min(found))


def length(array: np.ndarray, knob: float) -> float:
    """Type and whether all is zero (2), the step without its sign (31), the integers."""
    step = float(np.float32(knob * math.sqrt(np.square(array.astype(np.float64)).mean())))
    grid = [round(float(element) / step) for element in array.ravel()]
    return 2.0 if not any(grid) else 33 + integers(grid)


@pytest.mark.parametrize("knob", [4.0, 0.7, 0.05, 1e-3])
@pytest.mark.parametrize("size", [1, 2, 40, 900])
def test_ideal_length_of_the_uniform_grid(size, knob):
    rng = np.random.default_rng(size)
    for array in (rng.normal(size=size), rng.laplace(size=size) ** 3, rng.normal(size=size) + 5):
        narrow = array.astype(np.float32)
        code = encode({"w": narrow}, knob)
        assert code.ideal_bits == pytest.approx(length(narrow, knob), abs=1e-6)
        assert -1e-6 <= code.bits - code.ideal_bits <= 0.02 * code.ideal_bits + 64
        step = np.float64(np.float32(knob * math.sqrt(np.square(narrow.astype(np.float64)).mean())))
        np.testing.assert_array_equal(decode(code)["w"], np.float32(np.rint(narrow / step) * step))
