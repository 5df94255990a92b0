"""The bound of a language model's bits per token, also from a subsample of the documents."""

from __future__ import annotations

from collections.abc import Sequence

from landscape.bounds._bounded import bounded_loss_bound
from landscape.bounds._inputs import require_delta, require_examples, require_method
from landscape.bounds._smoothing import smoothed_range

METHODS = ("hoeffding", "kl")


def bits_per_token_bound(
    *,
    loss: float,
    vocabulary: int,
    alpha: float,
    n: int,
    bits: float,
    delta: float,
    subsample: int | None = None,
    subsample_share: float | None = None,
    method: str = "kl",
    choices: int | Sequence[int] = 1,
) -> float:
    """Bound the bits per token, under smoothed predictions, that a compressed language model needs for new documents.

    With Δ = log2(1 + (1 − α)V/α), D = b ln 2 + Σ ln K, and s the share of δ that the documents keep:

        hoeffding   R ≤ L + Δ √((D + ln 1/(sδ))/2n) + Δ √(ln 1/((1 − s)δ)/2m)
        kl          two inversions of kl on the scale [0, 1]: first L of m documents to n, then n to all

    The second root, and the first inversion, stand for evaluating m documents instead of all n; s is 1 without.
    The m documents are drawn uniformly, and after the model is fixed. Documents, not tokens, are the examples: the
    tokens of one are not independent. The model is the compressed one, and predicts with the same α.

    Args:
        loss: L, the mean over documents of their mean bits a token (`smoothed_bits`): each document counts once.
        vocabulary: V, the number of tokens that can come.
        alpha: α, the weight of the uniform distribution.
        n: Number of training documents.
        bits: b, length of a self-delimiting code of the model.
        delta: δ, the probability of failure, that of the subsampling included.
        subsample: m, how many of the n documents the loss is a mean over; None for all of them.
        subsample_share: s; m/(n + m) by default, as in the paper: most of δ goes to the smaller sample.
        method: "hoeffding", as in the paper, or "kl", which is tighter.
        choices: How many alternatives were chosen from by looking at the documents, α's among them.

    Returns:
        The bound in bits a token, log2(V/α) at most. Guessing takes log2 V: a bound above that says nothing.

    Raises:
        ValueError: The loss lies outside what smoothed predictions can need, the subsample is larger than the whole,
            or another argument is out of range.

    Source: Lotfi et al. 2024, arXiv:2312.17173.

    Where we differ: the kl form is ours. That it holds for documents drawn with or without replacement is Hoeffding's
    (1963) comparison of the two.
    """
    low, high = smoothed_range(vocabulary, alpha)
    n, delta = require_examples(n), require_delta(delta)
    require_method(method, METHODS)
    if not low <= loss <= high:
        raise ValueError(
            f"the loss is {loss} bits a token; smoothed predictions need between {low:.6g} and {high:.6g}. Take the "
            "mean of smoothed_bits with the same vocabulary and alpha"
        )
    share = 1.0
    if subsample is not None:
        subsample = require_examples(subsample, "subsample")
        if subsample > n:
            raise ValueError(f"the subsample has {subsample} documents, more than the {n} that it is of")
        share = (
            subsample / (n + subsample)
            if subsample_share is None
            else require_delta(subsample_share, "subsample_share")
        )
        loss = bounded_loss_bound(
            loss=loss, low=low, high=high, n=subsample, bits=0.0, delta=delta * (1 - share), method=method
        )
    elif subsample_share is not None:
        raise ValueError("subsample_share is given without subsample; say how many documents the loss is a mean over")
    return bounded_loss_bound(
        loss=loss, low=low, high=high, n=n, bits=bits, delta=delta * share, method=method, choices=choices
    )
