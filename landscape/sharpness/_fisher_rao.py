"""The Fisher–Rao norm: the length of the weights as the network's outputs feel it."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import torch

from landscape._given import of_objective
from landscape._results import Estimate
from landscape._sampling_error import Clusters, of_contributions
from landscape.curvature import fisher
from landscape.objective import Objective


@of_objective
def fisher_rao(objective: Objective, kind: str = "empirical", draws: int = 1, seed: int = 0) -> Estimate:
    """Measure ‖w‖_fr = √(wᵀ F w), F the Fisher information at w.

    Without biases and with ReLU, wᵀ∇f is the depth times f, so that the norm depends on the outputs alone: it is
    ‖w‖_fr = depth · √E⟨∂ℓ/∂f, f⟩². It is invariant to every rescaling that leaves the function as it is, and falls with
    the loss: near a perfect fit it says how confident the network is, not how flat.

    Args:
        objective: The loss over the measured examples.
        kind: "empirical": the true labels, F = E[∇ℓ ∇ℓᵀ], as the norm is defined; "exact" and "mc": labels from the
            model's own distribution, as Fisher's information is (see `landscape.curvature.fisher`).
        draws: Labels drawn for each target ("mc").
        seed: Their seed.

    Returns:
        The norm in units of the loss ("empirical") or of its square root (the others). For "mc" its spread over labels
        is not known from one draw, and the standard error NaN. The standard error over examples is that of wᵀFw over
        2‖w‖_fr, from the parts wᵀF_g w of the groups of batches.

    Raises:
        MeasurementError: As in `landscape.curvature.fisher`.
        ValueError: The kind is unknown.

    Source: Liang et al. 2019, arXiv:1711.01530.
    """
    weights = objective.vector()
    operator = fisher(objective, kind, draws=draws, seed=seed)
    product, forms = operator.by_batch(weights, functools.partial(torch.dot, weights), ())
    square = float(weights.double() @ product.double())
    value = math.sqrt(max(square, 0.0))
    error = math.nan
    if forms is not None and operator.clusters is not None and value > 0:
        parts = forms.double().cpu().numpy()
        if kind == "empirical":
            parts = _of_squares(operator.clusters, parts, square)
        error = float(of_contributions(operator.clusters, parts)) / (2 * value)
    found = Estimate(value, math.nan, draws, seed) if kind == "mc" else Estimate.exact(value)
    return dataclasses.replace(found, stderr_sample=error)


def _of_squares(clusters: Clusters, parts: np.ndarray, square: float) -> np.ndarray:
    """Return contributions to n Σ (s_i/M)², where M is what the loss divides by: a mean of squares over examples.

    M is squared and n, the number of examples, stands above. So a group with a larger share of M than of the examples
    has more to answer for than in a mean over M.
    """
    return parts + (clusters.shares - clusters.weights) * square
