"""Remember a tensor's values, storage and type, and put them back into the same tensor."""

from __future__ import annotations

import torch


class TensorState:
    """The storage, values and type that a tensor has when this is made.

    Memory: a copy of the tensor.

    Args:
        tensor: The tensor.
    """

    def __init__(self, tensor: torch.Tensor):
        self._tensor = tensor
        self._data = tensor.data
        self._values = tensor.detach().clone()

    def restore(self) -> None:
        """Put the values back in place; where the tensor was given other storage or another type, its own one too."""
        # An inference tensor may be written to in inference mode only.
        with torch.no_grad(), torch.inference_mode(self._tensor.is_inference() or torch.is_inference_mode_enabled()):
            if self._moved():
                self._tensor.data = self._data
            # `.data` leaves the version counter alone: graphs that the training still holds stay valid.
            if self._tensor.layout != torch.strided:
                self._tensor.copy_(self._values)  # of a sparse tensor, `.data` is a copy
            elif self._data.shape == self._values.shape:
                self._tensor.data.copy_(self._values)
            else:
                self._tensor.data = self._values

    def _moved(self) -> bool:
        now, then = self._tensor, self._data
        if now.layout != torch.strided or then.layout != torch.strided:
            return False
        described = (now.dtype, now.device, now.shape, now.stride())
        return described != (then.dtype, then.device, then.shape, then.stride()) or now.data_ptr() != then.data_ptr()
