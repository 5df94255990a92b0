"""Check what a measure or an objective was given, and explain the common mistakes."""

from __future__ import annotations

import difflib
import functools
import inspect
import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.utils.data import Dataset

from landscape._sharded_models import require_unsharded

P = ParamSpec("P")
R = TypeVar("R")

_TO_OBJECTIVE = "Objective(model, loss_fn, batches) or Objective.from_lightning(module, batches)"
_WHOLE = ("int", "int | None")  # annotations, as `from __future__ import annotations` keeps them


def of_objective(measure: Callable[P, R]) -> Callable[P, R]:
    """Let a measure whose first argument is an objective refuse mistaken arguments with advice.

    Args:
        measure: The function.

    Returns:
        The same function with the check before it. It raises a TypeError for a model or an operator in the place of the
        objective and for an argument that does not exist, a ValueError for a fraction in the place of a whole number.
    """
    signature = inspect.signature(measure)

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
        _check_arguments(measure.__name__, signature, args, kwargs)
        return measure(*args, **kwargs)

    return checked


def of_operator(measure: Callable[P, R]) -> Callable[P, R]:
    """Let a measure whose first argument is an operator refuse mistaken arguments with advice.

    Args:
        measure: The function.

    Returns:
        The same function with the check before it, which raises as that of `of_objective` does.
    """
    signature = inspect.signature(measure)

    @functools.wraps(measure)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        given = args[0] if args else kwargs.get("operator")
        if isinstance(given, nn.Module) or hasattr(given, "batch_loss"):
            inner = "objective" if hasattr(given, "batch_loss") else _TO_OBJECTIVE
            raise TypeError(
                f"{measure.__name__} was given a {type(given).__name__}, but measures an operator; give it for "
                f"example hessian({inner}), or ggn or fisher of it"
            )
        _check_arguments(measure.__name__, signature, args, kwargs)
        return measure(*args, **kwargs)

    return checked


def unknown_argument(owner: str, name: str, known: Iterable[str], kind: str = "argument") -> str:
    """Say that an argument does not exist, and which one is probably meant.

    Args:
        owner: The function, class or measure.
        name: The name that was given.
        known: The names that exist.
        kind: What the names are called.

    Returns:
        The sentence.
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    rest = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
    return f"{owner} has no {kind} {name!r}; {rest}"


def whole(**values: Any) -> None:
    """Check that arguments are whole numbers; None passes.

    Raises:
        ValueError: One is a truth value, a fraction or no number.
    """
    for name, value in values.items():
        if value is None or (isinstance(value, numbers.Integral) and not isinstance(value, bool)):
            continue
        cure = f", such as {int(value)}" if isinstance(value, float) and np.isfinite(value) and value >= 1 else ""
        raise ValueError(f"{name} is {value!r}; it must be a whole number{cure}")


def _check_arguments(name: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    parameters = signature.parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for given in kwargs:
            if given not in parameters:
                raise TypeError(unknown_argument(name, given, list(parameters)[1:]))
    positional = dict(zip(parameters, args, strict=False))
    for key, value in (positional | dict(kwargs)).items():
        if key in parameters and parameters[key].annotation in _WHOLE:
            whole(**{key: value})


# ------------------------------------------------------------------ of an objective


def check_objective_inputs(model: Any, loss_fn: Any, batches: Any) -> None:
    """Check model, loss and batches before anything is evaluated.

    Args:
        model: What should be a module with weights.
        loss_fn: What should be a function of output and target; None where the module brings its own loss.
        batches: What should be an iterable of batches.

    Raises:
        TypeError: One is of another kind; the sentence names the cure.
        MeasurementError: The model's parameters are spread over processes.
    """  # noqa: DOC502 - `require_unsharded` raises it
    _check_model(model)
    if loss_fn is not None:
        _check_loss(loss_fn)
    check_batches(batches)


def _check_model(model: Any) -> None:
    if isinstance(model, type):
        raise TypeError(f"the model is the class {model.__name__}; give an instance: {model.__name__}(...)")
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"the model is of type {type(model).__name__}; give a torch.nn.Module. The order of arguments is "
            "Objective(model, loss_fn, batches)"
        )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise TypeError(
                f"{name} of {type(model).__name__} is on the meta device, so it holds no numbers; build the model on a "
                "real device, or call model.to_empty(device=...) and load its weights"
            )
    require_unsharded(model)


def _check_loss(loss_fn: Any) -> None:
    if isinstance(loss_fn, str):
        close = difflib.get_close_matches(loss_fn.lower(), dir(F), n=1)
        example = close[0] if close else "cross_entropy"
        raise TypeError(
            f"loss_fn is the text {loss_fn!r}; give the function, for example torch.nn.functional.{example}"
        )
    if isinstance(loss_fn, type):
        raise TypeError(f"loss_fn is the class {loss_fn.__name__}; give an instance: {loss_fn.__name__}()")
    if not callable(loss_fn):
        raise TypeError(
            f"loss_fn is of type {type(loss_fn).__name__}, which cannot be called; the order of arguments is "
            "Objective(model, loss_fn, batches)"
        )
    try:
        signature = inspect.signature(loss_fn.forward if isinstance(loss_fn, nn.Module) else loss_fn)
    except (TypeError, ValueError):  # a function of C, which does not tell
        return
    try:
        signature.bind(None, None)
    except TypeError:
        name = getattr(loss_fn, "__name__", type(loss_fn).__name__)
        raise TypeError(
            f"the loss {name}{signature} is called as loss_fn(model(input), target) and does not take these two "
            "arguments; give a function of output and target, such as lambda output, target: ..."
        ) from None


def check_batches(batches: Any) -> None:
    """Check that an argument is an iterable of batches, not one batch or a data set.

    Args:
        batches: The argument.

    Raises:
        TypeError: It is something else; the sentence names the cure.
    """
    if isinstance(batches, Dataset):
        raise TypeError(
            f"batches is the data set {type(batches).__name__}, whose items are single examples; give a loader over "
            "it: torch.utils.data.DataLoader(dataset, batch_size=128)"
        )
    if isinstance(batches, (torch.Tensor, np.ndarray)):
        raise TypeError(f"batches is one array of shape {tuple(batches.shape)}; give a list of batches: [(x, y), ...]")
    if isinstance(batches, (str, Mapping)) or not (hasattr(batches, "__iter__") or hasattr(batches, "__getitem__")):
        raise TypeError(f"batches is of type {type(batches).__name__}; give an iterable of batches, such as [(x, y)]")
    if isinstance(batches, (tuple, list)) and _is_one_pair(batches):
        raise TypeError(
            f"batches is one pair of tensors of shapes {tuple(batches[0].shape)} and {tuple(batches[1].shape)}; give a "
            "list of such pairs: batches=[(x, y)]. Two batches of one tensor each go into a list [x1, x2]"
        )


def check_pair(batch: Any) -> None:
    """Check that a pair of input and target holds a batch whose sizes agree, not a single example.

    Sizes are called different where no dimension of the input has the length of the target, nor a multiple or a divisor
    of its own: sequences may have the time first, and targets may be flattened or grouped.

    Args:
        batch: A batch of `Objective`.

    Raises:
        TypeError: It is a single example, or input and target hold different numbers of examples.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not isinstance(batch[0], torch.Tensor):
        return
    x, y = batch
    alone = isinstance(y, (int, float)) or (isinstance(y, torch.Tensor) and not y.ndim)
    if alone and x.ndim and len(x) > 1:
        raise TypeError(
            f"an item of batches is a pair of an input of shape {tuple(x.shape)} and one number, so it is a single "
            "example; give batches: torch.utils.data.DataLoader(dataset, batch_size=128), or a target for each example"
        )
    if not (isinstance(y, torch.Tensor) and x.ndim and y.ndim):
        return
    examples, targets = len(x), len(y)
    if not examples or not targets or targets in x.shape or not targets % examples or not examples % targets:
        return
    raise TypeError(
        f"a batch pairs an input of shape {tuple(x.shape)} with targets of shape {tuple(y.shape)}, so {examples} "
        f"examples have {targets} targets; give a target for each example"
    )


def _is_one_pair(batches: Any) -> bool:
    if len(batches) != 2 or not all(isinstance(part, torch.Tensor) for part in batches):
        return False
    x, y = batches
    unlike = x.ndim != y.ndim or x.is_floating_point() != y.is_floating_point()
    return isinstance(batches, tuple) or (unlike and x.shape[:1] == y.shape[:1])
