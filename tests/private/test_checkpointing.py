from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.utils import checkpoint as checkpointing

from landscape._private import _checkpointing, checkpointing_off


@pytest.fixture(autouse=True)
def _checked_anew() -> Iterator[None]:
    _checkpointing._checkpoints_run_once.cache_clear()
    yield
    _checkpointing._checkpoints_run_once.cache_clear()


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
    with checkpointing.set_checkpoint_early_stop(early_stop), checkpointing_off():
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
    with pytest.raises(RuntimeError, match="inside"), checkpointing_off():
        raise RuntimeError("inside")
    assert dict(vars(checkpointing)) == before


def test_checkpoints_that_cannot_be_switched_off_are_refused(monkeypatch):
    # A release of torch that has renamed everything: models without checkpointing are measured, others are refused.
    monkeypatch.setattr(_checkpointing, "_GENERATORS", ())
    monkeypatch.setattr(_checkpointing, "_HOOK", "_renamed")
    x = torch.ones(1, requires_grad=True)
    with checkpointing_off():
        plain = x.exp()
        with pytest.raises(RuntimeError, match="activation checkpointing.*switch it off in the model"):
            checkpointing.checkpoint(torch.exp, x, use_reentrant=False)
    assert torch.autograd.grad(plain.sum(), x)[0] == plain
