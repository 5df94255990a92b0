from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn.modules import batchnorm

from landscape import _private
from landscape._errors import MeasurementError
from landscape._private import _torch


@pytest.fixture(autouse=True)
def _checked_anew() -> Iterator[None]:
    checks = (_torch._check_registries, _torch._check_saved_tensors)
    for check in checks:
        check.cache_clear()
    yield
    for check in checks:
        check.cache_clear()


def test_registries_are_the_tables_themselves():
    layer = nn.Linear(2, 2)
    parameters, buffers, submodules = _private.registries(layer)
    own, other = layer.weight, torch.zeros(2, 2)
    parameters["weight"] = other
    assert layer.weight is other
    parameters["weight"] = own
    assert (buffers, submodules) == ({}, {})


def test_registries_that_torch_no_longer_reads_are_refused(monkeypatch):
    def elsewhere(self, name):
        if name not in self._parameters:
            raise AttributeError(name)
        return torch.ones(1)

    monkeypatch.setattr(nn.Module, "__getattr__", elsewhere)
    with pytest.raises(MeasurementError, match=r"torch .* no longer lets a plain tensor stand for a parameter"):
        _private.registries(nn.Identity())


def test_saved_tensors_of_a_node():
    x = torch.ones(2, requires_grad=True)
    out = x.exp()
    assert [tensor.data_ptr() for tensor in _private.saved_tensors(out.grad_fn)] == [out.data_ptr()]


def test_saved_tensors_that_torch_hides_are_refused(monkeypatch):
    monkeypatch.setattr(_torch, "_saved", lambda node: iter(()))
    with pytest.raises(MeasurementError, match="no longer shows the tensors that an autograd graph keeps"):
        list(_private.saved_tensors(torch.ones(1, requires_grad=True).exp().grad_fn))


def test_classes_are_the_bases_of_public_layers():
    assert issubclass(nn.BatchNorm1d, _private.BatchNorm)
    assert issubclass(nn.SyncBatchNorm, _private.BatchNorm)
    assert issubclass(nn.BatchNorm2d, _private.Norm)
    assert issubclass(nn.InstanceNorm2d, _private.InstanceNorm)
    assert issubclass(nn.ConvTranspose2d, _private.ConvTranspose)
    assert not issubclass(nn.Conv2d, _private.ConvTranspose)
    assert issubclass(nn.Dropout2d, _private.Dropout)


def test_a_class_that_torch_has_renamed_is_named(monkeypatch):
    monkeypatch.delattr(batchnorm, "_NormBase")
    spec = importlib.util.spec_from_file_location("loaded_anew", _torch.__file__)
    with pytest.raises(MeasurementError, match=r"no longer has the classes of earlier releases \(.*_NormBase"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_persistent_buffers_are_those_of_the_state_dict():
    layer = nn.BatchNorm1d(2)
    layer.register_buffer("scratch", torch.zeros(1), persistent=False)
    layer.register_buffer("missing", None)
    found = _private.persistent_buffers(layer)
    assert (
        set(found)
        == {"running_mean", "running_var", "num_batches_tracked"}
        == set(layer.state_dict()) - {*dict(layer.named_parameters())}
    )
    assert all(found[name] is getattr(layer, name) for name in found)


def test_buffers_that_torch_marks_in_another_way_are_refused():
    layer = nn.BatchNorm1d(2)
    del layer._non_persistent_buffers_set
    with pytest.raises(MeasurementError, match="no longer tells which buffers a state dict leaves out"):
        _private.persistent_buffers(layer)


@pytest.mark.parametrize(
    ("home", "name", "use"),
    [
        (torch, "_weight_norm", _private.weight_norm_function),
        (
            torch.utils.data.DataLoader,
            "_get_iterator",
            lambda: _private.has_plain_iterator(torch.utils.data.DataLoader),
        ),
    ],
)
def test_functions_that_torch_has_renamed_are_refused(monkeypatch, home, name, use):
    assert use()
    monkeypatch.delattr(home, name)
    with pytest.raises(MeasurementError, match=r"^torch .* no longer .*; install an earlier torch"):
        use()
