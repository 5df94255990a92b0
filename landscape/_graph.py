"""What an autograd graph tells before it is run: its memory, its kinks, and whether it ends early."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from landscape._private import saved_tensors

# Backward nodes of functions whose first derivative jumps, by the start of their names.
_KINKED = (
    "Abs",
    "AdaptiveMaxPool",
    "AminAmax",
    "Amax",
    "Amin",
    "Celu",
    "Clamp",
    "FractionalMaxPool",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyRelu",
    "Max",
    "Min",
    "NormBackward",
    "PreluKernel",
    "Relu",
    "Rrelu",
    "Softshrink",
    "Threshold",
)
_BATCHED_SLOWLY = ("Convolution", "MkldnnConvolution", "CudnnConvolution", "CudnnRnn", "MkldnnRnn")
# Mean bytes a node up to which columns go together; an accelerator starts an operation in the time it reads megabytes.
_LARGEST_NODE: dict[str, int] = collections.defaultdict(lambda: 4 * 2**20, cpu=8 * 2**10)
_LARGE_ROOT = 2**20
# What torch puts where a function allows one differentiation only.
_STUBS = ("Error", "DelayedError", "NotImplemented")


def nodes(roots: Iterable[torch.Tensor], stop: Iterable[Any] = ()) -> Iterator[Any]:
    """Walk every node below some tensors once.

    Args:
        roots: Tensors with a graph; those without are passed by.
        stop: Nodes that are not entered.

    Yields:
        The nodes.
    """
    seen = set(stop)
    stack = [tensor.grad_fn for tensor in roots]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        stack.extend(following for following, _ in node.next_functions)


def is_cut_off(roots: Iterable[torch.Tensor]) -> bool:
    """Whether a graph holds the stub of a missing second derivative.

    Torch raises when such a stub is run. But it leads nowhere, so a product with unused parameters allowed passes it by
    and leaves its curvature out.

    Returns:
        Whether there is one.
    """
    return any(_plain(node) in _STUBS for node in nodes(roots))


def reaches(roots: Iterable[torch.Tensor], leaves: Iterable[torch.Tensor], stop: Iterable[Any] = ()) -> bool:
    """Whether a graph leads to any of some leaf tensors without passing the nodes in `stop`."""
    wanted = {id(leaf) for leaf in leaves}
    return any(id(getattr(node, "variable", None)) in wanted for node in nodes(roots, stop))


def kinks(roots: Iterable[torch.Tensor]) -> list[str]:
    """Name the operations of a first-order graph whose derivative jumps, such as ReLU and max pooling."""
    names = {_plain(node).partition("Backward")[0] for node in nodes(roots)}
    return sorted(name for name in names if name.startswith(_KINKED))


def batches_well(roots: Iterable[torch.Tensor], size: int) -> bool:
    """Whether many products at once are likely to be cheaper than one by one.

    They are where the time goes into starting operations, not into running them: eight columns together were 2.9 times
    as fast where a node held 1 kB on average, as fast at 9 kB, and slower at 17 kB and in every convolution (float32,
    one CPU thread).

    Args:
        roots: Tensors with the graph.
        size: Bytes that it holds.

    Returns:
        Whether they are.
    """
    roots = list(roots)
    names = [_plain(node) for node in nodes(roots)]
    largest = _LARGEST_NODE[roots[0].device.type] if roots else 0
    return size <= largest * len(names) and not any(name.startswith(_BATCHED_SLOWLY) for name in names)


def drop_values(roots: Sequence[torch.Tensor], kept: Iterable[torch.Tensor]) -> None:
    """Give back the memory of large tensors whose graph alone is needed.

    A gradient that is differentiated again serves by its graph; its numbers are as many as the parameters. Numbers that
    the graph itself saved stay.

    Args:
        roots: Tensors with a graph. Those above a megabyte are empty afterwards, though they keep their shapes.
        kept: Tensors that keep their numbers.
    """
    large = [root for root in roots if root.layout == torch.strided and root.untyped_storage().nbytes() > _LARGE_ROOT]
    if not large or large[0].device.type not in ("cpu", "cuda"):
        return
    saved = {tensor.untyped_storage().data_ptr() for node in nodes(roots) for tensor in saved_tensors(node)}
    saved |= {tensor.untyped_storage().data_ptr() for tensor in kept}
    for root in large:
        storage = root.untyped_storage()
        if storage.nbytes() and storage.data_ptr() not in saved:
            storage.resize_(0)


def saved_bytes(roots: Iterable[torch.Tensor], ignored: Iterable[torch.Tensor] = ()) -> int:
    """Count the memory that a graph keeps alive.

    Args:
        roots: Tensors with the graph.
        ignored: Tensors that are held anyway, such as the parameters.

    Returns:
        Bytes in the storages of all saved tensors, each storage once.
    """
    storages: dict[int, int] = {}
    for node in nodes(roots):
        for saved in saved_tensors(node):
            storage = saved.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    for tensor in ignored:
        storages.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(storages.values())


def _plain(node: Any) -> str:
    return node.name().rpartition("::")[2]
