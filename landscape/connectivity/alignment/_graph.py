"""The network as a graph of operations, by torch.fx."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from landscape._errors import MeasurementError
from landscape.isolation import isolated

_WAY_OUT = (
    "Describe its symmetries by hand and pass spec=PermutationSpec({tensor name: an entry for each axis, ...}), or put "
    "what cannot be traced into a function that torch.fx.wrap marks"
)


class NetworkTracer(fx.Tracer):
    """Traces a network down to torch's layers, and transformer layers down to their attention and linear layers."""

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Write out the layers that torch computes in one piece; all others as torch.fx does."""
        for kind, written_out in _WRITTEN_OUT.items():
            if type(m) is kind:
                return written_out(m, *args, **kwargs)
        return super().call_module(m, forward, args, kwargs)


def trace(model: nn.Module) -> fx.GraphModule:
    """Trace a model.

    Args:
        model: Any module whose forward does not depend on the values of its input.

    Returns:
        Its graph, with the model's own submodules.

    Raises:
        MeasurementError: It cannot be traced.
    """
    tracer = NetworkTracer()
    try:
        with isolated(model):
            # The flag that functional dropout asks for becomes a constant of the graph.
            for part in model.modules():
                part.training = False
            return fx.GraphModule(model, tracer.trace(model))
    except Exception as error:  # whatever the model's own code raises on being given a proxy
        what = str(error).strip().partition("\n")[0]
        raise MeasurementError(
            f"{type(model).__name__} cannot be traced by torch.fx ({type(error).__name__}: {what}), so its permutation "
            f"symmetries are not known. {_WAY_OUT}"
        ) from error


def input_of(batch: Any) -> Any:
    """Return what the model is called with: the first of a pair, else the whole batch."""
    return batch[0] if isinstance(batch, (tuple, list)) and len(batch) == 2 else batch


def shapes_of(graph: fx.GraphModule, batch: Any) -> dict[fx.Node, tuple[int, ...]]:
    """Return the shape of every tensor of the graph on a batch."""
    shapes: dict[fx.Node, tuple[int, ...]] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, torch.Tensor):
                shapes[n] = tuple(value.shape)
            return value

    with torch.no_grad():
        Recorder(graph).run(input_of(batch))
    return shapes


def _attend(layer: Any, attention: nn.Module, dropout: nn.Module, x: Any, memory: Any, mask: Any, padding: Any) -> Any:
    mixed = attention(x, memory, memory, attn_mask=mask, key_padding_mask=padding, need_weights=False)[0]
    return dropout(mixed)


def _feed_forward(layer: Any, x: Any, last: nn.Module) -> Any:
    return last(layer.linear2(layer.dropout(layer.activation(layer.linear1(x)))))


def _encoder_layer(
    layer: Any, src: Any, src_mask: Any = None, src_key_padding_mask: Any = None, is_causal: Any = False
) -> Any:
    def attention(x: Any) -> Any:
        return _attend(layer, layer.self_attn, layer.dropout1, x, x, src_mask, src_key_padding_mask)

    if layer.norm_first:
        x = src + attention(layer.norm1(src))
        return x + _feed_forward(layer, layer.norm2(x), layer.dropout2)
    x = layer.norm1(src + attention(src))
    return layer.norm2(x + _feed_forward(layer, x, layer.dropout2))


def _encoder(encoder: Any, src: Any, mask: Any = None, src_key_padding_mask: Any = None, is_causal: Any = None) -> Any:
    for layer in encoder.layers:
        src = layer(src, src_mask=mask, src_key_padding_mask=src_key_padding_mask)
    return src if encoder.norm is None else encoder.norm(src)


def _decoder_layer(
    layer: Any,
    tgt: Any,
    memory: Any,
    tgt_mask: Any = None,
    memory_mask: Any = None,
    tgt_key_padding_mask: Any = None,
    memory_key_padding_mask: Any = None,
    tgt_is_causal: Any = False,
    memory_is_causal: Any = False,
) -> Any:
    def own(x: Any) -> Any:
        return _attend(layer, layer.self_attn, layer.dropout1, x, x, tgt_mask, tgt_key_padding_mask)

    def other(x: Any) -> Any:
        return _attend(layer, layer.multihead_attn, layer.dropout2, x, memory, memory_mask, memory_key_padding_mask)

    if layer.norm_first:
        x = tgt + own(layer.norm1(tgt))
        x = x + other(layer.norm2(x))
        return x + _feed_forward(layer, layer.norm3(x), layer.dropout3)
    x = layer.norm1(tgt + own(tgt))
    x = layer.norm2(x + other(x))
    return layer.norm3(x + _feed_forward(layer, x, layer.dropout3))


def _decoder(decoder: Any, tgt: Any, memory: Any, tgt_mask: Any = None, memory_mask: Any = None, **masks: Any) -> Any:
    for layer in decoder.layers:
        tgt = layer(tgt, memory, tgt_mask=tgt_mask, memory_mask=memory_mask, **masks)
    return tgt if decoder.norm is None else decoder.norm(tgt)


_WRITTEN_OUT: dict[type, Callable[..., Any]] = {
    nn.TransformerEncoderLayer: _encoder_layer,
    nn.TransformerEncoder: _encoder,
    nn.TransformerDecoderLayer: _decoder_layer,
    nn.TransformerDecoder: _decoder,
}
