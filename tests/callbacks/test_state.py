"""A module's state in the parts that the file stores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from landscape.callbacks._state import ModuleState


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 2, bias=False)
        self.second = nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight
        self.frozen = nn.Parameter(torch.tensor([3.0, 4.0]), requires_grad=False)
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("hidden", torch.ones(5), persistent=False)
        self.register_buffer("running_mean", torch.full((1,), 7.0))  # only by its name


def test_layouts():
    state = ModuleState(Parts())
    assert state.layout.names == ("first.weight", "norm.weight", "norm.bias")
    assert state.constant_layout.names == ("frozen",)
    assert set(state.buffer_layout.names) == {
        "running_mean",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    }
    assert state.aliases == {"second.weight": "first.weight"}
    assert state.constants().tolist() == [3.0, 4.0]
    assert state.weight_dtype == torch.float32
    assert ModuleState(Parts().double()).weight_dtype == torch.float64


def test_attributes_are_plain():
    described = ModuleState(Parts()).attributes()
    assert described["parameter_dtypes"] == ["float32"] * 3
    assert described["constant_names"] == ["frozen"]
    assert described["constant_shapes"] == [[2]]
    assert (
        dict(zip(described["buffer_names"], described["buffer_dtypes"], strict=True))["norm.num_batches_tracked"]
        == "int64"
    )


def test_buffers_and_the_statistics_among_them():
    module = Parts()
    state = ModuleState(module)
    fresh = {"norm.running_mean": torch.tensor([0.25, 0.5]), "norm.running_var": torch.tensor([2.0, 3.0])}
    stored = state.buffers(fresh)
    assert stored.dtype == np.float64
    found = state.statistics(stored)
    assert set(found) == set(fresh)
    assert all(torch.equal(found[name].float(), fresh[name]) for name in fresh)
    assert state.buffer_layout.named(state.buffers())["norm.running_var"].tolist() == [1.0, 1.0]


def test_nothing_to_store():
    state = ModuleState(nn.Linear(1, 1))
    assert state.buffers().shape == (0,)
    assert state.constants().shape == (0,)
    assert state.statistics(state.buffers()) == {}


def test_a_root_that_is_a_normalisation():
    state = ModuleState(nn.BatchNorm1d(2))
    assert set(state.statistics(state.buffers())) == {"running_mean", "running_var"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_stored_as_float32(dtype):
    state = ModuleState(nn.Linear(2, 2).to(dtype))
    assert state.weight_dtype == torch.float32
    assert state.attributes()["parameter_dtypes"] == [str(dtype).removeprefix("torch.")] * 2
