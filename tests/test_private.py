from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils import checkpoint as checkpointing

from landscape import _private
from landscape._errors import MeasurementError

ROOT = Path(__file__).parents[1]
FOREIGN = ("torch", "torchmetrics", "pytorch_lightning", "lightning", "numpy", "scipy")


def trees() -> dict[Path, ast.Module]:
    files = [path for folder in ("landscape", "callbacks", "scripts") for path in (ROOT / folder).rglob("*.py")]
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}


def defined(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def foreign_private(tree: ast.AST, own: set[str]) -> Iterator[str]:
    """Private names of other packages in a module: imported ones, and attributes that nothing of ours is called by."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in FOREIGN:
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from filter(is_private, names)
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            ours = ast.unparse(node.value) in ("self", "cls") or node.attr in own - set(_private.REGISTRIES)
            if not ours:
                yield ast.unparse(node)


def test_private_names_of_other_packages_stand_in_one_module():
    parsed = trees()
    own = {name for tree in parsed.values() for name in defined(tree)} | {path.stem for path in parsed}
    home = ROOT / "landscape" / "_private.py"
    found = {str(path.relative_to(ROOT)): set(foreign_private(tree, own)) for path, tree in parsed.items()}
    assert found.pop(str(home.relative_to(ROOT)))
    assert {path: names for path, names in found.items() if names} == {}


@pytest.fixture(autouse=True)
def _checked_anew() -> Iterator[None]:
    checks = (_private._check_registries, _private._check_saved_tensors, _private._checkpoints_run_once)
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


def counted(runs: list[int]):
    def function(x, scale=1.0):
        runs.append(1)
        return (scale * x).sin().exp()

    return function


def curried(function, x):
    try:
        return checkpointing.checkpoint(use_reentrant=False)(function)(x)
    except TypeError:  # before torch 2.14
        return function(x)


def composed(function, x):
    """The checkpoint that hooks itself into a module, and takes its parts from torch.utils.checkpoint by name."""
    from torch.distributed._composable import checkpoint

    class Module(nn.Module):
        def forward(self, x):
            return function(x)

    return checkpoint(Module())(x)


def wrapped(function, x):
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    class Module(nn.Module):
        def forward(self, x):
            return function(x)

    return checkpoint_wrapper(Module())(x)


def selective(function, x):
    ops = [torch.ops.aten.sin.default]
    return checkpointing.checkpoint(
        function,
        x,
        use_reentrant=False,
        context_fn=lambda: checkpointing.create_selective_checkpoint_contexts(ops),
    )


CHECKPOINTS = {
    "reentrant": lambda f, x: checkpointing.checkpoint(f, x, use_reentrant=True),
    "plain": lambda f, x: checkpointing.checkpoint(f, x, use_reentrant=False),
    "keywords": lambda f, x: checkpointing.checkpoint(f, x, scale=1.0, use_reentrant=False, determinism_check="none"),
    "debug": lambda f, x: checkpointing.checkpoint(f, x, use_reentrant=False, debug=True),
    "sequential": lambda f, x: checkpointing.checkpoint_sequential([f, torch.exp], 2, x, use_reentrant=False),
    "nested": lambda f, x: checkpointing.checkpoint(
        lambda y: checkpointing.checkpoint(f, y, use_reentrant=False), x, use_reentrant=False
    ),
    "curried": curried,
    "composed": composed,
    "wrapped": wrapped,
    "selective": selective,
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
@pytest.mark.parametrize("early_stop", [True, False])
def test_functions_under_a_checkpoint_run_once_and_have_second_derivatives(kind, early_stop):
    runs: list[int] = []
    function = counted(runs)
    x = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    with checkpointing.set_checkpoint_early_stop(early_stop), _private.checkpointing_off():
        out = CHECKPOINTS[kind](function, x)
    (gradient,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), x)
    y = x.sin().exp() if kind != "sequential" else x.sin().exp().exp()
    (expected,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (expected_second,) = torch.autograd.grad(expected.sum(), x)
    assert len(runs) == 1
    assert torch.equal(gradient, expected)
    assert torch.equal(second, expected_second)


def test_everything_replaced_in_checkpoint_is_put_back():
    before = dict(vars(checkpointing))
    with pytest.raises(RuntimeError, match="inside"), _private.checkpointing_off():
        raise RuntimeError("inside")
    assert dict(vars(checkpointing)) == before


def test_checkpoints_that_cannot_be_switched_off_are_refused(monkeypatch):
    # A release of torch that has renamed everything: models without checkpointing are measured, others are refused.
    monkeypatch.setattr(_private, "_GENERATORS", ())
    monkeypatch.setattr(_private, "_HOOK", "_renamed")
    x = torch.ones(1, requires_grad=True)
    with _private.checkpointing_off():
        plain = x.exp()
        with pytest.raises(RuntimeError, match="activation checkpointing.*switch it off in the model"):
            checkpointing.checkpoint(torch.exp, x, use_reentrant=False)
    assert torch.autograd.grad(plain.sum(), x)[0] == plain


def test_saved_tensors_of_a_node():
    x = torch.ones(2, requires_grad=True)
    out = x.exp()
    assert [tensor.data_ptr() for tensor in _private.saved_tensors(out.grad_fn)] == [out.data_ptr()]


def test_saved_tensors_that_torch_hides_are_refused(monkeypatch):
    monkeypatch.setattr(_private, "_saved", lambda node: iter(()))
    with pytest.raises(MeasurementError, match="no longer shows the tensors that an autograd graph keeps"):
        list(_private.saved_tensors(torch.ones(1, requires_grad=True).exp().grad_fn))


class Loop:
    """A Trainer, its loop, and everything below them, without what Lightning keeps there."""

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return self


@pytest.mark.parametrize("use", [_private.validation_source, _private.restart_batches])
def test_what_lightning_has_renamed_is_refused_by_a_sentence(use):
    with pytest.raises(MeasurementError, match=r"no longer .*, which landscape relies on; install an earlier"):
        use(Loop())


def test_the_trainer_of_a_module_that_is_not_attached(cases):
    assert _private.attached_trainer(nn.Identity()) is None


def test_classes_are_the_bases_of_public_layers():
    assert issubclass(nn.BatchNorm1d, _private.BatchNorm)
    assert issubclass(nn.SyncBatchNorm, _private.BatchNorm)
    assert issubclass(nn.BatchNorm2d, _private.Norm)
    assert issubclass(nn.InstanceNorm2d, _private.InstanceNorm)
    assert issubclass(nn.ConvTranspose2d, _private.ConvTranspose)
    assert not issubclass(nn.Conv2d, _private.ConvTranspose)
    assert issubclass(nn.Dropout2d, _private.Dropout)
