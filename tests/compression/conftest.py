from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import nn

from landscape import Objective


class Tensors(nn.Module):
    """Tensors by name, end to end, whatever the input."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_parameter(name, nn.Parameter(tensor.clone()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([parameter.reshape(-1) for parameter in self.parameters()])


@pytest.fixture
def quadratic() -> Callable[..., Objective]:
    """Objective of 0.7 + ½(w − w₀)ᵀH(w − w₀) at w₀, given as tensors, in float64; H as a matrix or as its diagonal."""

    def make(tensors: Mapping[str, torch.Tensor], curvature: torch.Tensor) -> Objective:
        center = torch.cat([tensor.reshape(-1) for tensor in tensors.values()]).double()
        curvature = curvature.double()

        def loss(w: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
            shift = w - center
            return 0.7 + 0.5 * shift @ (curvature * shift if curvature.ndim == 1 else curvature @ shift)

        model = Tensors({name: tensor.double() for name, tensor in tensors.items()})
        return Objective(model, loss, [(torch.zeros(1), torch.zeros(1))], dtype=torch.float64)

    return make
