"""A pretend accelerator: tensors of another device than the CPU, on any machine, and a count of every wait for it.

A GPU refuses to mix its tensors with the CPU's, and the host waits for it wherever a number is fetched. Machines
without one show neither. Here torch's slot for third-party devices (PrivateUse1) is filled by Python: a tensor on
`pretend` lives in ordinary memory, and each operation on it runs the CPU's kernel on the same memory. Only the name of
its device differs, which the DLPack exchange format allows to change without a copy.

It behaves like a GPU in these ways:

- An operation on tensors of both devices raises, but for numbers without dimensions on the CPU.
- Random numbers on it come from a generator of its own, which `torch.manual_seed` seeds too.
- `waits` counts what a GPU stops the host for: `.item()` and copies to the host, and results whose shape depends on
  the values. `uploads` counts copies of tensors to the device.

It says nothing about speed, memory, streams or kernels of lower precision. It needs torch 2.10.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils import backend_registration

NAME = "pretend"
_CPU, _EXTENSION = 1, 12  # DLPack's numbers for host memory and for third-party devices

waits: Counter[str] = Counter()
uploads: Counter[str] = Counter()
# Operations that a GPU can only finish together with the host, as their result or its shape is read there.
_WAITING = {
    "_linalg_eigh",
    "_linalg_svd",
    "_local_scalar_dense",
    "_unique2",
    "bincount",
    "equal",
    "histc",
    "masked_select",
    "multinomial",
    "nonzero",
    "repeat_interleave",
    "unique_consecutive",
    "unique_dim",
}
# Operations that take tensors of the CPU beside those of a GPU.
_MIXING = {"_copy_from", "_index_put_impl_", "_to_copy", "copy_", "index", "index_put", "index_put_"}


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("number", ctypes.c_int32))


class _Exchanged(ctypes.Structure):
    """The head of DLPack's DLTensor, as far as the device."""

    _fields_ = (("data", ctypes.c_void_p), ("device", _Device))


_pointer_in = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_in.restype, _pointer_in.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


def _as(kind: int, tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor over the same memory that names another device."""
    capsule = torch._C._to_dlpack(tensor)
    device = _Exchanged.from_address(_pointer_in(capsule, b"dltensor")).device
    device.kind, device.number = kind, 0
    return torch._C._from_dlpack(capsule)


def _on_device(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and not value.is_cpu


def _to_cpu(value: Any) -> Any:
    return _as(_CPU, value) if _on_device(value) else value


def _to_device(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return _as(_EXTENSION, value) if value.is_cpu else value
    return type(value)(map(_to_device, value)) if isinstance(value, (list, tuple)) else value


class _Given:
    """The arguments of a call, translated to the CPU in one pass, with what was met on the way."""

    def __init__(self) -> None:
        self.here: list[torch.Tensor] = []
        self.there: list[torch.Tensor] = []  # on the CPU; numbers without dimensions are welcome everywhere
        self.generator: torch.Generator | None = None

    def translated(self, value: Any) -> Any:
        kind = type(value)
        if kind is int or kind is float or value is None or kind is bool:
            return value
        if isinstance(value, torch.Tensor):
            if value.is_cpu:
                if value.dim():
                    self.there.append(value)
                return value
            self.here.append(value)
            return _as(_CPU, value)
        if kind is list or kind is tuple:
            return kind([self.translated(item) for item in value])
        if kind is torch.device:
            return torch.device("cpu")
        if kind is torch.Generator:
            self.generator = value
        return value


class _Backend:
    """What torch asks of the module of a device."""

    generator = torch.Generator()

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def set_device(self, device: Any) -> None:
        pass

    def synchronize(self, device: Any = None) -> None:
        waits["synchronize"] += 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed(self, seed: int) -> None:
        self.generator.manual_seed(seed)

    manual_seed_all = manual_seed

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return self.generator.get_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        self.generator.set_state(state)

    def get_rng_state_all(self) -> list[torch.Tensor]:
        return [self.get_rng_state()]

    def set_rng_state_all(self, states: list[torch.Tensor]) -> None:
        self.set_rng_state(states[0])

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


backend = _Backend()


class _Kernel:
    """What is known of one operation from its schema.

    Attributes:
        name: Its name.
        operation: The operation itself.
        written: Arguments that it writes into, by place and name.
        drawing: Whether it takes a random generator.
        numbers: Places of tensors for which torch hands numbers over that the operation does not take back.
        returns: How many results it has.
    """

    def __init__(self, operation: Any):
        schema = operation._schema
        self.name = schema.name.removeprefix("aten::")
        self.operation = operation
        self.written = [(i, argument.name) for i, argument in enumerate(schema.arguments) if argument.is_write]
        self.drawing = any(argument.name == "generator" for argument in schema.arguments)
        takes = torch._C._should_allow_numbers_as_tensors(self.name)
        tensors = [i for i, argument in enumerate(schema.arguments) if str(argument.type) == "Tensor"]
        self.numbers = [] if takes else tensors
        self.returns = len(schema.returns)

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run it on the CPU's kernel."""
        given = _Given()
        cpu = [given.translated(value) for value in args]
        named = {key: given.translated(value) for key, value in kwargs.items()}
        _check(self.name, given)
        for i in self.numbers:
            if i < len(cpu) and isinstance(cpu[i], (bool, int, float)):
                like = next(value for value in cpu if isinstance(value, torch.Tensor))
                cpu[i] = torch.scalar_tensor(cpu[i], dtype=like.dtype)
        if self.drawing and named.get("generator") is None:
            named["generator"] = backend.generator
        if not self.written:
            return _to_device(self.operation(*cpu, **named))
        out = [args[i] if i < len(args) else kwargs.get(name) for i, name in self.written]
        resized = []
        for (i, name), target in zip(self.written, out, strict=True):
            if _on_device(target) and (target.numel() == 0 or self.name == "resize_"):
                # The kernel gives it another size, which the memory it shares cannot have.
                own = _to_cpu(target).clone()
                resized.append((target, own))
                if i < len(args):
                    cpu[i] = own
                else:
                    named[name] = own
        self.operation(*cpu, **named)
        for target, own in resized:
            target.data = _to_device(own)
        return None if not self.returns else out[0] if self.returns == 1 else tuple(out)


_kernel = functools.cache(_Kernel)


def _run(operation: Any, *args: Any, **kwargs: Any) -> Any:
    """Run an operation; torch calls this for every operation on the device."""
    kernel = _kernel(operation)
    if kernel.name == "_copy_from":
        return _copy(*args)
    if kernel.name == "_fused_sdp_choice":
        return 0  # attention by plain operations: fused kernels have names of their own for each device
    return kernel(args, kwargs)


def _check(name: str, given: _Given) -> None:
    """Refuse what a GPU refuses, and count what it waits for."""
    if given.here and given.there:
        if name not in _MIXING:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found {NAME} and cpu")
        uploads[name] += len(given.there)
    if given.generator is not None and given.generator is not backend.generator:
        raise RuntimeError(f"{name}: expected a {NAME!r} device type for generator but found 'cpu'")
    # Indexing asks for the places of a mask's True by itself; filling them asks where each gets a value of its own.
    filled = name == "_index_put_impl_" and given.here[-1].numel() > 1
    if name in _WAITING or (filled and any(tensor.dtype == torch.bool for tensor in given.here[1:-1])):
        waits[name] += 1


def _copy(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    if not _on_device(target):
        waits["copy to the host"] += 1
    elif not _on_device(source):
        uploads["copy to the device"] += 1
    _to_cpu(target).copy_(_to_cpu(source))
    return target


def _convolution(*args: Any) -> torch.Tensor:
    return _to_device(torch.ops.aten.convolution(*map(_to_cpu, args)))


def _convolution_backward(gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, *options: Any) -> Any:
    *shape, groups, wanted = options
    bias = [weight.shape[1] * groups if shape[3] else weight.shape[0]]
    cpu = [_to_cpu(tensor) for tensor in (gradient, x, weight)]
    found = torch.ops.aten.convolution_backward(*cpu, bias, *shape, groups, wanted)
    return tuple(_to_device(tensor) for tensor in found)


@functools.cache
def register() -> torch.device:
    """Give torch the device, which it keeps until the process ends.

    Call it before the first backward pass of the process: torch counts the devices then.

    Returns:
        The device.
    """

    class Hook(torch._C._acc.PrivateUse1Hooks):
        def is_available(self) -> bool:
            return True

        def is_built(self) -> bool:
            return True

        def has_primary_context(self, device: int) -> bool:
            return True

    class Guard(torch._C._acc.DeviceGuard):
        def type_(self) -> Any:
            return torch._C._autograd.DeviceType.PrivateUse1

    backend_registration._setup_privateuseone_for_python_backend(NAME, backend, Hook(), Guard())
    _LIBRARIES.append(torch.library.Library("_", "IMPL"))
    _LIBRARIES[-1].fallback(_run, "PrivateUse1")
    _LIBRARIES.append(torch.library.Library("aten", "IMPL"))
    _LIBRARIES[-1].impl("convolution_overrideable", _convolution, "PrivateUse1")
    _LIBRARIES[-1].impl("convolution_backward_overrideable", _convolution_backward, "PrivateUse1")
    torch.Tensor.__deepcopy__ = _copied  # torch copies the storage, which has no allocator here
    return torch.device(NAME, 0)


_LIBRARIES: list[torch.library.Library] = []  # what they register lasts as long as they do
_deepcopy = torch.Tensor.__deepcopy__


def _copied(tensor: torch.Tensor, memo: dict[int, Any]) -> Any:
    if not _on_device(tensor) or not tensor.is_leaf:
        return _deepcopy(tensor, memo)
    if id(tensor) not in memo:
        copy = tensor.detach().clone()
        if isinstance(tensor, torch.nn.Parameter):
            copy = torch.nn.Parameter(copy, tensor.requires_grad)
        memo[id(tensor)] = copy.requires_grad_(tensor.requires_grad)
    return memo[id(tensor)]


@contextlib.contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count the waits within.

    Yields:
        How often each operation made the host wait; complete on leaving.
    """
    before, found = waits.copy(), Counter[str]()
    try:
        yield found
    finally:
        found.update(waits - before)
