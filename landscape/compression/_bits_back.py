"""The length of weights that need only be right to within noise: bits back."""

from __future__ import annotations

import math

import torch

from landscape._layout import ParameterLayout
from landscape.compression._entropy import kt_bits


def bits_back(weights: torch.Tensor, deviations: torch.Tensor, layout: ParameterLayout) -> list[float]:
    """Compute the bits-back length of each tensor: what noisy weights cost, less the noise that the receiver gets back.

    KL(N(w, σ²) ‖ N(0, s²)) / ln 2 = Σ_i [log2(s/σ_i) + ((w_i² + σ_i²)/s² − 1) / (2 ln 2)], with one s a tensor, the
    best: s² = mean(w² + σ²), where the second term sums to zero. s is sent as a number of the weights' type, 32 or 64
    bits a tensor. Weights of deviation 0 are taken to be zero and to stay so: one bit says whether a tensor has both
    kinds, then one more which kind it has, or the Krichevsky-Trofimov estimator which weights are of which.

    Args:
        weights: The mean weights w, shape (P,).
        deviations: Standard deviations σ of the noise, shape (P,).
        layout: Names and shapes behind them.

    Returns:
        The length of each tensor in bits, in the layout's order.

    Source: Hinton & van Camp 1993, doi:10.1145/168304.168306; Honkela & Valpola 2004, doi:10.1109/TNN.2004.828762. The
    receiver gets the noise back only if it can find out w and σ from what it was sent, which is assumed there too: this
    is no stream that decodes.
    """
    lengths = []
    for weight, deviation in zip(layout.unflatten(weights), layout.unflatten(deviations), strict=True):
        free = deviation > 0
        count = int(free.sum())
        support = 1.0 + (kt_bits([count, weight.numel() - count]) if 0 < count < weight.numel() else 1.0)
        mean, noise = weight[free].double(), deviation[free].double()
        width = 8 * weights.element_size()
        lengths.append(support + (width + _divergence(mean, noise, weights.dtype) / math.log(2) if count else 0.0))
    return lengths


def _divergence(mean: torch.Tensor, noise: torch.Tensor, dtype: torch.dtype) -> float:
    largest = float(torch.maximum(mean.abs().max(), noise.max()))
    square = float(((mean / largest).square() + (noise / largest).square()).mean())
    # As the receiver knows it.
    width = float(torch.tensor(largest * math.sqrt(square), dtype=dtype).double())
    nats = torch.log(width / noise) + ((mean / width).square() + (noise / width).square() - 1) / 2
    return float(nats.sum())
