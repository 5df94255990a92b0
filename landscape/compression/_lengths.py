"""Counts of symbols, and the ideal lengths of sequences in closed form, functions of the counts alone."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

PIECE = 2**14  # symbols that are converted at once: pieces stay in the cache
_SMALL = 64


def frequencies(symbols: npt.NDArray[np.integer], size: int, first: int = 0) -> npt.NDArray[np.int64]:
    """Count how often each of the symbols first, first + 1, ... occurs, piece by piece.

    Args:
        symbols: The symbols, in [first, first + size).
        size: The number of symbols in the alphabet.
        first: The first symbol.

    Returns:
        The counts, shape (size,).
    """
    # Of a small alphabet two symbols are counted at once, which takes half of the time.
    pairs = size <= _SMALL and len(symbols) > PIECE
    counts = np.zeros(size, dtype=np.int64)
    table = np.zeros(size * size if pairs else 0, dtype=np.int64)
    buffer = np.empty(min(len(symbols), PIECE), dtype=np.int64)
    for start in range(0, len(symbols), PIECE):
        piece = symbols[start : start + PIECE]
        piece = np.subtract(piece, first, out=buffer[: len(piece)])
        if pairs and len(piece) == PIECE:
            joined = piece[: PIECE // 2] * size
            joined += piece[PIECE // 2 :]
            table += np.bincount(joined, minlength=size * size)
        else:
            counts += np.bincount(piece, minlength=size)
    if pairs:
        counts += table.reshape(size, size).sum(axis=0) + table.reshape(size, size).sum(axis=1)
    return counts


def static_bits(counts: npt.ArrayLike, weights: npt.ArrayLike) -> float:
    """Length in bits of any sequence with these symbol counts, coded with probabilities in proportion to weights.

    n log2 W - Σ_a n_a log2 w_a, for n symbols and weights of sum W.

    Args:
        counts: How often each symbol of the alphabet occurs, shape (K,).
        weights: The weights, positive where a count is, shape (K,).

    Returns:
        The length, in bits.
    """
    counts, weights = np.asarray(counts, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    seen = counts > 0
    return float(counts.sum() * np.log2(weights.sum()) - counts[seen] @ np.log2(weights[seen]))


def kt_bits(counts: npt.ArrayLike) -> float:
    """Length in bits of any sequence with these symbol counts, coded by the Krichevsky-Trofimov estimator.

    log2 Γ(n + K/2) - log2 Γ(K/2) - Σ_a [log2 Γ(n_a + 1/2) - log2 Γ(1/2)], for n symbols of an alphabet of K.

    Args:
        counts: How often each symbol of the alphabet occurs, zeros included, shape (K,).

    Returns:
        The length, in bits; 0 for an alphabet of one symbol, and for no symbols.

    Source: Krichevsky and Trofimov 1981, "The performance of universal encoding".
    """
    counts = np.asarray(counts)
    size, seen = len(counts), counts[counts > 0]
    nats = gammaln(seen.sum() + size / 2) - gammaln(size / 2) - (gammaln(seen + 0.5) - gammaln(0.5)).sum()
    return float(nats / math.log(2)) if size > 1 else 0.0
