"""The bound of a hypothesis that was described in a number of bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from landscape.bounds._binomial import binomial_inverse
from landscape.bounds._catoni import catoni
from landscape.bounds._charges import complexity_nats
from landscape.bounds._inputs import (
    EPS,
    UP,
    FloatArray,
    require_delta,
    require_errors,
    require_examples,
    require_method,
    require_not_negative,
    scalar_or_array,
)
from landscape.bounds._kl import kl_inverse

METHODS = ("hoeffding", "kl", "exact", "catoni")


@overload
def countable_bound(
    *, error: float, n: int, bits: float, delta: float, method: str = "kl", choices: int | Sequence[int] = 1
) -> float: ...


@overload
def countable_bound(
    *,
    error: float | FloatArray,
    n: int,
    bits: float | FloatArray,
    delta: float,
    method: str = "kl",
    choices: int | Sequence[int] = 1,
) -> Any: ...


def countable_bound(
    *,
    error: float | FloatArray,
    n: int,
    bits: float | FloatArray,
    delta: float,
    method: str = "kl",
    choices: int | Sequence[int] = 1,
) -> Any:
    """Bound the error rate on new examples of a network that was described in `bits`.

    With D = b ln 2 + Σ ln K and c = D + ln 1/δ, in nats:

        hoeffding   R ≤ R̂ + √(c/2n)
        kl          R ≤ max{p: kl(R̂‖p) ≤ c/n}
        exact       R ≤ max{p: P(Bin(n, p) ≤ nR̂) ≥ e^−c}
        catoni      R ≤ min over γ of Catoni's bound, with a union over γ

    Each holds with probability 1 − δ over the n examples, for all hypotheses of a prefix-free code at once; so the
    network may have been trained on them. exact ≤ kl ≤ hoeffding, and kl ≤ catoni, always. The bound is of the
    network that the bits decode to, and the error must be that network's, on all n examples. They must be independent
    draws: augmented copies do not raise n.

    Computed in logarithms, and rounded up: a code of 1e7 bits, δ = 1e-300 and n = 1e9 neither underflow nor give a
    number below the exact one.

    Args:
        error: R̂, the error rate on the examples, 0 to 1; a float or an array. The mean of a loss with values in
            [0, 1] will do for all but "exact".
        n: Number of examples.
        bits: b, the length of a self-delimiting (prefix-free) code of everything that the network needs, buffers
            included; −log2 P(h) for a prior P, not necessarily whole. Nothing is added to it for saying where it ends:
            a message that does not say so itself comes with `prefix_free_bits(C)`. A float or an array.
        delta: δ, the probability of failure.
        method: "hoeffding", "kl", "exact" or "catoni".
        choices: K, how many alternatives were chosen from by looking at these examples, where the code does not say
            which it was; several numbers for several choices. Costs log2 K bits each (`charge_bits`).

    Returns:
        The bound, 1 at most (it then says nothing): a float, or an array where error or bits are.

    Raises:
        ValueError: The error lies outside [0, 1], or with "exact" is no multiple of 1/n; bits are negative or NaN;
            δ is not strictly between 0 and 1; n or a number of choices is less than 1 or not whole; no such method.

    Source: Langford 2005, JMLR 6 (Occam's razor bounds); McAllester 1999; Catoni 2007, arXiv:0712.0248; Lotfi et al.
    2022, arXiv:2211.13609.

    Where we differ: Lotfi et al. use "catoni". "kl" is tighter by the price of the union, and needs no parameter.
    """
    n, delta = require_examples(n), require_delta(delta)
    require_method(method, METHODS)
    errors, lengths = np.broadcast_arrays(require_errors(error), require_not_negative(bits, "bits"))
    complexity = np.asarray(complexity_nats(lengths, choices), dtype=np.float64)
    nats = (complexity - math.log(delta)) * UP
    if method == "hoeffding":
        bound = np.minimum((errors + np.sqrt(nats / n / 2) * UP) * UP, 1.0)
    elif method == "kl":
        bound = np.asarray(kl_inverse(errors, nats / n * UP))
    elif method == "exact":
        bound = _each(lambda k, c: binomial_inverse(int(k), n, c), _counts(errors, n), nats)
    else:
        bound = _each(lambda q, d: catoni(q, n, d, delta), errors, complexity)
    return scalar_or_array(bound)


def _counts(errors: FloatArray, n: int) -> FloatArray:
    """Return the numbers of errors behind the rates."""
    counts = np.rint(errors * n)
    apart = np.abs(errors * n - counts) > 1e-6 + 4 * EPS * n
    if apart.any():
        raise ValueError(
            f"error is {errors[apart].flat[0]!r}, not a multiple of 1/{n}; the exact method needs the number of wrong "
            'answers divided by n, in float64. The mean of another loss goes to method="kl"'
        )
    return counts


def _each(function: Any, first: FloatArray, second: FloatArray) -> FloatArray:
    """Apply a scalar function elementwise, once for equal arguments: error rates of few examples repeat."""
    pairs = np.stack([first.ravel(), second.ravel()], axis=1)
    distinct, places = np.unique(pairs, axis=0, return_inverse=True)
    values = np.array([function(float(a), float(b)) for a, b in distinct])
    return values[places.ravel()].reshape(first.shape)
