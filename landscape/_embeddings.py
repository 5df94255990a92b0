"""Evaluate embeddings as functions of their weights, and bags of them by operations with second derivatives.

Torch's own `max_norm` writes into the weights while it evaluates, and its gradient takes the lengths for constant. Here
rows that are too long are shortened on the way, so that the loss is a function of the weights and leaves them alone.
`scale_grad_by_freq`, which gives a gradient that is not the loss's, is off, as are sparse gradients.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812

_embedding, _fused_bag = F.embedding, F.embedding_bag


@contextlib.contextmanager
def functional_embeddings(fused: bool) -> Iterator[None]:
    """Replace `torch.nn.functional.embedding` and `embedding_bag` for a while.

    Args:
        fused: Whether bags are taken by torch's kernel, which is faster and has no second derivative.

    Yields:
        Nothing.
    """
    before = F.embedding, F.embedding_bag
    F.embedding, F.embedding_bag = embedding, (_functional_bag if fused else embedding_bag)
    try:
        yield
    finally:
        F.embedding, F.embedding_bag = before


def embedding(
    input: torch.Tensor,  # noqa: A002 (the name that callers use)
    weight: torch.Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> torch.Tensor:
    """Look up rows; arguments as in `torch.nn.functional.embedding`."""
    return _embedding(input, _shortened(weight, max_norm, norm_type), padding_idx)


def embedding_bag(
    input: torch.Tensor,  # noqa: A002 (the name that callers use)
    weight: torch.Tensor,
    offsets: torch.Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: torch.Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> torch.Tensor:
    """Reduce the rows of each bag; arguments as in `torch.nn.functional.embedding_bag`."""
    if input.ndim == 2:
        bag = torch.arange(len(input), device=input.device).repeat_interleave(input.shape[1])
        n_bags = len(input)
    else:
        assert offsets is not None
        ends = offsets[1:] if include_last_offset else torch.cat([offsets[1:], offsets.new_tensor([len(input)])])
        starts = offsets[:-1] if include_last_offset else offsets
        n_bags = len(starts)
        bag = torch.arange(n_bags, device=input.device).repeat_interleave(ends - starts)
    entries = input.reshape(-1)
    scale = None if per_sample_weights is None else per_sample_weights.reshape(-1)
    if padding_idx is not None:
        kept = (entries != padding_idx % len(weight)).nonzero().squeeze(1)
        entries, bag, scale = entries[kept], bag[kept], scale if scale is None else scale[kept]
    rows = _embedding(entries, _shortened(weight, max_norm, norm_type))
    if mode == "max":
        return _largest(rows, bag, n_bags)
    if scale is not None:
        rows = rows * scale[:, None]
    total = rows.new_zeros(n_bags, rows.shape[1]).index_add(0, bag, rows)
    if mode == "sum":
        return total
    return total / torch.bincount(bag, minlength=n_bags).clamp(min=1)[:, None]


def _functional_bag(
    input: torch.Tensor,  # noqa: A002 (the name that callers use)
    weight: torch.Tensor,
    offsets: torch.Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: torch.Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> torch.Tensor:
    return _fused_bag(
        input,
        _shortened(weight, max_norm, norm_type),
        offsets,
        mode=mode,
        per_sample_weights=per_sample_weights,
        include_last_offset=include_last_offset,
        padding_idx=padding_idx,
    )


def _shortened(weight: torch.Tensor, max_norm: float | None, norm_type: float) -> torch.Tensor:
    """Scale rows longer than `max_norm` down to it, as torch does (with 1e-7 added to the length)."""
    if max_norm is None:
        return weight
    with torch.no_grad():
        long = torch.linalg.vector_norm(weight, norm_type, dim=1, keepdim=True) > max_norm
    # Rows within the limit never meet the norm, whose derivative at 0 is not finite.
    length = torch.linalg.vector_norm(torch.where(long, weight, 1.0), norm_type, dim=1, keepdim=True)
    return torch.where(long, weight * (max_norm / (length + 1e-7)), weight)


def _largest(rows: torch.Tensor, bag: torch.Tensor, n_bags: int) -> torch.Tensor:
    """Take the largest entry of each bag and column, the first of equal ones, and 0 for an empty bag."""
    count, width = rows.shape
    places = bag[:, None].expand(count, width)
    with torch.no_grad():
        top = rows.new_full((n_bags, width), -torch.inf).scatter_reduce(0, places, rows, "amax")
        order = torch.arange(count, device=rows.device)[:, None].expand(count, width)
        candidates = torch.where(rows == top.gather(0, places), order, count)
        first = order.new_full((n_bags, width), count).scatter_reduce(0, places, candidates, "amin")
    return torch.cat([rows, rows.new_zeros(1, width)]).gather(0, first)
