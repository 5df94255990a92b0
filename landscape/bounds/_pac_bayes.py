"""PAC-Bayes: the bound of a network whose weights are drawn from a posterior."""

from __future__ import annotations

import math
from collections.abc import Sequence

from landscape.bounds._catoni import catoni
from landscape.bounds._charges import charge_bits
from landscape.bounds._inputs import (
    UP,
    require_delta,
    require_errors,
    require_examples,
    require_method,
    require_not_negative,
)
from landscape.bounds._kl import kl_inverse
from landscape.bounds._monte_carlo import sampled_risk_bound

METHODS = ("mcallester", "kl", "quadratic", "catoni")


def pac_bayes_bound(
    *,
    error: float,
    kl: float,
    n: int,
    delta: float,
    method: str = "kl",
    choices: int | Sequence[int] = 1,
    draws: int | None = None,
    draws_delta: float | None = None,
) -> float:
    """Bound the error rate on new examples of a network drawn from a posterior over weights, on average over it.

    With C = KL(Q‖P) + Σ ln K + ln(2√n/δ), in nats:

        mcallester   R(Q) ≤ R̂(Q) + √(C/2n)
        kl           R(Q) ≤ max{p: kl(R̂(Q)‖p) ≤ C/n}
        quadratic    R(Q) ≤ (√(R̂(Q) + C/2n) + √(C/2n))²
        catoni       min over γ of Catoni's bound with KL(Q‖P) + Σ ln K as its complexity

    Each holds with probability 1 − δ over the n examples, for all posteriors at once. kl ≤ mcallester and
    kl ≤ quadratic, always. The bound is of the random network; it says nothing certain of the one at the posterior's
    mean. The prior must not have seen the examples (`prior_split`).

    Args:
        error: R̂(Q), the mean error rate under the posterior on the n examples (or the mean of a loss in [0, 1]):
            exact, or from `draws` networks.
        kl: KL(Q‖P) in nats (`gaussian_kl`).
        n: Number of examples.
        delta: δ, the probability of failure, that of the sampling included.
        method: "mcallester", "kl", "quadratic" or "catoni".
        choices: How many priors (of several widths, say) were chosen from by looking at the examples: ln K each.
        draws: m, where the error is a mean over m networks sampled from the posterior; R̂(Q) is then bounded first
            (`sampled_risk_bound`). None where it is exact.
        draws_delta: The part of δ that the sampling takes; a fifth by default.

    Returns:
        The bound, 1 at most.

    Raises:
        ValueError: An argument is out of range, or draws_delta is given without draws or not smaller than δ.

    Source: McAllester 2003, with the constant of Maurer 2004, arXiv:cs/0411099 (kl); Rivasplata et al. 2019,
    arXiv:1908.07380 and Pérez-Ortiz et al. 2021, arXiv:2007.12911 (quadratic); Catoni 2007, arXiv:0712.0248.

    Where we differ: Maurer states ξ(n) ≤ 2√n for n ≥ 8; it holds from n = 1 on (a test sums ξ).
    """
    n, delta = require_examples(n), require_delta(delta)
    require_method(method, METHODS)
    risk = float(require_errors(error))
    complexity = (float(require_not_negative(kl, "kl")) + charge_bits(choices) * math.log(2)) * UP
    if draws is not None:
        sampling = delta / 5 if draws_delta is None else require_delta(draws_delta, "draws_delta")
        if sampling >= delta:
            raise ValueError(f"draws_delta is {sampling}; it is a part of delta, {delta}, and must be smaller")
        risk = sampled_risk_bound(error=risk, draws=draws, delta=sampling)
        delta -= sampling
    elif draws_delta is not None:
        raise ValueError("draws_delta is given without draws; say how many networks the error is a mean over")
    if method == "catoni":
        return catoni(risk, n, complexity, delta)
    rate = (complexity + math.log(2 * math.sqrt(n)) - math.log(delta)) / n * UP
    if method == "kl":
        return float(kl_inverse(risk, rate))
    if method == "mcallester":
        return min((risk + math.sqrt(rate / 2) * UP) * UP, 1.0)
    return min((math.sqrt(risk + rate / 2) + math.sqrt(rate / 2)) ** 2 * UP, 1.0)
