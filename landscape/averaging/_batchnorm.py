"""Batch-normalisation statistics for weights that no training step has visited: averages, and points on a path."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from landscape._errors import MeasurementError
from landscape._given import of_objective
from landscape._private import BatchNorm
from landscape.objective import Objective


@of_objective
def recompute_batchnorm(
    objective: Objective,
    vector: torch.Tensor | None = None,
    buffers: dict[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """Compute the running mean and variance of every batch normalisation over all measured examples.

    Over batches b with n_b values a channel, mean m_b and (biased) variance v_b,

    running_mean = M = Σ n_b m_b / N,   running_var = Σ n_b (v_b + (m_b − M)²) / (N − 1),   N = Σ n_b.

    Layers normalise by the statistics of the batch while they are measured, as in training; everything else (dropout
    first of all) is in eval mode. So the first layer's statistics do not depend on how the examples are cut into
    batches; those of deeper layers do, as in training. The sums are in float64.

    Covered are all layers derived from torch's batch normalisations that track statistics. The model is not changed.

    Args:
        objective: The loss over the examples to take the statistics of: training examples.
        vector: Flat parameters, shape (P,); by default the model's present ones.
        buffers: Other buffers to substitute by name.

    Returns:
        Tensors by buffer name, for `objective.evaluate(vector, buffers=...)` or, as they are,
        `model.load_state_dict(..., strict=False)`. Empty where the model has no such layer; a layer that the loss does
        not reach is left out.

    Raises:
        MeasurementError: A batch leaves one value a channel, which has no variance.

    Source: Izmailov et al. 2018, arXiv:1803.05407. `torch.optim.swa_utils.update_bn` weighs every batch equally,
    averages the variances within batches without that between them, and leaves dropout on.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> model = torch.nn.BatchNorm1d(1, affine=True)
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> recompute_batchnorm(Objective(model, torch.nn.MSELoss(), [(x[:2], x[:2]), (x[1:], x[1:])]))
        {'running_mean': tensor([2.]), 'running_var': tensor([0.6667])}
    """
    if not batchnorm_layers(objective.module):
        return {}
    pools: dict[str, _Pool] = {}

    def collect(name: str, channels: torch.Tensor) -> None:
        count = channels.shape[1]
        variance, mean = torch.var_mean(channels.detach().double(), dim=1, correction=0)
        if name in pools:
            pools[name].add(_Pool(count, mean, variance * count))
        else:
            pools[name] = _Pool(count, mean, variance * count)

    with objective.session(), objective.without_graph(), batch_statistics(objective.module, collect):
        point = objective.vector() if vector is None else torch.as_tensor(vector).to(objective.device, objective.dtype)
        parameters = objective.present(point)
        with objective.processes.summed():
            for index in objective.evaluated:
                objective.batch_loss(index, parameters, buffers)
    statistics = {}
    own = {name: _Pool(pool.count, pool.mean.cpu(), pool.squares.cpu()) for name, pool in pools.items()}
    for name, pool in _joined(objective.processes.gather(own)).items():
        prefix = f"{name}." if name else ""
        statistics[f"{prefix}running_mean"] = pool.mean.to(objective.device, objective.dtype)
        statistics[f"{prefix}running_var"] = (pool.squares / (pool.count - 1)).to(objective.device, objective.dtype)
    return statistics


def batchnorm_layers(module: nn.Module) -> dict[str, BatchNorm]:
    """Return the batch normalisations that track statistics, by their qualified names."""
    return {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, BatchNorm) and part.track_running_stats and part.running_mean is not None
    }


@contextlib.contextmanager
def batch_statistics(module: nn.Module, look: Callable[[str, torch.Tensor], None] | None = None) -> Iterator[None]:
    """Let only the batch normalisations run as in training (each by its batch's statistics), all else in eval mode.

    Call it within an objective's session, so that what the layers track meanwhile lands in copies. A batch that leaves
    a layer with one value a channel raises a MeasurementError when it comes.

    Args:
        module: The measured module.
        look: Called with the name of a layer and its input, shape (channels, values), whenever it is reached.

    Yields:
        Nothing.
    """
    flags = [(part, part.training) for part in module.modules()]
    with contextlib.ExitStack() as stack:
        stack.callback(_set_flags, flags)
        _set_flags([(part, False) for part, _ in flags])
        for name, layer in batchnorm_layers(module).items():
            layer.training = True
            stack.callback(layer.register_forward_pre_hook(_watcher(name, look), with_kwargs=True).remove)
        yield


def _set_flags(flags: list[tuple[nn.Module, bool]]) -> None:
    for part, training in flags:
        part.training = training


def _watcher(name: str, look: Callable[[str, torch.Tensor], None] | None) -> Any:
    def watch(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        values = args[0] if args else kwargs["input"]
        channels = values.transpose(0, 1).flatten(1)
        if channels.shape[1] < 2:
            raise MeasurementError(
                f"a measurement batch leaves {channels.shape[1]} value a channel at the batch normalisation "
                f"{name or 'layer'!r}, which has no variance; give batches of at least two examples"
            )
        if look is not None:
            look(name, channels)

    return watch


@dataclasses.dataclass
class _Pool:
    """Values seen by one layer: their number a channel, mean, and sum of squared distances from it."""

    count: int
    mean: torch.Tensor
    squares: torch.Tensor

    def add(self, other: _Pool) -> None:
        """Join another group by the law of total variance (Chan, Golub & LeVeque 1979)."""
        total = self.count + other.count
        shift = other.mean - self.mean
        self.squares = self.squares + other.squares + shift**2 * (self.count * other.count / total)
        self.mean = self.mean + shift * (other.count / total)
        self.count = total


def _joined(shares: list[dict[str, _Pool]]) -> dict[str, _Pool]:
    """Join what several processes have seen, in their order; the layers in the order of who met most of them."""
    pools: dict[str, _Pool] = {}
    for share in shares:
        for name, pool in share.items():
            if name in pools:
                pools[name].add(pool)
            else:
                pools[name] = pool
    return pools
