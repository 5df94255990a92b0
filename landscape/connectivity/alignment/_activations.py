"""Activation matching: the permutations that pair units which respond alike to the same examples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import fx, nn

from landscape.connectivity.alignment._assignment import Similarity
from landscape.connectivity.alignment._graph import input_of
from landscape.connectivity.alignment._spec import Permutation, PermutationSpec
from landscape.connectivity.alignment._trace import Probe
from landscape.isolation import isolated


class _Moments:
    """Sums behind the correlation of two networks' activations, over all examples and positions."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: list[Any] = [0.0, 0.0]
        self.squares: list[Any] = [0.0, 0.0]
        self.products: Any = 0.0

    def add(self, ours: torch.Tensor, theirs: torch.Tensor) -> None:
        """Add activations of shape (examples, units)."""
        if not self.count:  # about a first mean, so that large means do not swamp the variances
            self.shift = [ours.mean(0), theirs.mean(0)]
        both = [each - shift for each, shift in zip((ours, theirs), self.shift, strict=True)]
        self.count += len(ours)
        self.sums = [total + each.sum(0) for total, each in zip(self.sums, both, strict=True)]
        self.squares = [total + (each**2).sum(0) for total, each in zip(self.squares, both, strict=True)]
        self.products = self.products + both[0].T @ both[1]

    def correlation(self) -> np.ndarray:
        """Return the correlations, shape (units, units); 0 with a unit that never changes."""
        means = [total / self.count for total in self.sums]
        deviations = [
            (square / self.count - mean**2).clamp(min=0).sqrt()
            for square, mean in zip(self.squares, means, strict=True)
        ]
        covariance = self.products / self.count - means[0][:, None] * means[1]
        scale = deviations[0][:, None] * deviations[1]
        tiny = 1e-12 * max(float(scale.max()), 1e-300)
        # A NaN activation must stay one: only what is truly constant is put to zero.
        return torch.where(scale <= tiny, torch.zeros_like(covariance), covariance / scale).cpu().numpy()


def match_activations(
    spec: PermutationSpec,
    probes: Iterable[Probe],
    graphs: tuple[fx.GraphModule, fx.GraphModule],
    models: tuple[nn.Module, nn.Module],
    batches: Iterable[Any],
) -> tuple[dict[str, Permutation], tuple[str, ...]]:
    """Maximise the sum of correlations of paired units, over all examples and positions.

    A unit is looked at where the next layer takes it in: after activation and normalisation. A group that shows at
    several places (a residual stream) is paired by the sum over all.

    Memory: n² numbers for a place that shows n units.

    Args:
        spec: The symmetries, fitted.
        probes: Where units can be seen.
        graphs: The network that stays, and the one to be permuted, as graphs.
        models: The same as modules.
        batches: The examples.

    Returns:
        A permutation for each group that was seen, and the names of those that were not.

    Source: Li et al. 2016, arXiv:1511.07543; Ainsworth et al. 2023, arXiv:2209.04836, section 3.1.
    """
    probes = list(probes)
    moments = {probe: _Moments() for probe in probes}
    with isolated(models[0]), isolated(models[1]), torch.no_grad():
        for model in models:
            for module in model.modules():
                module.training = False
        for batch in batches:
            runs = [_run(graph, probes, batch, model) for graph, model in zip(graphs, models, strict=True)]
            for probe in probes:
                moments[probe].add(runs[0][probe], runs[1][probe])
    similarities = {group: Similarity(size, spec.families[group]) for group, size in spec.sizes.items()}
    seen = set()
    for probe in probes:
        correlations, offset = moments[probe].correlation(), 0
        for part in probe.parts:
            assert part.length is not None
            here = slice(offset, offset + part.length)
            offset += part.length
            if part.group is not None and part.group in similarities:
                similarities[part.group].add_products(correlations[here, here], part.repeat, part.inner)
                seen.add(part.group)
    found = {group: similarities[group].best() for group in spec.groups if group in seen}
    return found, tuple(group for group in spec.groups if group not in seen)


def _run(graph: fx.GraphModule, probes: list[Probe], batch: Any, model: nn.Module) -> dict[Probe, torch.Tensor]:
    wanted: dict[str, list[Probe]] = {}
    for probe in probes:
        wanted.setdefault(probe.node, []).append(probe)
    found: dict[Probe, torch.Tensor] = {}

    class Watcher(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            for probe in wanted.get(n.name, ()):
                found[probe] = _rows(value, probe, model)
            return value

    tensor = next(iter((*model.parameters(), *model.buffers())))
    inputs = input_of(batch)
    Watcher(graph).run(inputs.to(tensor.device) if isinstance(inputs, torch.Tensor) else inputs)
    return found


def _rows(value: torch.Tensor, probe: Probe, model: nn.Module) -> torch.Tensor:
    if probe.attention is not None:
        layer = model.get_submodule(probe.attention)
        assert isinstance(layer, nn.MultiheadAttention)
        value = F.linear(value, layer.in_proj_weight, layer.in_proj_bias)
    return value.detach().double().movedim(probe.axis, -1).reshape(-1, value.shape[probe.axis])
