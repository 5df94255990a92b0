"""Catoni's bound with a union over its parameter."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import minimize_scalar

from landscape.bounds._inputs import UP

_SPACING = 1e-4  # α: the parameter's grid is (1 + α)^k; hardly any influence
_RANGE = 4.0  # ln(γ/n) up to here: beyond, 1 − e^(−γ/n) is 1
_SCAN = 129


def catoni(error: float, n: int, complexity: float, delta: float) -> float:
    """Bound a risk by the best parameter of Catoni's family.

    R ≤ min_γ (1 − e^(−γq/n))/(1 − e^(−γ/n)), q = R̂ + (1 + α)/γ · [D + ln 1/δ + 2 ln(2 + ln γ/ln(1 + α))], γ ≥ 1.

    For one γ the bound costs D + ln 1/δ. On the grid γ_k = (1 + α)^k with weights 1/((k + 1)(k + 2)), which sum to 1,
    it costs at most 2 ln(k + 2) more; between grid points 1 + α more, as the bound rises with γ at a given q. So it
    holds for all γ at once, whatever the search for the best one finds.

    Args:
        error: R̂.
        n: Number of examples.
        complexity: D in nats: ln 1/P(h), or the divergence of posterior and prior.
        delta: δ.

    Returns:
        The bound, rounded up, at most 1.

    Source: Catoni 2007, arXiv:0712.0248, theorem 1.2.6; Zhou et al. 2019, arXiv:1804.05862, and
    Lotfi et al. 2022, arXiv:2211.13609, whose α and weights these are.
    """
    fixed = complexity - math.log(delta)

    def bound(log_gamma: float) -> float:
        gamma = math.exp(log_gamma)
        union = 2 * math.log(2 + log_gamma / math.log1p(_SPACING))
        q = error + (1 + _SPACING) / gamma * (fixed + union) * UP
        if q >= 1:
            return 1 + q  # vacuous; still falling towards better parameters
        return math.expm1(-gamma / n * q) / math.expm1(-gamma / n)

    scan = np.linspace(0.0, _RANGE + math.log(n), _SCAN)
    values = [bound(float(at)) for at in scan]
    best = int(np.argmin(values))
    bracket = float(scan[max(best - 1, 0)]), float(scan[min(best + 1, _SCAN - 1)])
    found = minimize_scalar(bound, bounds=bracket, method="bounded", options={"xatol": 1e-9})
    return min(min(values[best], float(found.fun)) * UP, 1.0)
