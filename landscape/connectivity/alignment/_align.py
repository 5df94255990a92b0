"""Align one network to another by the permutations that leave its function as it is."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from landscape._errors import MeasurementError
from landscape._private import pytree
from landscape._results import Result
from landscape.connectivity._ends import check_same_architecture
from landscape.connectivity.alignment._activations import match_activations
from landscape.connectivity.alignment._graph import input_of, trace
from landscape.connectivity.alignment._spec import Permutation, PermutationSpec
from landscape.connectivity.alignment._trace import trace_network
from landscape.connectivity.alignment._weights import match_weights
from landscape.isolation import isolated

METHODS = ("weights", "activations")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Alignment(Result):
    """A network with its units reordered to fit another.

    Attributes:
        model: A permuted copy of model_b: the same function, other places in weight space.
        permutations: What was done, by group.
        spec: The symmetries.
        method: "weights" or "activations".
        distance_before: ‖w_a − w_b‖ over the trainable parameters.
        distance: ‖w_a − P(w_b)‖.
        by_weights: Groups that activations did not show and weights matched instead.
    """

    model: nn.Module
    permutations: dict[str, Permutation]
    spec: PermutationSpec
    method: str
    distance_before: float
    distance: float
    by_weights: tuple[str, ...] = ()

    def __repr__(self) -> str:
        moved = sum(not permutation.is_identity for permutation in self.permutations.values())
        return (
            f"Alignment(method={self.method!r}, {moved} of {len(self.permutations)} groups moved, "
            f"distance {self.distance_before:.4g} -> {self.distance:.4g})"
        )


def align(
    model_a: nn.Module,
    model_b: nn.Module,
    method: str = "weights",
    batches: Iterable[Any] | None = None,
    spec: PermutationSpec | None = None,
    seed: int = 0,
    restarts: int = 1,
) -> Alignment:
    """Permute the hidden units of model_b so that they fit those of model_a, without changing what it computes.

    "weights" maximises Σ ⟨W_a, P(W_b)⟩ over all trainable parameters, "activations" the correlation of paired units on
    examples. Units of groups that no activation shows (the lower layers of a stacked LSTM) are matched by weights.

    Neither model is changed. Afterwards `linear_path(model_a, aligned.model, ...)` measures what barrier is left; of
    networks with batch normalisation recompute the statistics (the default there), of others see `repair`.

    Memory: a copy of model_b, and float64 copies of both models' parameters.

    Args:
        model_a: The network that stays.
        model_b: A network of the same architecture.
        method: "weights" or "activations".
        batches: Iterable of (input, target) batches, or of inputs. Needed for activations; of help in tracing, see
            `trace_permutations`; where given, it is checked on the first batch that the function is the same.
        spec: The symmetries, where the network cannot be traced or has more than are found.
        seed: Seed of the order in which weight matching visits groups.
        restarts: Number of descents of weight matching, all but the first from random permutations; the best counts.

    Returns:
        The aligned copy of model_b, with the permutations.

    Raises:
        MeasurementError: The network cannot be traced, or `spec` describes no symmetry of it.
        ValueError: The models differ in architecture, the spec does not fit them, or an argument is out of range.

    Source: Ainsworth et al. 2023, arXiv:2209.04836.

    Where we differ: the symmetries are found by tracing; heads of an attention layer are permuted together with the
    dimensions within them (queries with keys, values with outputs); a step that would make the fit worse is not taken.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> one, other = (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)) for _ in range(2))
        >>> aligned, x = align(one, other), torch.randn(5, 4)
        >>> aligned.distance < aligned.distance_before, torch.allclose(aligned.model(x), other(x), atol=1e-6)
        (True, True)
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; it must be one of {', '.join(METHODS)}")
    if restarts < 1:
        raise ValueError(f"restarts is {restarts}; at least one descent is needed")
    held = None if batches is None else list(batches)
    if method == "activations" and not held:
        raise ValueError(
            "activations are matched on examples; give batches=, a few hundred examples of the training set"
        )
    check_same_architecture(model_a, model_b)
    traced = trace_network(model_a, held) if spec is None or method == "activations" else None
    known = spec.fitted(model_a) if spec is not None else traced.spec if traced is not None else None
    assert known is not None
    ours, theirs = dict(model_a.named_parameters()), dict(model_b.named_parameters())
    unseen: tuple[str, ...] = ()
    if method == "weights":
        permutations = match_weights(known, ours, theirs, seed, restarts)
    else:
        assert traced is not None
        assert held is not None
        if spec is not None:
            raise ValueError("activations are matched where tracing shows units; with a spec of your own match weights")
        graphs = (traced.graph, trace(model_b))
        found, unseen = match_activations(known, traced.probes, graphs, (model_a, model_b), held)
        permutations = known.identity() | found
        if unseen:
            permutations = match_weights(known, ours, theirs, seed, restarts, permutations, unseen)
    aligned = copy.deepcopy(model_b)
    known.apply(aligned, permutations)
    if held:
        _check_function(model_b, aligned, held[0])
    before, after = (_distance(model_a, model) for model in (model_b, aligned))
    return Alignment(aligned, permutations, known, method, before, after, unseen)


def _distance(one: nn.Module, other: nn.Module) -> float:
    theirs = dict(other.named_parameters())
    squares = [
        float((parameter.detach().double() - theirs[name].detach().double()).square().sum())
        for name, parameter in one.named_parameters()
        if parameter.requires_grad
    ]
    return sum(squares) ** 0.5


def _check_function(model: nn.Module, aligned: nn.Module, batch: Any) -> None:
    """Refuse permutations that are no symmetry, as a spec written by hand may hold."""
    inputs = input_of(batch)
    device = next(model.parameters()).device
    inputs = inputs.to(device) if isinstance(inputs, torch.Tensor) else inputs
    outputs = []
    for each in (model, aligned):
        with isolated(each), torch.no_grad():
            for part in each.modules():
                part.training = False
            leaves = pytree.tree_leaves(each(inputs))
            outputs.append(
                [leaf.double() for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
            )
    for before, after in zip(*outputs, strict=True):
        scale = float(before.abs().max()) if before.numel() else 0.0
        gap = float((before - after).abs().max()) if before.numel() else 0.0
        if gap > 1e-3 * max(scale, 1e-12):
            raise MeasurementError(
                f"the permuted {type(model).__name__} gives outputs that differ by {gap:.3g} from the network's own "
                f"(of size {scale:.3g}): the spec describes no symmetry of it. Look for an axis that is missing "
                "from a group"
            )
