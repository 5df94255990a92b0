"""First-order adaptive sharpness, in both variants that are in use."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from landscape._given import of_objective
from landscape._layout import ParameterLayout
from landscape._results import Estimate
from landscape.objective import Objective
from landscape.sharpness._ascent import one_step
from landscape.sharpness._ladder import Ladder, gather, rungs

# The radius that belongs to each variant; the two numbers differ because the variants do.
_RADIUS = {"authors": 0.5, "elementwise": 2.0}


@of_objective
def asam(
    objective: Objective,
    rho: float | Sequence[float] | None = None,
    variant: str = "authors",
    eta: float = 0.01,
    group: int | None = None,
) -> Estimate | Ladder:
    """Measure L(w + ρ T² g/‖T g‖) − L(w) with a diagonal T that follows the size of the weights.

    - "authors": T = |w| + η on weights and 1 on all else. A parameter is a weight where the last part of its name
      contains "weight", as in the authors' code, which looks at the whole name. Biases and η spoil the invariance to
      rescaling, and weights of zero move.
    - "elementwise": T = |w| everywhere, the variant of most other code. Invariant to rescaling of layers and neurons;
      weights of zero stay.

    The numbers of the two differ much, also at equal ρ: name the variant with the number.

    Args:
        objective: The loss over the measured examples.
        rho: Length of the step in the stretched norm, or a ladder; by default 0.5 ("authors", their value for CIFAR-10;
            1.0 for CIFAR-100) or 2.0 ("elementwise").
        variant: "authors" or "elementwise".
        eta: η of the authors' variant.
        group: Examples that share an ascent (m-sharpness); by default all.

    Returns:
        The rise in units of the loss with its standard error over examples, from batches or groups; a `Ladder` for
        several ρ.

    Raises:
        MeasurementError: Loss or gradient is not finite.
        ValueError: An argument is out of range.

    Source: Kwon et al. 2021, arXiv:2102.11600, algorithm 1 (p = 2).
    """
    if variant not in _RADIUS:
        raise ValueError(f"variant is {variant!r}; it must be one of {', '.join(_RADIUS)}")
    if not 0 <= eta < float("inf"):
        raise ValueError(f"eta is {eta}; it must be a finite number, 0 at least")
    rho = _RADIUS[variant] if rho is None else rho
    radii = rungs(rho)
    weights = objective.vector()
    stretch = weights.abs() if variant == "elementwise" else _authors(objective.layout, weights, eta)
    return gather(rho, one_step(objective, stretch, radii, "l2", group))


def _authors(layout: ParameterLayout, weights: torch.Tensor, eta: float) -> torch.Tensor:
    stretch = torch.ones_like(weights)
    for name, part in zip(layout.names, layout.slices(), strict=True):
        if "weight" in name.rpartition(".")[2]:
            stretch[part] = weights[part].abs() + eta
    return stretch
