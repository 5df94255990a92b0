"""Simplexes of low loss between several solutions, and their volume."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from landscape._derivatives import require_gradient
from landscape._errors import MeasurementError
from landscape._given import of_objective
from landscape._layout import ParameterLayout
from landscape._results import Estimate
from landscape.averaging._batchnorm import recompute_batchnorm
from landscape.connectivity._curves import Curve
from landscape.connectivity._training import LEARNING_RATE, STEPS, batch_order, normalisation
from landscape.objective import Objective


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SimplicialComplex:
    """Simplexes in weight space, one for each solution, that share their other vertices.

    Simplex i has the vertices w_i, θ_1, …, θ_k: solution i, pinned, and k connecting points common to all. Any point
    w = Σ_j b_j v_j with b ≥ 0, Σ b = 1 lies in it. So solutions i and j are joined by the chain w_i – θ_1 – w_j.

    Memory: one flat vector a solution and connecting point.

    Attributes:
        ends: The solutions as flat vectors of shape (P,).
        connectors: The connecting points, shape (P,) each; at least one.
        layout: Names and shapes behind the flat vectors.
        objective: The loss it was made for, or None.
        end_buffers: The buffers of each solution by name, for paths between them.

    Source: Benton et al. 2021, arXiv:2102.13042.
    """

    ends: tuple[torch.Tensor, ...]
    connectors: tuple[torch.Tensor, ...]
    layout: ParameterLayout
    objective: Objective | None = None
    end_buffers: tuple[Mapping[str, torch.Tensor], ...] = ()

    @property
    def volume(self) -> float:
        """Total volume of the simplexes, of dimension k, in units of the weights to the power k."""
        return math.fsum(math.exp(float(part)) for part in self._log_volumes())

    @property
    def log_volume(self) -> float:
        """Natural logarithm of the volume, also where that overflows; −inf for a flat complex."""
        return float(torch.logsumexp(self._log_volumes(), 0))

    def _log_volumes(self) -> torch.Tensor:
        return torch.stack([log_volume((end, *self.connectors)) for end in self.ends])

    def point(self, index: int, coordinates: Sequence[float] | np.ndarray) -> torch.Tensor:
        """Return a point of one simplex.

        Args:
            index: Which simplex: that of this solution.
            coordinates: Barycentric coordinates, shape (k + 1,), the solution's first.

        Returns:
            Flat weights, shape (P,).
        """
        vertices = (self.ends[index], *self.connectors)
        return torch.stack([float(c) * vertex for c, vertex in zip(coordinates, vertices, strict=True)]).sum(0)

    def sample(self, seed: int = 0) -> Iterator[torch.Tensor]:
        """Draw points without end: a simplex in proportion to its volume, then uniformly within it."""
        generator = np.random.default_rng(seed)
        logs = self._log_volumes().cpu().numpy()
        finite = np.isfinite(logs).any()
        shares = np.exp(logs - logs.max()) if finite else np.ones(len(logs))
        while True:
            index = int(generator.choice(len(self.ends), p=shares / shares.sum()))
            yield self.point(index, generator.dirichlet(np.ones(len(self.connectors) + 1)))

    def loss(self, samples: int = 25, seed: int = 0, objective: Objective | None = None) -> Estimate:
        """Estimate the mean loss over the complex, batch-normalisation statistics recomputed at every point.

        Args:
            samples: Number of points drawn.
            seed: Their seed.
            objective: The loss to measure; by default that which the complex was made for.

        Returns:
            The mean, with its standard error over points.

        Raises:
            ValueError: The complex carries no loss and none is given.
        """
        measured = objective or self.objective
        if measured is None:
            raise ValueError("this complex carries no model and loss; give an Objective to evaluate it on")
        source = self.objective or measured
        losses = []
        draws = self.sample(seed)
        with contextlib.ExitStack() as stack:
            for each in dict.fromkeys((source, measured)):
                stack.enter_context(each.session())
            for _ in range(samples):
                vector = next(draws)
                buffers = recompute_batchnorm(source, vector) if measured.mode == "eval" else None
                losses.append(float(measured.loss(vector, buffers)))
        return Estimate.from_samples(losses, seed)

    def path(self, first: int, second: int, through: int = 0) -> Curve:
        """Return the polygonal chain from one solution to another through a connecting point."""
        points = (self.ends[first], self.connectors[through], self.ends[second])
        buffers = (self.end_buffers[first], self.end_buffers[second]) if self.end_buffers else ({}, {})
        return Curve("chain", points, self.layout, buffers, "recompute", self.objective)

    def __repr__(self) -> str:
        return (
            f"SimplicialComplex({len(self.ends)} solutions, {len(self.connectors)} connecting points, "
            f"P={self.layout.total}, log_volume={self.log_volume:.4g})"
        )


def log_volume(vertices: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the logarithm of a simplex's volume, ½ ln det(E Eᵀ) − ln k!.

    The k edges from one vertex are the rows of E. It is the Cayley–Menger determinant in another form.

    Args:
        vertices: k + 1 flat vectors of shape (P,).

    Returns:
        A float64 scalar with its graph.
    """
    edges = torch.stack([vertex.double() - vertices[0].double() for vertex in vertices[1:]])
    return 0.5 * torch.logdet(edges @ edges.T) - math.lgamma(len(vertices))


@of_objective
def fit_simplexes(
    objective: Objective,
    ends: Iterable[torch.Tensor],
    connectors: int = 1,
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
    regularisation: float = 1e-3,
    seed: int = 0,
    end_buffers: Sequence[Mapping[str, torch.Tensor]] = (),
    progress: bool | None = None,
) -> SimplicialComplex:
    """Join several solutions by simplexes of low loss and large volume.

    Connecting points are added one by one. Each minimises E L(w) − λ ln V over itself alone, with w uniform in the
    simplex of a solution drawn at each step, V the total volume of the simplexes. Each starts at the mean of all
    vertices before it, moved by a hundredth of their distance in a random direction (there the volume would be zero),
    and moves by Adam as in `fit_curve`.

    Memory: five flat vectors beside the solutions and connecting points.

    Args:
        objective: The loss over the training examples.
        ends: Two or more solutions as flat vectors, shape (P,); pinned.
        connectors: Number k of connecting points: the dimension of the simplexes.
        steps: Steps of Adam for each connecting point.
        learning_rate: First learning rate of Adam.
        regularisation: λ, in units of the loss.
        seed: Seed of points, of starts and of the order of the batches.
        end_buffers: The buffers of each solution by name.
        progress: Whether to show a progress bar on stderr; by default only where that is a terminal.

    Returns:
        The complex, which carries the objective.

    Raises:
        MeasurementError: The loss is not finite, or all solutions are the same.
        ValueError: An argument is out of range.

    Source: Benton et al. 2021, arXiv:2102.13042, who choose λ anew for each connecting point; here it is given.
    """
    pinned = tuple(torch.as_tensor(end).detach().to(objective.device, objective.dtype, copy=True) for end in ends)
    if len(pinned) < 2 or connectors < 1 or steps < 1:
        raise ValueError(
            f"found {len(pinned)} solutions, connectors={connectors} and steps={steps}; at least two solutions, one "
            "connecting point and one step are needed"
        )
    if not 0 < learning_rate < math.inf or not 0 <= regularisation < math.inf:
        raise ValueError(
            f"learning_rate={learning_rate} must be a positive finite number, regularisation={regularisation} finite "
            "and not negative"
        )
    for end in pinned:
        objective.layout.unflatten(end)
    require_gradient(objective)
    generator = np.random.default_rng(seed)
    found: list[torch.Tensor] = []
    with objective.session(), normalisation(objective, "recompute"):
        for _ in range(connectors):
            start = _start((*pinned, *found), generator)
            found.append(
                _descend(
                    objective, pinned, tuple(found), start, steps, learning_rate, regularisation, generator, progress
                )
            )
    return SimplicialComplex(pinned, tuple(found), objective.layout, objective, tuple(end_buffers))


def _start(vertices: tuple[torch.Tensor, ...], generator: np.random.Generator) -> torch.Tensor:
    middle = torch.stack(vertices).mean(0)
    reach = max(float(torch.linalg.vector_norm(vertex - middle)) for vertex in vertices)
    if not 0 < reach < math.inf:
        raise MeasurementError(
            "the solutions are all the same, or not finite, so no simplex lies between them; look at their weights"
        )
    direction = torch.from_numpy(generator.normal(size=len(middle))).to(middle)
    return middle + 0.01 * reach * direction / torch.linalg.vector_norm(direction)


def _descend(
    objective: Objective,
    ends: tuple[torch.Tensor, ...],
    others: tuple[torch.Tensor, ...],
    point: torch.Tensor,
    steps: int,
    learning_rate: float,
    regularisation: float,
    generator: np.random.Generator,
    progress: bool | None,
) -> torch.Tensor:
    adam = torch.optim.Adam([point], lr=learning_rate)
    indices = batch_order(objective, generator)
    count = sum(weight > 0 for weight in objective.batch_weights)
    hidden = None if progress is None else not progress
    title = f"training connecting point {len(others) + 1}"
    for step in tqdm(range(steps), desc=title, unit="step", disable=hidden, leave=False):
        adam.param_groups[0]["lr"] = learning_rate * (1 + np.cos(np.pi * step / steps)) / 2
        chosen, index = int(generator.integers(len(ends))), next(indices)
        coordinates = generator.dirichlet(np.ones(len(others) + 2))
        loss, gradient = simplex_loss(objective, index, (ends[chosen], *others, point), coordinates)
        if not torch.isfinite(loss):
            raise MeasurementError(
                f"the loss in the simplex is {float(loss)} after {step} training steps; look at the weights of all "
                "solutions, or lower learning_rate"
            )
        point.grad = gradient * (objective.batch_weights[index] * count)
        if regularisation:
            point.grad -= regularisation * _volume_gradient(ends, others, point)
        adam.step()
    point.grad = None
    return point


def simplex_loss(
    objective: Objective, index: int, vertices: Sequence[torch.Tensor], coordinates: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of one batch at a point of a simplex, and its gradient with respect to the last vertex."""
    vector = torch.zeros_like(vertices[0])
    for coordinate, vertex in zip(coordinates, vertices, strict=True):
        vector += float(coordinate) * vertex.detach()
    parameters: list[Any] = [part.requires_grad_(True) for part in objective.layout.unflatten(vector)]
    loss = objective.batch_loss(index, parameters)
    gradient = objective.flatten(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))
    return loss.detach(), gradient.mul_(float(coordinates[-1]))


def _volume_gradient(
    ends: tuple[torch.Tensor, ...], others: tuple[torch.Tensor, ...], point: torch.Tensor
) -> torch.Tensor:
    moving = point.detach().requires_grad_(True)
    total = torch.logsumexp(torch.stack([log_volume((end, *others, moving)) for end in ends]), 0)
    return torch.autograd.grad(total, moving)[0]
