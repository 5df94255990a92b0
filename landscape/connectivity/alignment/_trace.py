"""Find the permutation symmetries of a network by walking through its graph."""

from __future__ import annotations

import builtins
import dataclasses
import math
import operator
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import fx, nn

from landscape._errors import MeasurementError
from landscape.connectivity.alignment import _units as units
from landscape.connectivity.alignment._axes import TensorAxes
from landscape.connectivity.alignment._functions import FUNCTIONS, METHODS
from landscape.connectivity.alignment._graph import shapes_of, trace
from landscape.connectivity.alignment._modules import RULES, layer_norm, linear
from landscape.connectivity.alignment._spec import Part, PermutationSpec
from landscape.connectivity.alignment._values import NOTHING_MOVES, Value, pin_all, values_in
from landscape.isolation import isolated

_CONSUMERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclasses.dataclass(frozen=True)
class Probe:
    """A tensor in the graph that shows units at work.

    Attributes:
        node: Name of the graph's node.
        axis: The units' axis, from the back if negative.
        parts: What lies along it, for a tensor of one size there.
        attention: Name of the attention layer whose queries, keys and values are meant, or None.
    """

    node: str
    axis: int
    parts: tuple[Part, ...]
    attention: str | None = None


@dataclasses.dataclass(frozen=True)
class Traced:
    """What tracing a network gave.

    Attributes:
        spec: Its symmetries.
        graph: The network as a graph.
        probes: Where to see units at work.
    """

    spec: PermutationSpec
    graph: fx.GraphModule
    probes: tuple[Probe, ...]


def trace_permutations(model: nn.Module, batches: Iterable[Any] | None = None) -> PermutationSpec:
    """Find the permutation symmetries of a network by tracing it with torch.fx.

    Every linear, convolutional, recurrent, embedding and attention layer makes new units (neurons, channels, states,
    heads with their dimensions). They pass through what treats all alike (activations, normalisations, pooling,
    flattening), are tied where they meet others entry by entry (residual additions), and stay where they meet the
    input, the output, a buffer that is no running statistic, or an operation that is not known. So what is found is
    always a symmetry, but not always all of them.

    Args:
        model: The network. It is not changed.
        batches: Where given, the network is run on the first batch, and the shapes seen there tell the number of axes
            where code alone does not (a mean over axis 1, a view).

    Returns:
        The symmetries, fitted to the model; `.pinned` tells which units may not move, and why.

    Raises:
        MeasurementError: The model cannot be traced, or has none.

    Source: Ainsworth et al. 2023, arXiv:2209.04836, who write them by hand for each architecture.

    Example:
        >>> from torch import nn
        >>> trace_permutations(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)))
        PermutationSpec(3 tensors, groups ('0',))
    """  # noqa: DOC502 - the functions behind raise them
    return trace_network(model, batches).spec


def trace_network(model: nn.Module, batches: Iterable[Any] | None = None) -> Traced:
    """Trace a network, keeping what `trace_permutations` leaves out; arguments as there.

    Returns:
        Symmetries, graph and probes.

    Raises:
        MeasurementError: The model cannot be traced, or has no symmetry that was found.
    """
    graph = trace(model)
    shapes: dict[fx.Node, tuple[int, ...]] = {}
    if batches is not None:
        with isolated(model):
            for part in model.modules():
                part.training = False
            shapes = shapes_of(graph, next(iter(batches)))
    walk = _Walk(model, graph, shapes)
    for node in graph.graph.nodes:
        walk.step(node)
    spec = walk.axes.spec()
    if not spec.axes:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(spec.pinned.items())[:5])
        raise MeasurementError(
            f"no permutation symmetry was found in {type(model).__name__} ({reasons or 'it has no hidden units'}). "
            "Give batches=, whose shapes tell more, or describe its symmetries by hand with spec=PermutationSpec({...})"
        )
    return Traced(spec.fitted(model), graph, tuple(walk.probes()))


class _Walk:
    """Walks through a graph in the order of computation, with a value for each node."""

    def __init__(self, model: nn.Module, graph: fx.GraphModule, shapes: dict[fx.Node, tuple[int, ...]]):
        self.axes = TensorAxes(model)
        self._modules = dict(graph.named_modules())
        self._graph = graph
        self._shapes = shapes
        self._values: dict[fx.Node, Any] = {}
        self._seen: list[tuple[fx.Node, Value, str | None]] = []

    def step(self, node: fx.Node) -> None:
        """Take one operation."""
        args = fx.node.map_arg(node.args, self._values.__getitem__)
        kwargs = fx.node.map_arg(node.kwargs, self._values.__getitem__)
        value = getattr(self, f"_{node.op}")(node, args, kwargs)
        if isinstance(value, Value) and node in self._shapes:
            value = dataclasses.replace(value, rank=len(self._shapes[node]))
        self._values[node] = value

    def probes(self) -> list[Probe]:
        """Return where units can be seen."""
        found = {}
        for node, value, attention in self._seen:
            if value.layout is not None:
                probe = Probe(node.name, value.axis, self.axes.parts(value.layout), attention)
                if any(part.group for part in probe.parts):
                    found[node, attention] = probe
        return list(found.values())

    def _placeholder(self, node: fx.Node, args: Any, kwargs: Any) -> Value:
        return NOTHING_MOVES

    def _get_attr(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        tensor: Any = self._graph
        for name in str(node.target).split("."):
            tensor = getattr(tensor, name)
        if not isinstance(tensor, torch.Tensor):
            return NOTHING_MOVES
        if tensor.numel() == 1:
            return None  # a number
        if not isinstance(tensor, nn.Parameter) or not self.axes.knows(tensor):
            return Value(rank=tensor.ndim)
        wide = [axis for axis, size in enumerate(tensor.shape) if size > 1]
        axis = wide[0] if len(wide) == 1 else tensor.ndim - 1
        name = self.axes.name(tensor)
        layout = self.axes.bind(tensor, axis, units.fresh(tensor.shape[axis], name))
        return Value(layout, axis - tensor.ndim, tensor.ndim)

    def _call_module(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        name = str(node.target)
        module = self._modules[name]
        # Weight and spectral normalisation put a computed tensor in the parameter's place.
        held = (getattr(module, "weight", None), getattr(module, "bias", None))
        if not all(self.axes.knows(tensor) for tensor in held if isinstance(tensor, torch.Tensor)):
            return self._unknown(f"{name} computes its weights", module, args, kwargs)
        for kinds, rule in RULES:
            if isinstance(module, kinds) and not getattr(module, "parametrizations", None):
                self._look(node, module, args)
                value = rule(self.axes, name, module, (args, kwargs))
                self._look_inside(node, module)
                return value
        if isinstance(module, nn.Flatten):
            return FUNCTIONS[torch.flatten](name, (*args, module.start_dim, module.end_dim), {})
        return self._unknown(f"{type(module).__name__} ({name}) is not known", module, args, kwargs)

    def _unknown(self, why: str, module: nn.Module, args: Any, kwargs: Any) -> Value:
        for tensor in (*module.parameters(), *module.buffers()):
            if self.axes.knows(tensor):
                self.axes.pin(tensor, why)
        return pin_all([args, kwargs], why)

    def _call_function(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        function, name = node.target, getattr(node.target, "__name__", str(node.target))
        if not any(True for _ in values_in([args, kwargs])):
            # Sizes and numbers stay numbers; a tensor that was made from numbers is one that cannot move.
            home = getattr(function, "__module__", None)
            return None if home in (operator.__name__, "_operator", builtins.__name__, math.__name__) else NOTHING_MOVES
        weights = [self._parameter(argument) for argument in (*node.args, *node.kwargs.values())]
        if function is F.linear and len(weights) > 1 and weights[1] is not None and isinstance(args[0], Value):
            bias = weights[2] if len(weights) > 2 else None
            self._seen.append((node.all_input_nodes[0], args[0], None))
            return linear(self.axes, name, weights[1], bias, args[0])
        if function is F.layer_norm and isinstance(args[0], Value):
            return layer_norm(self.axes, name, [w for w in weights[1:] if w is not None], 1, args[0])
        rule = FUNCTIONS.get(function)
        if rule is None:
            return self._pin_used(node, args, kwargs, f"{name} is not known")
        return rule(name, args, kwargs)

    def _call_method(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        if args[0] is None:
            return None
        rule = METHODS.get(str(node.target))
        if rule is None:
            return self._pin_used(node, args, kwargs, f"{node.target} is not known")
        return rule(str(node.target), args, kwargs)

    def _output(self, node: fx.Node, args: Any, kwargs: Any) -> Value:
        return pin_all([args, kwargs], "the order of outputs")

    def _pin_used(self, node: fx.Node, args: Any, kwargs: Any, why: str) -> Value:
        for argument in node.all_input_nodes:
            tensor = self._parameter(argument)
            if tensor is not None:
                self.axes.pin(tensor, why)
        return pin_all([args, kwargs], why)

    def _parameter(self, argument: Any) -> torch.Tensor | None:
        if not isinstance(argument, fx.Node) or argument.op != "get_attr":
            return None
        tensor: Any = self._graph
        for name in str(argument.target).split("."):
            tensor = getattr(tensor, name)
        return tensor if isinstance(tensor, torch.Tensor) and self.axes.knows(tensor) else None

    def _look(self, node: fx.Node, module: nn.Module, args: Any) -> None:
        """Remember what enters a layer."""
        entering = node.all_input_nodes[0] if node.all_input_nodes else None
        value = args[0] if args else None
        if isinstance(module, _CONSUMERS) and entering is not None and isinstance(value, Value):
            if isinstance(module, nn.Linear) and value.flattened:
                value = Value(value.laid_out(module.in_features), -1, value.rank)
            self._seen.append((entering, value, None))

    def _look_inside(self, node: fx.Node, module: nn.Module) -> None:
        """Remember an attention layer, whose queries, keys and values come one after another."""
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            rows = self.axes.bound(module.in_proj_weight, 0)
            self._seen.append((node.all_input_nodes[0], Value(rows, -1), str(node.target)))
