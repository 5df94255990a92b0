"""What a measure was given: the usual mix-ups of model, objective and operator, told in a sentence."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from torch import nn

P = ParamSpec("P")
R = TypeVar("R")

_TO_OBJECTIVE = "Objective(model, loss_fn, batches) or Objective.from_lightning(module, batches)"


def of_objective(measure: Callable[P, R]) -> Callable[P, R]:
    """Let a measure whose first argument is an objective refuse a model or an operator with advice.

    Args:
        measure: The function.

    Returns:
        The same function with the check before it, which raises a TypeError.
    """

    @functools.wraps(measure)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        given = args[0] if args else kwargs.get("objective")
        if isinstance(given, nn.Module):
            raise TypeError(
                f"{measure.__name__} was given a {type(given).__name__}, which has no loss of its own; give it an "
                f"objective: {_TO_OBJECTIVE}"
            )
        if hasattr(given, "n_matvecs"):
            raise TypeError(f"{measure.__name__} was given a {type(given).__name__}; give it the objective itself")
        return measure(*args, **kwargs)

    return checked


def of_operator(measure: Callable[P, R]) -> Callable[P, R]:
    """Let a measure whose first argument is an operator refuse a model or an objective with advice.

    Args:
        measure: The function.

    Returns:
        The same function with the check before it, which raises a TypeError.
    """

    @functools.wraps(measure)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        given = args[0] if args else kwargs.get("operator")
        if isinstance(given, nn.Module) or hasattr(given, "batch_loss"):
            inner = "objective" if hasattr(given, "batch_loss") else _TO_OBJECTIVE
            raise TypeError(
                f"{measure.__name__} was given a {type(given).__name__}, but measures an operator; give it for "
                f"example hessian({inner}), or ggn or fisher of it"
            )
        return measure(*args, **kwargs)

    return checked
