"""Relative flatness of one layer: its curvature weighed by the products of its neurons' weights."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch

from landscape._given import of_objective
from landscape._results import Estimate
from landscape._sampling_error import of_contributions
from landscape.curvature import SymmetricOperator, hessian, top_eigenpairs, trace
from landscape.objective import Objective
from landscape.sharpness._congruence import Congruence

_KINDS = ("trace", "max")


@dataclasses.dataclass(frozen=True)
class RelativeFlatness(Estimate):
    """Relative flatness of a layer; large means sharp.

    Attributes:
        value: κ_Tr or κ_max.
        stderr: Standard error of the trace; 0 for κ_max.
        n: Number of test vectors behind a trace; 1 for κ_max.
        seed: Their seed.
        dof: Degrees of freedom behind the standard error.
        spread: The standard error before it was widened.
        layer: Name of the weight matrix.
        kind: "trace" or "max".
        converged: Whether trace or eigenvalues met their tolerance.
        n_matvecs: Number of products spent.
    """

    layer: str
    kind: str
    converged: bool
    n_matvecs: int


@of_objective
def relative_flatness(
    objective: Objective,
    layer: str | None = None,
    kind: str = "trace",
    operator: SymmetricOperator | None = None,
    tol: float = 0.02,
    seed: int = 0,
    max_matvecs: int = 200,
) -> RelativeFlatness:
    """Measure the relative flatness of one layer with weight rows w_s, a neuron (or filter) each.

    - "trace": κ_Tr = Σ_{s,s'} ⟨w_s, w_s'⟩ Tr H_{s,s'}, where H_{s,s'} is the block of the Hessian between the weights
      of two neurons. With S the root of WWᵀ it is Tr (S ⊗ I) H (S ⊗ I), which is how it is estimated.
    - "max": κ_max = Σ_s ‖w_s‖² λmax(H_{s,s}), one eigenvalue a neuron.

    Both are invariant to the rescaling of whole layers and of this layer's own neurons, but not of its inputs, one by
    one. The layer decides the number: name it.

    Args:
        objective: The loss over the measured examples.
        layer: Name of the layer or of its weight; by default the last weight matrix. The paper takes the layer after
            the features, and of it the weights alone, without bias.
        kind: "trace" or "max".
        operator: The curvature over all parameters; by default the Hessian.
        tol: Relative standard error of the trace; the eigenvalues are accurate to a twentieth of it.
        seed: Seed of test and start vectors.
        max_matvecs: Most products to spend, for each neuron in the case of "max".

    Returns:
        The relative flatness with its standard error.

    Raises:
        MeasurementError: A product is not finite.
        ValueError: The kind is unknown, or the layer is not one weight matrix.

    Source: Petzka et al. 2021, arXiv:2001.00939.
    """
    if kind not in _KINDS:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(_KINDS)}")
    name, weight = _matrix(objective, layer)
    block = (hessian(objective) if operator is None else operator).restrict(name)
    before = block.n_matvecs
    if kind == "trace":
        found = trace(_mixed(block, weight), tol=tol, seed=seed, max_matvecs=max_matvecs)
        kept = {field.name: getattr(found, field.name) for field in dataclasses.fields(Estimate)}
        return RelativeFlatness(
            **kept, layer=name, kind=kind, converged=found.converged, n_matvecs=block.n_matvecs - before
        )
    parts, shares = [], []
    for row, incoming in enumerate(weight):
        pairs = top_eigenpairs(_neuron(block, weight, row), 1, tol=tol / 20, seed=seed, max_matvecs=max_matvecs)
        square = float(incoming.double() @ incoming.double())
        parts.append((square * float(pairs.values[0]), bool(pairs.converged)))
        shares += [] if pairs.parts is None else [square * pairs.parts[:, 0]]
    error = float(of_contributions(block.clusters, np.sum(shares, axis=0) if shares else None))
    value, converged = math.fsum(value for value, _ in parts), all(done for _, done in parts)
    spent = block.n_matvecs - before
    return RelativeFlatness(value, 0.0, 1, seed, name, kind, converged, spent, stderr_sample=error)


def _matrix(objective: Objective, layer: str | None) -> tuple[str, torch.Tensor]:
    """Find the layer's weight matrix, neurons (or filters) in rows."""
    tensors = objective.layout.named(objective.vector())
    matrices = {name: tensor for name, tensor in tensors.items() if tensor.ndim >= 2}
    if layer is None:
        chosen = list(matrices)[-1:]
    else:
        chosen = [name for name in matrices if name == layer or name.rpartition(".")[0] == layer]
    if len(chosen) != 1:
        raise ValueError(
            f"layer is {layer!r}, which stands for {len(chosen)} trainable weight matrices; relative flatness is of "
            f"one: give one of {', '.join(matrices) or 'none, for the model has no weight matrix'}"
        )
    return chosen[0], matrices[chosen[0]].flatten(start_dim=1)


def _mixed(block: SymmetricOperator, weight: torch.Tensor) -> SymmetricOperator:
    """(S ⊗ I) H (S ⊗ I) with S² = WWᵀ: its trace is κ_Tr."""
    left, scale, _ = torch.linalg.svd(weight.double(), full_matrices=False)
    root = ((left * scale) @ left.T).to(weight)
    neurons, inputs = weight.shape

    def mix(vectors: torch.Tensor) -> torch.Tensor:
        cut = vectors.reshape(neurons, -1)
        return (root @ cut).reshape(vectors.shape)

    return Congruence(block, neurons * inputs, mix, mix)


def _neuron(block: SymmetricOperator, weight: torch.Tensor, row: int) -> SymmetricOperator:
    """H_{s,s}: the curvature in the weights of one neuron."""
    inputs = weight.shape[1]
    own = slice(row * inputs, (row + 1) * inputs)

    def pad(vectors: torch.Tensor) -> torch.Tensor:
        padded = vectors.new_zeros(weight.numel(), *vectors.shape[1:])
        padded[own] = vectors
        return padded

    return Congruence(block, inputs, pad, lambda vectors: vectors[own])
