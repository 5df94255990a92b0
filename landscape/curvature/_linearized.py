"""Hessian-vector products from a recorded forward-over-reverse derivative, interpreted or compiled."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

from landscape._errors import MeasurementError, words_of
from landscape._loss_functions import with_lost_weight
from landscape._private import weight_norm_function
from landscape._twice import weight_norm
from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._products import Reader
from landscape.curvature._readings import Readings
from landscape.objective import Objective


class LinearizedHessian(SymmetricOperator):
    """The derivative of the gradient at fixed parameters, traced once by `torch.func.linearize`.

    All that does not depend on the vector is folded into constants. On a convolutional network of 95k parameters a
    product took 0.8 of the time of one on the retained graph, and the 1.8 s of tracing were paid back after 130
    products; on a transformer of 1.1M it took 1.4 times as long, and 1.1 times as long when compiled (for 93 s). So it
    is never chosen by itself.

    Memory: the constants (about the activations and first-derivative graph of all measured examples).
    """

    def __init__(self, objective: Objective, vector: torch.Tensor | None = None, compiled: bool = False):
        super().__init__(objective.n_parameters, objective.dtype, objective.device, objective.layout)
        if objective.noise_seed is not None:
            raise MeasurementError(
                "a trace of the derivative would draw new random numbers at every product, but the objective fixes "
                f"them (noise_seed={objective.noise_seed}); use strategy='auto'"
            )
        self._compiled = compiled
        self._processes = objective.processes
        self.strategy = "linearized and compiled" if compiled else "linearized"
        self._unflatten = objective.layout.unflatten
        self.clusters = objective.clusters
        self._shares: list[tuple[int, Callable[..., Sequence[torch.Tensor]]]] = []
        point = objective.vector() if vector is None else torch.as_tensor(vector).detach().clone()
        point = point.to(self.device, self.dtype)
        parameters = [part.clone() for part in self._unflatten(point)]
        with objective.session():
            loss = objective.loss_and_gradient(point)[0]  # refuses a loss without parameters, as others do
            with self._processes.summed():
                for index in objective.counted:
                    share = _derivative(objective, index, objective.batch_weights[index], parameters)
                    self._shares.append((index, share))
        if not torch.isfinite(loss):
            raise MeasurementError(
                f"the loss on the measured examples is {float(loss)}, so it has no curvature; "
                "look at the weights, the learning rate and the data"
            )
        if compiled:
            with _own_warnings_ignored():
                self._shares = [(index, torch.compile(share)) for index, share in self._shares]
                self._matvec(torch.zeros_like(point))  # compiles

    def _matvec(self, vector: torch.Tensor) -> torch.Tensor:
        return self._sum(vector, Readings(None, None))

    def _by_batch(
        self, block: torch.Tensor, read: Reader, shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        readings = Readings(self.clusters, read, block.new_empty((0, *shape)))
        return self._sum(block, readings), readings.found

    def _sum(self, block: torch.Tensor, readings: Readings) -> torch.Tensor:
        total = torch.zeros_like(block.movedim(0, -1))
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._processes.summed(total, *readings.shared))
            stack.enter_context(torch.no_grad())
            if self._compiled:  # a session makes everything run eagerly, for the sake of the model
                stack.enter_context(torch.compiler.set_stance("default"))
            for index, share in self._shares:
                readings.next(index, total)
                for row, vector in zip(torch.atleast_2d(total), torch.atleast_2d(block.movedim(0, -1)), strict=True):
                    parts = [part.contiguous() for part in self._unflatten(vector)]
                    row += torch.cat([product.reshape(-1) for product in share(parts)])
            readings.end(total)
        return total.movedim(0, -1)


def _derivative(
    objective: Objective, index: int, weight: float, parameters: list[torch.Tensor]
) -> Callable[..., Sequence[torch.Tensor]]:
    def gradient(at: list[torch.Tensor]) -> list[torch.Tensor]:
        return torch.func.grad(lambda tensors: weight * objective.batch_loss(index, tensors))(at)

    try:
        with _own_warnings_ignored(), _WrittenOut():
            return torch.func.linearize(gradient, parameters)[1]
    except (RuntimeError, TypeError, ValueError) as error:
        raise MeasurementError(
            f"{type(objective.module).__name__} cannot be traced: {words_of(error)}. Use strategy='auto', which "
            "runs the model as it is"
        ) from error


@contextlib.contextmanager
def _own_warnings_ignored() -> Iterator[None]:
    """Torch warns of its own ways: of constants that it registers a moment later, and of old parts of its tracer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)  # torch 2.14's own
        warnings.filterwarnings("ignore", message="Attempted to insert a get_attr Node")
        yield


class _WrittenOut(TorchFunctionMode):
    """Replaces operations that cannot be traced right.

    Tracing the derivative of torch's own `mse_loss` kills the process (torch 2.13), and the second derivative of
    weight_norm is wrong.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _WRITTEN_OUT.get(func, func)(*args, **with_lost_weight(func, kwargs or {}))


def _squared_error(
    input: torch.Tensor,  # noqa: A002 (the name that callers may use)
    target: torch.Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    if size_average is not None or reduce is not None:  # the names of old versions
        reduction = "none" if reduce is False else ("sum" if size_average is False else "mean")
    squares = (input - target) ** 2
    if weight is not None:
        squares = squares * weight
    if reduction != "mean":
        return squares if reduction == "none" else squares.sum()
    return squares.mean() if weight is None else squares.sum() / weight.sum()


_WRITTEN_OUT: dict[Any, Callable[..., torch.Tensor]] = {F.mse_loss: _squared_error, weight_norm_function(): weight_norm}
