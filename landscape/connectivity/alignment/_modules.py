"""How torch's layers carry units from input to output, and which axes of their tensors go along."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules import activation, padding, pooling

from landscape._private import BatchNorm, ConvTranspose, Dropout, InstanceNorm
from landscape.connectivity.alignment import _units as units
from landscape.connectivity.alignment._axes import TensorAxes
from landscape.connectivity.alignment._units import Layout, Stretch, Units
from landscape.connectivity.alignment._values import NOTHING_MOVES, Hidden, Value, pin_all

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def linear(axes: TensorAxes, name: str, weight: torch.Tensor, bias: torch.Tensor | None, x: Value) -> Value:
    """Rows of the weight are new units, columns are those of the input."""
    if x.layout is not None and x.flattened is None and x.from_back() not in (-1, None):
        # Mixes along another axis than the units': they pass through, and the weight stays.
        for tensor in (weight, bias):
            if tensor is not None:
                axes.pin(tensor, f"{name} mixes along another axis")
        return x
    if x.layout is not None and x.flattened is None and x.from_back() is None:
        x = pin_all(x, f"the number of axes before {name} is not known; give batches")
    axes.bind(weight, 1, x.laid_out(weight.shape[1]), f"{name} takes what cannot move")
    rows = axes.bind(weight, 0, units.fresh(weight.shape[0], name))
    if bias is not None:
        axes.bind(bias, 0, rows)
    return Value(rows, -1, x.rank)


def _linear(axes: TensorAxes, name: str, module: nn.Linear, inputs: Inputs) -> Value:
    return linear(axes, name, module.weight, module.bias, _first(inputs))


def _conv(axes: TensorAxes, name: str, module: Any, inputs: Inputs) -> Value:
    x = _first(inputs)
    rank = module.weight.ndim
    turned = isinstance(module, ConvTranspose)
    if x.layout is not None and x.from_front() != 1:
        x = pin_all(x, f"{name} does not take its units along axis 1")
    if module.groups == 1:
        axes.bind(module.weight, 0 if turned else 1, x.laid_out(module.in_channels), f"{name} takes what cannot move")
        rows: Layout | None = axes.bind(module.weight, 1 if turned else 0, units.fresh(module.out_channels, name))
    elif module.groups == module.in_channels and not turned:
        # Depthwise: every channel for itself, with one or several outputs.
        layout = x.laid_out(module.in_channels)
        many = None if layout is None else units.repeated(layout, module.out_channels // module.in_channels)
        rows = axes.bind(module.weight, 0, many, f"{name} takes what cannot move")
    else:
        pin_all(x, f"{name} is a grouped convolution")
        axes.pin(module.weight, f"{name} is a grouped convolution")
        rows = None
    if module.bias is not None:
        rows = axes.bind(module.bias, 0, rows, f"{name} is a grouped convolution")
    return Value(rows, 1, rank)


def _batchnorm(axes: TensorAxes, name: str, module: Any, inputs: Inputs) -> Value:
    x = _first(inputs)
    tensors = [module.weight, module.bias, getattr(module, "running_mean", None), getattr(module, "running_var", None)]
    channels: Layout | None = None
    one_axis = isinstance(module, (nn.BatchNorm1d, nn.SyncBatchNorm))
    if x.layout is not None and x.axis == -1 and x.rank is None and one_axis:
        x = dataclasses.replace(x, rank=2)  # (examples, channels), as a linear layer gives them
    if x.layout is not None and x.from_front() == 1:
        channels = x.laid_out(module.num_features)
    elif x.layout is not None and x.from_front() is None:
        pin_all(x, f"the number of axes before {name} is not known; give batches")
    # Along another axis than the channels' it treats all units alike: they pass.
    for tensor in tensors:
        if tensor is not None:
            axes.bind(tensor, 0, channels, f"{name} takes what cannot move")
    return x


def layer_norm(axes: TensorAxes, name: str, tensors: list[torch.Tensor | None], n_axes: int, x: Value) -> Value:
    """Statistics over the last axes do not depend on the order of units; scale and shift go along with them."""
    here = x.from_back() if x.flattened is None else -1
    if x.layout is not None and here is None:
        x, here = pin_all(x, f"the number of axes before {name} is not known; give batches"), None
    for tensor in tensors:
        if tensor is None:
            continue
        for axis in range(tensor.ndim):
            inside = x.layout is not None and here is not None and axis - tensor.ndim == here
            layout = x.laid_out(tensor.shape[axis]) if inside else None
            axes.bind(tensor, axis, layout, f"{name} takes what cannot move")
    return x


def _layer_norm(axes: TensorAxes, name: str, module: Any, inputs: Inputs) -> Value:
    tensors = [module.weight, getattr(module, "bias", None)]
    return layer_norm(axes, name, tensors, len(module.normalized_shape), _first(inputs))


def _group_norm(axes: TensorAxes, name: str, module: nn.GroupNorm, inputs: Inputs) -> Value:
    x = _first(inputs)
    plain = module.num_groups in (1, module.num_channels)
    if x.layout is not None and (x.from_front() != 1 or not plain):
        x = pin_all(x, f"{name} normalises in groups")
    for tensor in (module.weight, module.bias):
        if tensor is not None:
            axes.bind(tensor, 0, x.laid_out(module.num_channels), f"{name} takes what cannot move")
    return x


def _prelu(axes: TensorAxes, name: str, module: nn.PReLU, inputs: Inputs) -> Value:
    x = _first(inputs)
    if module.num_parameters > 1:
        if x.layout is not None and x.from_front() != 1:
            x = pin_all(x, f"{name} has a slope for each entry of axis 1")
        axes.bind(module.weight, 0, x.laid_out(module.num_parameters), f"{name} takes what cannot move")
    return x


def _embedding(axes: TensorAxes, name: str, module: nn.Embedding, inputs: Inputs) -> Value:
    x = _first(inputs)
    pin_all(x, f"{name} looks symbols up")
    columns = axes.bind(module.weight, 1, units.fresh(module.embedding_dim, name))
    axes.bind(module.weight, 0, None, "the order of symbols")
    return Value(columns, -1, None if x.rank is None else x.rank + 1)


def _attention(axes: TensorAxes, name: str, module: nn.MultiheadAttention, inputs: Inputs) -> Any:
    args, kwargs = inputs
    names = ("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask", "average_attn_weights")
    given = dict(zip(names, args, strict=False)) | kwargs
    taken = [given["query"], given["key"], given["value"]]
    heads, width = module.num_heads, module.head_dim
    group = Units(heads, f"{name}.heads")
    scores: Layout = (Stretch(group, width, "qk"),)
    mixed: Layout = (Stretch(group, width, "vo"),)
    layouts = []
    for value, size in zip(taken, (module.embed_dim, module.kdim, module.vdim), strict=True):
        here = value if isinstance(value, Value) and value.from_back() == -1 else pin_all(value, f"enters {name} askew")
        layouts.append(here.laid_out(size))
    takes = f"{name} takes what cannot move"
    if module.in_proj_weight is not None:
        axes.bind(module.in_proj_weight, 0, scores + scores + mixed)
        for layout in layouts:
            axes.bind(module.in_proj_weight, 1, layout, takes)
    else:
        separate = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
        for weight, rows, layout in zip(separate, (scores, scores, mixed), layouts, strict=True):
            axes.bind(weight, 0, rows)
            axes.bind(weight, 1, layout, takes)
    if module.in_proj_bias is not None:
        axes.bind(module.in_proj_bias, 0, scores + scores + mixed)
    for bias, rows in ((module.bias_k, scores), (module.bias_v, mixed)):
        if bias is not None:
            axes.bind(bias, 2, rows)
    mask = given.get("attn_mask")
    if given.get("average_attn_weights") is False or (mask is not None and getattr(mask, "rank", None) != 2):
        # A mask or an output of each head for itself; or a mask of which that cannot be excluded.
        units.pin(scores + mixed, f"{name} may have a mask or weights for each head")
    axes.bind(module.out_proj.weight, 1, mixed)
    return linear_rows(axes, name, module.out_proj.weight, module.out_proj.bias, taken[0].rank), NOTHING_MOVES


def linear_rows(
    axes: TensorAxes, name: str, weight: torch.Tensor, bias: torch.Tensor | None, rank: int | None
) -> Value:
    """Rows of a weight, and its bias, as new units along the last axis."""
    rows = axes.bind(weight, 0, units.fresh(weight.shape[0], name))
    if bias is not None:
        axes.bind(bias, 0, rows)
    return Value(rows, -1, rank)


_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


def _recurrent(axes: TensorAxes, name: str, module: nn.RNNBase, inputs: Inputs) -> Any:
    args, kwargs = inputs
    x = _first(inputs)
    if len(args) + len(kwargs) > 1 or module.proj_size:
        for tensor in module.parameters():
            axes.pin(tensor, f"{name} has a given initial state or a projection")
        return pin_all([args, kwargs], f"{name} has a given initial state or a projection")
    if x.layout is not None and x.from_back() != -1:
        x = pin_all(x, f"{name} does not take its units along the last axis")
    below = x.laid_out(module.input_size)
    gates = _GATES[module.mode]
    for layer in range(module.num_layers):
        above: list[Layout] = []
        for direction in ("", "_reverse") if module.bidirectional else ("",):
            suffix = f"l{layer}{direction}"
            state = units.fresh(module.hidden_size, f"{name}.{suffix}")
            axes.bind(getattr(module, f"weight_ih_{suffix}"), 1, below, f"{name} takes what cannot move")
            axes.bind(getattr(module, f"weight_ih_{suffix}"), 0, state * gates)
            axes.bind(getattr(module, f"weight_hh_{suffix}"), 1, state)
            axes.bind(getattr(module, f"weight_hh_{suffix}"), 0, state * gates)
            if module.bias:
                axes.bind(getattr(module, f"bias_ih_{suffix}"), 0, state * gates)
                axes.bind(getattr(module, f"bias_hh_{suffix}"), 0, state * gates)
            above.append(state)
        below = tuple(stretch for state in above for stretch in state)
    assert below is not None
    rank = 3 if x.rank is None else x.rank
    last: Any = Value(below, -1, rank) if module.num_layers == 1 and not module.bidirectional else Hidden((below,))
    return Value(below, -1, rank), ((last, last) if module.mode == "LSTM" else last)


def _spatial(axes: TensorAxes, name: str, module: nn.Module, inputs: Inputs) -> Value:
    x = _first(inputs)
    if x.layout is not None and (x.axis != 1 or x.flattened):
        return pin_all(x, f"{name} works along the axis of the units")
    return x


def _passing(axes: TensorAxes, name: str, module: nn.Module, inputs: Inputs) -> Value:
    return _first(inputs)


def _first(inputs: Inputs) -> Value:
    args, kwargs = inputs
    value = args[0] if args else next(iter(kwargs.values()))
    return value if isinstance(value, Value) else pin_all(value, "enters a layer in a way that is not followed")


_ELEMENTWISE = (
    nn.Identity,
    Dropout,
    *(getattr(activation, kind) for kind in activation.__all__ if kind not in ("GLU", "MultiheadAttention", "PReLU")),
)
_SPATIAL = (
    *(getattr(pooling, kind) for kind in pooling.__all__ if "Unpool" not in kind),
    *(getattr(padding, kind) for kind in padding.__all__),
    nn.Upsample,
)

RULES: tuple[tuple[Any, Callable[..., Any]], ...] = (
    (nn.Linear, _linear),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _conv),
    (BatchNorm, _batchnorm),
    (InstanceNorm, _batchnorm),
    ((nn.LayerNorm, nn.RMSNorm), _layer_norm),
    (nn.GroupNorm, _group_norm),
    (nn.PReLU, _prelu),
    (nn.Embedding, _embedding),
    (nn.MultiheadAttention, _attention),
    (nn.RNNBase, _recurrent),
    (_ELEMENTWISE, _passing),
    (_SPATIAL, _spatial),
)
