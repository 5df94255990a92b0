"""Tensors in the places of a module's own, compared with `torch.func.functional_call`."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from landscape import MeasurementError
from landscape._substitution import Places


class Tied(nn.Module):
    """One weight in two layers, one layer under two names, a buffer under two names, an empty buffer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.again = self.first
        self.register_buffer("shift", torch.ones(3))
        self.register_buffer("twin", self.shift)
        self.register_buffer("later", None)

    def forward(self, x):
        return self.again(torch.tanh(self.second(self.first(x)))) + self.shift * self.twin


def expected_output(module, tensors, x):
    # On a copy: of a layer that hangs under two names, functional_call leaves the substituted tensors behind.
    return functional_call(copy.deepcopy(module), tensors, (x,))


def tables(module):
    return [dict(table) for part in module.modules() for table in (part._parameters, part._buffers, part._modules)]


def others(module):
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: torch.randn_like(tensor) for name, tensor in named}


def same(one, other):
    return all(a.keys() == b.keys() and all(a[key] is b[key] for key in a) for a, b in zip(one, other, strict=True))


def test_tied_tensors_stand_in_all_their_places():
    module, x = Tied(), torch.randn(2, 3)
    places, before, tensors = Places(module), tables(module), others(module)
    expected = expected_output(module, tensors, x)
    with places.filled(tensors):
        torch.testing.assert_close(module(x), expected, rtol=0, atol=0)
    assert same(tables(module), before)


def test_the_own_tensors_come_back_after_an_exception_and_after_assignments():
    module = Tied()
    places, before = Places(module), tables(module)

    def fail():
        module.shift = module.shift * 2
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"), places.filled(others(module)):
        fail()
    assert same(tables(module), before)


def new_weight(module):
    module.second.weight = nn.Parameter(torch.randn(3, 3))


def new_buffer(module):
    module.later = torch.ones(3)


def new_submodule(module):
    module.second = nn.Linear(3, 3, bias=False)


def new_entry(module):
    module.first.register_buffer("counter", torch.zeros(()))


@pytest.mark.parametrize("change", [new_weight, new_buffer, new_submodule, new_entry])
def test_a_module_that_has_changed_is_looked_at_again(change):
    module, x = Tied(), torch.randn(2, 3)
    places = Places(module)
    change(module)
    before, tensors = tables(module), others(module)
    expected = expected_output(module, tensors, x)
    with places.filled(tensors):
        torch.testing.assert_close(module(x), expected, rtol=0, atol=0)
        assert all(value is tensors[name] for name, value in module.named_buffers())
    assert same(tables(module), before)
    assert places.buffers().keys() == dict(module.named_buffers()).keys()


def test_a_tensor_that_is_gone_is_named():
    module = Tied()
    places, tensors = Places(module), others(module)
    del module.first.bias
    with pytest.raises(MeasurementError, match=r"no longer holds a tensor named 'first\.bias'"), places.filled(tensors):
        pass
