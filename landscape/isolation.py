"""Measure without leaving a trace: one context manager that puts back everything a measurement could disturb.

An additional training step changes more than the loss shows. Dropout and samplers draw from global generators, metrics
count, modules append to lists, and batch normalisation moves its averages. `isolated` records all of it on entry and
restores it on exit, also when the measurement raises.
"""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from landscape._interrupts import interrupts_waiting
from landscape._private import attached_trainer, eager, registries
from landscape._sharded_models import require_unsharded
from landscape._snapshot import Snapshot
from landscape._tensor_state import TensorState

# Methods that a training step calls to write to loggers. They are silenced, since written lines cannot be taken back.
_MUTED = ("log", "log_dict", "print")


@contextlib.contextmanager
def isolated(
    module: nn.Module, objects: Iterable[Any] = (), mute: bool = True, set_aside: bool = False
) -> Iterator[None]:
    """Restore on exit whatever a measurement on `module` may disturb.

    These are restored:

    - parameters, buffers, `.grad`, `requires_grad` and train/eval flags of all submodules;
    - plain Python state of the modules and of `objects`: counters, lists, torchmetrics states, own random generators;
    - the global random generators of torch (CPU and accelerator), numpy and Python.

    Within the context gradients are enabled, and inference mode and autocast are off. The methods `log`, `log_dict` and
    `print` and the loggers of LightningModules are silent.

    Memory: a copy of the parameters, of their gradients and of the buffers while the context is open; without one of
    the gradients where they are set aside.

    Args:
        module: The module that will be measured.
        objects: Further objects whose state is kept, such as datasets, samplers, or data loaders' generators.
        mute: Whether Lightning's logging is silenced.
        set_aside: Whether the parameters have no gradients within, as before a first backward pass.

    Yields:
        Nothing.

    Raises:
        MeasurementError: The module's parameters are spread over processes; nothing was touched.
    """  # noqa: DOC502 - `require_unsharded` raises it
    require_unsharded(module)
    tensors = _Tensors(module, gradients=not set_aside)
    snapshot = Snapshot([module, *objects], kept=module.modules(), tensors=tensors.tensors)
    generators = _GlobalGenerators()
    device_type = next((p.device.type for p in module.parameters()), "cpu")
    stack = contextlib.ExitStack()
    try:
        # Entered first, so left last: everything else is undone before the generators are put back.
        stack.callback(generators.restore)
        stack.callback(snapshot.restore)
        stack.callback(tensors.restore)
        if set_aside:
            for parameter, _, _ in tensors.parameters:
                parameter.grad = None
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.autocast(device_type, enabled=False))
        stack.enter_context(eager())
        if mute:
            stack.enter_context(_muted(module))
        yield
    finally:
        try:
            with interrupts_waiting():
                stack.close()
        finally:
            stack.close()  # what is left where an interrupt came before it could be made to wait


@contextlib.contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed the global generators of torch, numpy and Python within, and put their states back on leaving.

    Args:
        *key: Non-negative integers; each sequence of them is a seed of its own.

    Yields:
        Nothing.
    """
    generators = _GlobalGenerators()
    seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    try:
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        yield
    finally:
        generators.restore()


class _Tensors:
    """Parameters, gradients, buffers and flags of a module tree."""

    def __init__(self, module: nn.Module, gradients: bool = True):
        self.training = [(part, part.training) for part in module.modules()]
        self.registered: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._values: dict[int, tuple[torch.Tensor, TensorState]] = {}
        self.parameters: list[tuple[nn.Parameter, bool, torch.Tensor | None]] = []
        for part in module.modules():
            for table in registries(part):
                self.registered.append((table, dict(table)))
        for parameter in module.parameters():
            self.parameters.append((parameter, parameter.requires_grad, parameter.grad))
            self._keep(parameter)
            self._keep(parameter.grad if gradients else None)
        for buffer in module.buffers():
            self._keep(buffer)

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [tensor for tensor, _ in self._values.values()]

    def _keep(self, tensor: torch.Tensor | None) -> None:
        if tensor is not None and not nn.parameter.is_lazy(tensor):
            self._values[id(tensor)] = (tensor, TensorState(tensor))

    def restore(self) -> None:
        for part, training in self.training:
            part.training = training
        for table, entries in self.registered:
            if list(table.keys()) == list(entries):
                # The tables of scripted modules have neither clear nor update, so entries are set one by one.
                for name, own in entries.items():
                    if table[name] is not own:
                        table[name] = own
            else:
                table.clear()
                table.update(entries)
        for _, state in self._values.values():
            state.restore()
        for parameter, requires_grad, grad in self.parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad


class _GlobalGenerators:
    """The states of the process-wide random generators."""

    def __init__(self) -> None:
        self.torch = torch.get_rng_state()
        self._put_back = _accelerator_generators()
        self.numpy = np.random.get_state()
        self.python = random.getstate()

    def restore(self) -> None:
        torch.set_rng_state(self.torch)
        self._put_back()
        np.random.set_state(self.numpy)
        random.setstate(self.python)


def _accelerator_generators() -> Callable[[], None]:
    """Read the states of the accelerator's generators, and return what puts them back.

    CUDA and XPU have a generator on every device, MPS has a single one. An accelerator that was not used yet has none.

    Returns:
        A function without arguments.
    """
    try:
        device = torch.accelerator.current_accelerator()
    except RuntimeError:  # torch 2.6, where later versions return None
        device = None
    module: Any = None if device is None else torch.get_device_module(device)
    if module is None or not getattr(module, "is_initialized", torch.accelerator.is_available)():
        return lambda: None
    for kind in ("rng_state_all", "rng_state"):
        get, put = (getattr(module, f"{verb}_{kind}", None) for verb in ("get", "set"))
        if get is not None and put is not None:
            return functools.partial(put, get())
    return lambda: None


class _Silence:
    """Accepts every attribute and every call and does nothing: stands in for a logger."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> _Silence:
        return self

    def __getitem__(self, key: Any) -> _Silence:
        return self


@contextlib.contextmanager
def _muted(module: nn.Module) -> Iterator[None]:
    """Silence the logging of every LightningModule in the tree, by instance attributes that hide the methods."""
    speaking = [part for part in module.modules() if hasattr(part, "log_dict") and hasattr(part, "training_step")]
    trainers = {id(t): t for t in map(attached_trainer, speaking) if t is not None}
    loggers = [(t, t.loggers) for t in trainers.values() if hasattr(t, "loggers")]
    hidden = [(part, {n: part.__dict__[n] for n in _MUTED if n in part.__dict__}) for part in speaking]
    try:
        for part in speaking:
            part.__dict__.update(dict.fromkeys(_MUTED, _Silence()))
        for trainer, kept in loggers:
            trainer.loggers = [_Silence() for _ in kept]
        yield
    finally:
        for trainer, kept in loggers:
            trainer.loggers = kept
        for part, entries in hidden:
            for name in _MUTED:
                part.__dict__.pop(name, None)
            part.__dict__.update(entries)
