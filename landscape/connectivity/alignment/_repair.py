"""Reset the activation statistics of an interpolated network, which averaging shrinks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from landscape._errors import MeasurementError
from landscape._private import ConvTranspose
from landscape.averaging._batchnorm import batchnorm_layers, recompute_batchnorm
from landscape.connectivity._ends import check_same_architecture
from landscape.objective import Objective

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def repair(
    model_a: nn.Module,
    model_b: nn.Module,
    loss_fn: Callable[..., Any],
    batches: Iterable[Any],
    t: float = 0.5,
) -> nn.Module:
    """Interpolate two aligned networks and give every unit the mean and spread that it has in between.

    Units of (1−t) w_a + t w_b vary less than those of either end, the more the deeper. With μ and σ the mean and
    standard deviation of a unit's output before activation over all examples, weight and bias of each layer are
    rescaled so that μ = (1−t) μ_a + t μ_b and σ = (1−t) σ_a + t σ_b, layer after layer in the order of computation,
    each with those before it already reset. The last layer stays. Batch-normalisation statistics are recomputed on the
    way: where one follows every layer, that is all that changes the function.

    Reset are linear and convolutional layers with a bias that are called once and share their weights with none.

    Args:
        model_a: The network at t = 0; not changed.
        model_b: The network at t = 1, aligned to it; not changed.
        loss_fn: The loss, `loss_fn(model(input), target)`, through which the networks are run.
        batches: Iterable of (input, target) training batches.
        t: Where between the two, in [0, 1].

    Returns:
        A new network, in eval mode.

    Raises:
        MeasurementError: A statistic is not finite.
        ValueError: The models differ in architecture, or t is outside [0, 1].

    Source: Jordan et al. 2022, arXiv:2211.08403, who add normalisation layers and fold them in, to the same effect.

    Where we differ: statistics are exact over the given examples, not of one batch; a unit that never varies keeps its
    weights and gets its mean.
    """
    if not 0 <= t <= 1:
        raise ValueError(f"t is {t}; it must lie between 0 and 1")
    check_same_architecture(model_a, model_b)
    held = list(batches)
    mixed = copy.deepcopy(model_a)
    theirs = dict(model_b.named_parameters()) | dict(model_b.named_buffers())
    with torch.no_grad():
        for name, tensor in (*mixed.named_parameters(), *mixed.named_buffers()):
            if tensor.is_floating_point():
                tensor.copy_((1 - t) * tensor + t * theirs[name].to(tensor))
    ends = [_statistics(model, loss_fn, held) for model in (model_a, model_b)]
    _renew_batchnorm(mixed, loss_fn, held)
    for name in _order(mixed, loss_fn, held):
        mean, spread = _statistics(mixed, loss_fn, held, [name])[name]
        wanted = [(1 - t) * a + t * b for a, b in zip(ends[0][name], ends[1][name], strict=True)]
        _rescale(mixed.get_submodule(name), mean, spread, wanted[0], wanted[1])
        _renew_batchnorm(mixed, loss_fn, held)
    return mixed.eval()


def _renew_batchnorm(model: nn.Module, loss_fn: Callable[..., Any], batches: list[Any]) -> None:
    if batchnorm_layers(model):
        model.load_state_dict(recompute_batchnorm(Objective(model, loss_fn, batches)), strict=False)


def _rescale(layer: Any, mean: Any, spread: Any, wanted_mean: Any, wanted_spread: Any) -> None:
    factor = torch.where(spread > 0, wanted_spread / spread, torch.ones_like(spread))
    axis = 1 if isinstance(layer, ConvTranspose) else 0
    shape = [1] * layer.weight.ndim
    shape[axis] = -1
    with torch.no_grad():
        bias = wanted_mean + factor * (layer.bias.double() - mean)
        layer.weight.mul_(factor.to(layer.weight).reshape(shape))
        layer.bias.copy_(bias.to(layer.bias))


def _order(model: nn.Module, loss_fn: Callable[..., Any], batches: list[Any]) -> list[str]:
    """Return the layers to be reset in the order of computation: all but the last."""
    calls: list[str] = []
    _run(model, loss_fn, batches[:1], lambda name, _: calls.append(name))
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    layers = {name: model.get_submodule(name) for name in dict.fromkeys(calls)}
    resettable = [
        name
        for name, layer in layers.items()
        if calls.count(name) == 1
        and layer.bias is not None
        and all(owners[id(parameter)] == 1 for parameter in layer.parameters())
        and not (isinstance(layer, ConvTranspose) and layer.groups > 1)
    ]
    return [name for name in resettable if name != calls[-1]]


def _statistics(
    model: nn.Module, loss_fn: Callable[..., Any], batches: list[Any], names: list[str] | None = None
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return mean and standard deviation of each unit of each layer, by name, over all examples and positions."""
    sums: dict[str, list[Any]] = {}

    def look(name: str, units: torch.Tensor) -> None:
        if names is not None and name not in names:
            return
        rows = units.detach().double()
        total = sums.setdefault(name, [0, 0.0, 0.0, rows.mean(0)])
        shifted = rows - total[3]
        total[0] += len(rows)
        total[1] = total[1] + shifted.sum(0)
        total[2] = total[2] + shifted.square().sum(0)

    _run(model, loss_fn, batches, look)
    found = {}
    for name, (count, first, second, shift) in sums.items():
        mean = first / count
        variance = (second / count - mean**2).clamp(min=0)
        if not bool(torch.isfinite(variance).all()):
            raise MeasurementError(
                f"the outputs of the layer {name!r} are not finite, so they have no statistics to reset"
            )
        found[name] = (mean + shift, variance.sqrt())
    return found


def _run(
    model: nn.Module, loss_fn: Callable[..., Any], batches: list[Any], look: Callable[[str, torch.Tensor], None]
) -> None:
    objective = Objective(model, loss_fn, batches)
    hooks = []
    with objective.session(), objective.without_graph():
        for name, layer in model.named_modules():
            if isinstance(layer, _LAYERS):
                axis = -1 if isinstance(layer, nn.Linear) else 1

                def watch(_: nn.Module, args: Any, output: torch.Tensor, name: str = name, axis: int = axis) -> None:
                    look(name, output.movedim(axis, -1).flatten(0, -2))

                hooks.append(layer.register_forward_hook(watch))
        try:
            for index in objective.evaluated:
                objective.batch_loss(index, objective.present())
        finally:
            for hook in hooks:
                hook.remove()
