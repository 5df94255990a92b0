"""Turn casts to a lower precision, which a model writes into its code, into casts to the measuring type."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_LEVELS = {torch.float16: 0, torch.bfloat16: 0, torch.float32: 1, torch.float64: 2}
# Methods that cast to the type in their name.
_CASTS = {torch.Tensor.half: torch.float16, torch.Tensor.bfloat16: torch.bfloat16, torch.Tensor.float: torch.float32}
_REINTERPRETS = {torch.Tensor.view}


class MeasuringPrecision(TorchFunctionMode):
    """Raises every floating-point type that is named within to the measuring type, if that is more precise.

    A model whose layers are in bfloat16 casts its input by `x.to(torch.bfloat16)` or `x.bfloat16()`. Its weights are
    measured in float32, so the input must stay in float32 too.

    Args:
        dtype: The measuring type.
    """

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self._dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._is_lower(_CASTS.get(func)):
            return args[0].to(self._dtype)
        if func not in _REINTERPRETS:
            args = tuple(self._dtype if self._is_lower(value) else value for value in args)
            kwargs = {name: self._dtype if self._is_lower(value) else value for name, value in kwargs.items()}
        return func(*args, **kwargs)

    def _is_lower(self, named: Any) -> bool:
        return isinstance(named, torch.dtype) and _LEVELS.get(named, 3) < _LEVELS.get(self._dtype, 0)
