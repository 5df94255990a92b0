"""Replace operations whose second derivative is slow or wrong in torch: convolutions, ReLU, weight_norm.

Torch writes the weight's part of a convolution's second derivative as a convolution with a kernel as large as the
picture, which takes twice as long on a CPU as the backward pass that it is. And it adds the zeros that are ReLU's
second derivative. Values are the same to rounding; a product with a small convolutional network takes 0.82 to 0.88 of
the time. The second derivative of the fused weight_norm is wrong in torch (the Hessian comes out unsymmetric), so it is
written out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

from landscape._loss_functions import with_lost_weight
from landscape._private import weight_norm_function

_convolution = torch.ops.aten.convolution
_backward = torch.ops.aten.convolution_backward


# The names of the classes are those of graph nodes, which `_graph` knows convolutions and kinks by.
class Convolution(torch.autograd.Function):
    """Convolution of x with w; `how` is (stride, padding, dilation, transposed, output padding, groups)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, how: tuple[Any, ...]) -> torch.Tensor:
        return _convolution(x, weight, bias, *how)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        x, weight, bias, ctx.how = inputs
        ctx.save_for_backward(x, weight)
        ctx.bias_shape = None if bias is None else list(bias.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        x, weight = ctx.saved_tensors
        wanted = tuple(ctx.needs_input_grad[:3])
        return *ConvolutionDerivative.apply(gradients[0], x, weight, ctx.bias_shape, ctx.how, wanted), None


class ConvolutionDerivative(torch.autograd.Function):
    """The derivatives of a convolution by x, w and bias, from the one by its result."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias_shape: Any, how: Any, wanted: Any
    ) -> Any:
        return _backward(gradient, x, weight, bias_shape, *how, list(wanted))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        gradient, x, weight, _, ctx.how, _ = inputs
        ctx.save_for_backward(gradient, x, weight)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *tangents: torch.Tensor | None) -> Any:
        gradient, x, weight = ctx.saved_tensors
        along_x, along_weight, along_bias = tangents
        by_gradient, by_x, by_weight = None, None, None
        if ctx.needs_input_grad[0]:
            if along_x is not None:
                by_gradient = _convolution(along_x, weight, None, *ctx.how)
            if along_weight is not None:
                by_gradient = _plus(by_gradient, _convolution(x, along_weight, None, *ctx.how))
            if along_bias is not None:
                bias = along_bias.reshape(-1, *[1] * (gradient.ndim - 2))
                by_gradient = _plus(by_gradient, bias.expand_as(gradient))
        if ctx.needs_input_grad[1] and along_weight is not None:
            by_x = _backward(gradient, x, along_weight, None, *ctx.how, [True, False, False])[0]
        if ctx.needs_input_grad[2] and along_x is not None:
            by_weight = _backward(gradient, along_x, weight, None, *ctx.how, [False, True, False])[1]
        return by_gradient, by_x, by_weight, None, None, None


def _plus(first: torch.Tensor | None, second: torch.Tensor) -> torch.Tensor:
    return second if first is None else first + second


class Relu(torch.autograd.Function):
    """max(x, 0)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return ReluGate.apply(gradients[0], ctx.saved_tensors[0].detach())


class ReluGate(torch.autograd.Function):
    """g where y > 0, else 0: linear in g, and flat in y."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten.threshold_backward(gradient, y, 0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return ReluGate.apply(gradients[0], ctx.saved_tensors[0]), None


def _convolved(dimensions: int) -> Callable[..., torch.Tensor | None]:
    def each(value: int | tuple[int, ...]) -> list[int]:
        return [value] * dimensions if isinstance(value, int) else list(value)

    def convolve(
        input: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> torch.Tensor | None:
        # A picture without a batch, and padding="same", are left to torch.
        if input.ndim != dimensions + 2 or isinstance(padding, str) or not _plain(input, weight):
            return None
        how = (each(stride), each(padding), each(dilation), False, [0] * dimensions, groups)
        return Convolution.apply(input, weight, bias, how)

    return convolve


def _relu(input: torch.Tensor, inplace: bool = False) -> torch.Tensor | None:
    return Relu.apply(input) if not inplace and _plain(input) else None


def _unfused(*args: Any, **kwargs: Any) -> torch.Tensor:
    """Evaluate `linear_cross_entropy` without chunks: their second derivative is wrong, without an error."""
    return F.linear_cross_entropy(*args, **{**kwargs, "options": None})


def weight_norm(v: torch.Tensor, g: torch.Tensor, dim: int = 0) -> torch.Tensor:
    """Return g v / ‖v‖, the norm over all dimensions but `dim`, by operations that can be differentiated twice."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _plain(*tensors: torch.Tensor) -> bool:
    """Whether these are real numbers on the CPU, of a type that no autocast will change."""
    return not torch.is_autocast_enabled("cpu") and all(
        type(t) in (torch.Tensor, torch.nn.Parameter) and t.device.type == "cpu" and t.is_floating_point()
        for t in tensors
    )


_REPLACED: dict[Any, Callable[..., torch.Tensor | None]] = {
    torch.conv1d: _convolved(1),
    torch.conv2d: _convolved(2),
    torch.conv3d: _convolved(3),
    F.relu: _relu,
    torch.relu: _relu,
    torch.Tensor.relu: _relu,
    weight_norm_function(): weight_norm,
}


class CheapSecondDerivatives(TorchFunctionMode):
    """Within it, convolutions, ReLU and weight_norm are built so that differentiating them twice is cheap and right."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = with_lost_weight(func, kwargs or {})
        other = _REPLACED.get(func)
        result = other(*args, **kwargs) if other is not None and torch.is_grad_enabled() else None
        return func(*args, **kwargs) if result is None else result


if hasattr(F, "linear_cross_entropy"):
    _REPLACED[F.linear_cross_entropy] = _unfused
