"""Read from an autograd graph before it is run: its memory, its kinks, and whether it can be differentiated again."""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.autograd.graph import GradientEdge, get_gradient_edge

from landscape._private import saved_tensors

Root = torch.Tensor | GradientEdge

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
# The names of the nodes that torch inserts where a function can be differentiated only once.
_STUBS = ("Error", "DelayedError", "NotImplemented")


def nodes(roots: Iterable[Root], stop: Iterable[Any] = ()) -> Iterator[Any]:
    """Walk every node below some tensors once.

    Args:
        roots: Tensors with a graph, or edges of one; tensors without are passed by.
        stop: Nodes that are not entered.

    Yields:
        The nodes.
    """
    seen = set(stop)
    stack = [root.node if isinstance(root, GradientEdge) else root.grad_fn for root in roots]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        stack.extend(following for following, _ in node.next_functions)


def is_cut_off(roots: Iterable[Root]) -> bool:
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


def batches_well(roots: Iterable[Root], size: int, device: str = "cpu") -> bool:
    """Whether many products at once are likely to be cheaper than one by one.

    They are cheaper where starting operations takes longer than running them. Measured on one CPU thread in float32:
    eight columns together were 2.9 times as fast where a node held 1 kB on average. They were equally fast at 9 kB,
    and slower at 17 kB and in every convolution.

    Args:
        roots: Tensors with the graph.
        size: Bytes that it holds.
        device: Type of the device.

    Returns:
        Whether they are.
    """
    roots = list(roots)
    names = [_plain(node) for node in nodes(roots)]
    largest = _LARGEST_NODE[device] if roots else 0
    return size <= largest * len(names) and not any(name.startswith(_BATCHED_SLOWLY) for name in names)


def as_outputs(tensors: Iterable[torch.Tensor]) -> list[Any]:
    """Return what stands for tensors as outputs of `torch.autograd.grad`, without their numbers.

    A gradient that is differentiated again serves by its graph alone, and its numbers are as many as the parameters.

    Args:
        tensors: Tensors with a graph.

    Returns:
        Edges of their graphs, or the tensors themselves where this release of torch does not take edges as outputs.
    """
    return [get_gradient_edge(tensor) for tensor in tensors] if _takes_edges() else list(tensors)


@functools.cache
def _takes_edges() -> bool:
    # In torch 2.6 an edge does not keep the graph behind a Python autograd function alive: differentiating it ends the
    # process. Later edges have a token that keeps it.
    if "ownership_token" not in GradientEdge._fields:
        return False
    x = torch.ones(1, requires_grad=True)
    try:
        torch.autograd.grad([get_gradient_edge(2 * x)], [x], [torch.ones(1)])
    except (TypeError, AttributeError, RuntimeError):
        return False
    return True


def saved_bytes(roots: Iterable[Root], ignored: Iterable[torch.Tensor] = ()) -> int:
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
