"""What an error of the weights is relative to: each weight, its filter, or its tensor."""

from __future__ import annotations

import torch

from landscape._layout import ParameterLayout

PER = ("weight", "filter", "tensor")


def radii(weights: torch.Tensor, layout: ParameterLayout, per: str) -> torch.Tensor:
    """Return the size c that each weight's noise or grid step is relative to.

    - "weight": |w|. Rescaling layers or neurons rescales c with w.
    - "filter": the root mean square of the weight's filter, a row of the first dimension of each tensor with two or
      more (an output channel); of the whole tensor where it has fewer.
    - "tensor": the root mean square of the tensor.

    Args:
        weights: The weights, shape (P,).
        layout: Names and shapes behind them.
        per: "weight", "filter" or "tensor".

    Returns:
        c, shape (P,); 0 for a weight, filter or tensor of zeros.

    Raises:
        ValueError: `per` is unknown.
    """
    if per not in PER:
        raise ValueError(f"per is {per!r}; it must be one of {', '.join(PER)}")
    if per == "weight":
        return weights.abs()
    sizes = torch.empty_like(weights)
    for size, weight in zip(layout.unflatten(sizes), layout.unflatten(weights), strict=True):
        if not weight.numel():
            continue
        rows = weight.reshape(len(weight), -1) if per == "filter" and weight.ndim > 1 else weight.reshape(1, -1)
        # In units of the largest, so that no square leaves the range of the type.
        largest = rows.abs().amax(dim=1, keepdim=True)
        unit = rows / torch.where(largest > 0, largest, 1.0)
        mean = unit.double().square().mean(dim=1, keepdim=True).sqrt().to(weights)
        size.copy_((largest * mean).expand_as(rows).reshape(weight.shape))
    return sizes
