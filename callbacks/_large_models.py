"""Keep the curvature of large models within memory that nobody has named."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

from landscape._errors import MeasurementError
from landscape._graph import saved_bytes
from landscape._groups import cut
from landscape._memory import budget_bytes
from landscape.curvature._batchwise import MEMORY_BUDGET
from landscape.objective import Objective

_LEAST, _VECTORS = 2**30, 8  # bytes, and vectors of the parameters' length
_LARGE = 10**7  # parameters from which batches are cut
# A product holds about four times what the graph of the loss saves; it may take a sixth of the budget.
_TWICE, _SHARE = 4, 6


def unasked_budget(objective: Objective) -> int:
    """Return the bytes that vectors may take where no budget is given: 1 GiB, or 8 vectors of larger models.

    Less where less is free.

    Args:
        objective: The measured loss.

    Returns:
        Bytes.
    """
    most = max(_LEAST, _VECTORS * objective.n_parameters * objective.dtype.itemsize)
    try:
        free = budget_bytes("auto", objective.device)
    except MeasurementError:  # a device that does not tell
        return most
    assert free is not None
    return min(most, max(free, 1))


def graphs_budget(objective: Objective, memory_budget: int) -> int:
    """Return the bytes that kept graphs may take where no budget is given: of large models a sixth of the vectors'."""
    return MEMORY_BUDGET if objective.n_parameters < _LARGE else memory_budget // _SHARE


def give_back(objective: Objective) -> None:
    """Return memory that was freed to the system: the C library keeps up to four times the weights of a large model.

    Args:
        objective: The measured loss.
    """
    if objective.n_parameters >= _LARGE and objective.device.type == "cpu":
        _trim()(0)


@functools.cache
def _trim() -> Callable[[int], int]:
    # glibc alone has this function; other C libraries decide by themselves.
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, TypeError, AttributeError):
        return lambda _: 0
    return found


def fitting(objective: Objective, memory_budget: int) -> Objective:
    """Cut the batches of a large model so that the graphs of a product stay small beside a budget.

    Args:
        objective: The loss; call within its session.
        memory_budget: The budget in bytes.

    Returns:
        The objective itself below ten million parameters, and where its batches are small enough or cannot be cut.
    """
    if objective.n_parameters < _LARGE:
        return objective
    index = max(objective.counted, key=lambda index: objective.batch_sizes[index])
    parameters = [part.requires_grad_() for part in objective.layout.unflatten(objective.vector())]
    with objective.same_kernels():
        saved = saved_bytes([objective.batch_loss(index, parameters)], parameters)
    pieces = -(-_TWICE * saved * _SHARE // memory_budget)
    return cut(objective, max(objective.batch_sizes[index] // pieces, 1)) if pieces > 1 else objective
