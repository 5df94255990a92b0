"""Preconditioned sharpness: the largest curvature in the coordinates of an adaptive optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch

from landscape._errors import MeasurementError
from landscape._given import of_objective
from landscape.curvature import SymmetricOperator, Tracked, hessian, track
from landscape.objective import Objective
from landscape.sharpness._congruence import stretched
from landscape.sharpness._descent import Decay
from landscape.sharpness._preconditioner import Optimizers, coupled_decay, preconditioner
from landscape.sharpness._stretched_curvature import TopCurvature


@dataclasses.dataclass(frozen=True)
class PreconditionedSharpness(TopCurvature):
    """A largest eigenvalue with the evidence for it, and the start of the next event.

    Attributes:
        value: λmax(P^{-½} H P^{-½}), in units of 1/η.
        stderr: 0.
        n: 1.
        seed: Seed of the start vector.
        dof: Infinite.
        spread: None.
        stderr_sample: Standard error over examples of the eigenvalue, P held fixed; NaN where it is not known.
        residual: ‖Av − λv‖ of the unit eigenvector v of A = P^{-½} H P^{-½}.
        converged: Whether it met the tolerance.
        n_matvecs: Number of products spent.
        tracked: What the next event begins from: `previous=result.tracked`.
    """

    tracked: Tracked


@of_objective
def preconditioned_sharpness(
    objective: Objective,
    optimizer: Optimizers | torch.Tensor,
    previous: Tracked | None = None,
    operator: SymmetricOperator | None = None,
    weight_decay: Decay | None = None,
    tol: float = 1e-6,
    max_matvecs: int = 5,
    seed: int = 0,
    known: tuple[torch.Tensor, torch.Tensor] | None = None,
    known_forms: np.ndarray | None = None,
) -> PreconditionedSharpness:
    """Compute λmax(P^{-½} H P^{-½}), H the Hessian and P the diagonal by which the optimizer divides its gradients.

    It plays the part for adaptive optimizers that λmax(H) plays for gradient descent. With P frozen, a quadratic is
    stable below 2/η for RMSprop and Adagrad, below (2+2μ)/η for RMSprop with momentum μ, and below
    (2+2β₁)/((1−β₁)η) for Adam: 38/η at β₁ = 0.9. For SGD P is 1.

    P is read from the optimizer's state: see `landscape.sharpness.preconditioner`. Read it right after the step that
    used it, with the objective at the weights before that step. Coupled weight decay λ adds diag λ to H, as the
    optimizer adds λw to the gradient before it divides by P. Decoupled decay (AdamW) adds nothing: it shrinks the
    weights by ηλ and acts on none of the moments, so it moves the stability line instead, to
    (1+β₁)(2−ηλ)/((1−β₁)η).

    Memory: one vector for P and three for the next event; while it runs, 5 more for each of `max_matvecs` products,
    and what the operator holds.

    Args:
        objective: The loss over the measured examples.
        optimizer: The optimizer, or all that train the parameters; or the diagonal P itself, shape (P,), positive.
            Entries of infinity are fixed coordinates.
        previous: `tracked` of the last event, of the same parameters; None for a cold start.
        operator: The curvature H over all its parameters; by default the objective's Hessian.
        weight_decay: Coupled decay λ, one number, or numbers by the names of parameters. By default it is the
            optimizer's, and 0 where P is given.
        tol: Relative accuracy at which an event with `previous` ends early.
        max_matvecs: Most products of an event with `previous`, at least 3. A cold start takes what it needs.
        seed: Seed of a cold start.
        known: A vector v and its product Hv, each of shape (P,), that a warm start takes in without multiplying, such
            as the update of the last step. It is left out where v moves fixed coordinates, or decay differs by name.
        known_forms: vᵀH_g v of the groups of batches g, shape (groups,), for the error over examples.

    Returns:
        The eigenvalue with its residual and `converged`.

    Raises:
        MeasurementError: The optimizer is of an unknown kind, has taken no step, or a product is not finite.
        ValueError: P has another length or is not positive.

    Source: Cohen et al. 2022, arXiv:2207.14484 (the adaptive edge of stability). Ramasinghe et al. 2026,
    arXiv:2606.16768, follow the eigenvalue by warm-started power iteration; we follow it by `curvature.track`.
    """
    if isinstance(optimizer, torch.Tensor):
        diagonal, decay = optimizer, weight_decay or 0.0
    else:
        diagonal = preconditioner(objective, optimizer)
        decay = coupled_decay(objective, optimizer) if weight_decay is None else weight_decay
    base = hessian(objective) if operator is None else operator
    root = _inverse_root(diagonal)
    scaled = stretched(base.weight_decay(decay) if decay else base, root)
    taken = None
    if known is not None and not isinstance(decay, Mapping):
        vector, product = known
        taken = _in_coordinates(vector, product.add(vector, alpha=float(decay)), root)
        if known_forms is not None and scaled.clusters is not None:
            square = float(vector.double() @ vector.double())
            known_forms = known_forms + scaled.clusters.weights * float(decay) * square
    found = track(
        scaled,
        previous,
        k=1,
        tol=tol,
        seed=seed,
        max_matvecs=max_matvecs,
        known=taken,
        known_forms=known_forms,
    )
    pairs = found.pairs
    value, residual = float(pairs.values[0]), float(pairs.residuals[0])
    sampled, converged = float(pairs.stderr_sample[0]), bool(pairs.converged_each[0])
    return PreconditionedSharpness(
        value, 0.0, 1, seed, residual, converged, found.n_matvecs, found, stderr_sample=sampled
    )


def _in_coordinates(
    vector: torch.Tensor, product: torch.Tensor, root: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return P^{½} v and its product P^{-½} H v; None where v leaves the coordinates that are not fixed."""
    if bool((vector[root == 0] != 0).any()):
        return None
    return torch.where(root > 0, vector / root, 0.0), root * product


def _inverse_root(diagonal: torch.Tensor) -> torch.Tensor:
    """Return P^{-½}, zero where P is infinite.

    Raises:
        ValueError: An entry is not positive.
        MeasurementError: All are infinite.
    """
    if not bool((diagonal > 0).all()):
        raise ValueError(
            "the preconditioner has entries that are not positive, which a step would divide by; give the optimizer "
            "an eps above 0"
        )
    if bool(torch.isinf(diagonal).all()):
        raise MeasurementError("the optimizer has not moved any parameter yet; measure after its first step")
    return diagonal.rsqrt()
