"""Place values of tensors and layers on the axes that a group was declared with.

An axis is declared once, with all parameters of the module; which of them train may change from event to event. Values
are placed by name. A tensor that does not train now has NaN, and one without a place fails the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from landscape._errors import MeasurementError
from landscape._layout import ParameterLayout, plain_name
from landscape._selection import modules
from landscape.callbacks._resuming import find_former
from landscape.callbacks._trained import trainable_layout
from landscape.record import Variable, open_run

if TYPE_CHECKING:
    from landscape.callbacks._base import LandscapeCallback

_RENAMED = ".parametrizations."


def tensor_labels(module: nn.Module) -> tuple[str, ...]:
    """Return the labels of an axis of tensors: all parameters, frozen ones too, as the uncompiled module names them."""
    return tuple(plain_name(name) for name, _ in module.named_parameters())


def layer_labels(module: nn.Module) -> tuple[str, ...]:
    """Return the labels of an axis of layers: the modules that hold parameters."""
    return tuple(modules(ParameterLayout(tensor_labels(module), ((),) * len(tensor_labels(module)))))


def flat_layout(callback: LandscapeCallback, trainer: Any, module: nn.Module) -> ParameterLayout:
    """Return the tensors behind the flat vectors of a run file: those that trained when the run began.

    Args:
        callback: Whose file is meant.
        trainer: Its Trainer, which may resume a run.
        module: The module as the training starts.

    Returns:
        The layout, by plain names.
    """
    former = find_former(callback, trainer) if trainer is not None else {}
    path = former.get("path")
    recorded = None if path is None else open_run(path).layout
    return trainable_layout(module) if recorded is None else recorded


def without_vectors(
    row: dict[str, Any], names: Sequence[str], now: ParameterLayout, declared: ParameterLayout
) -> dict[str, Any]:
    """Leave the flat vectors out of a row where other parameters train than the group was declared for.

    Args:
        row: The row.
        names: Its variables that are flat vectors.
        now: The parameters that train now.
        declared: Those that the vectors of the group are laid out for.

    Returns:
        The row; where vectors are left out, `reason` says so.
    """
    if now.plain() == declared:
        return row
    said = f"{', '.join(names)} left out: other parameters train than those that the file's flat vectors hold"
    return {name: value for name, value in row.items() if name not in names} | {"reason": said}


def on_axis(values: Any, names: Sequence[str], labels: Sequence[str], axis: int = -1) -> np.ndarray:
    """Spread values along an axis of tensors or layers.

    A tensor that pruning or a parametrization renamed takes the place of its former name.

    Args:
        values: One for each name along `axis`; floats, or int8 flags.
        names: Names of the tensors or layers that were measured.
        labels: Names that the axis was declared with.
        axis: Which axis of the values.

    Returns:
        Values along the labels; NaN, or -1 for flags, where nothing was measured.

    Raises:
        MeasurementError: A name has no place of its own.
    """
    values = np.moveaxis(np.asarray(values), axis, 0)
    places = [_place(plain_name(f"{name}.")[:-1], labels) for name in names]
    if len(set(places)) < len(places):
        raise MeasurementError(
            f"several of {', '.join(names)} take the same place on the axis that this group was declared with, since "
            "the module was changed in the training; change it before the training starts"
        )
    spread = np.full((len(labels), *values.shape[1:]), np.nan if values.dtype.kind == "f" else -1, values.dtype)
    spread[places] = values
    return np.moveaxis(spread, 0, axis)


def _place(name: str, labels: Sequence[str]) -> int:
    for candidate in (name, _former(name)):
        if candidate in labels:
            return list(labels).index(candidate)
    raise MeasurementError(
        f"{name!r} trains now, and was no part of the module when this group was declared, so it has no place on the "
        "group's axis; add it to the module before the training starts, or measure it in a run of its own"
    )


def _former(name: str) -> str:
    """Return the name of a tensor or layer before `torch.nn.utils.prune` or `parametrize` changed it."""
    owner, renamed, rest = name.partition(_RENAMED)
    if renamed and "." in rest:
        return f"{owner}.{rest.removesuffix('.original')}"
    return owner if renamed else name.removesuffix("_orig")


def over_examples(name: str, dims: tuple[str, ...] = ()) -> Variable:
    """Return the variable that holds the standard error of another over examples."""
    text = f"standard error of {name} over examples, from the batches' parts; NaN with a single batch"
    return Variable(f"{name}_stderr_sample", dims, description=text)


def flat_by_name(anchor: dict[str, torch.Tensor], layout: ParameterLayout, since: int) -> torch.Tensor:
    """Return the weights of a former epoch in the order of those that train now.

    Args:
        anchor: The weights by name; a flat vector stands under the empty name.
        layout: The parameters that train now.
        since: The epoch.

    Returns:
        A flat vector, shape (P,).

    Raises:
        MeasurementError: Other parameters train now.
    """
    if set(anchor) == {""} and len(anchor[""]) == layout.total:
        return anchor[""]
    now, then = dict(zip(layout.names, layout.shapes, strict=True)), {n: tuple(p.shape) for n, p in anchor.items()}
    if now != then:
        other = sorted(set(now.items()) ^ set(then.items()))[0][0]
        raise MeasurementError(
            f"other parameters train now than after epoch {since} ({other!r} is one that differs), so no path through "
            "them joins the two; choose since= after the last change, or give another solution with other="
        )
    return torch.cat([anchor[name].reshape(-1) for name in layout.names])
