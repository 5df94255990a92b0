"""The local learning coefficient: how fast the loss lets go of the weights, counted in parameters."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from landscape._given import of_objective
from landscape._results import Result
from landscape.objective import Objective
from landscape.sharpness._finite import require_finite
from landscape.volume._chains import effective_sample_size, mean_error, split_rhat
from landscape.volume._flags import flags
from landscape.volume._langevin import run_chain
from landscape.volume._posterior import LocalPosterior
from landscape.volume._tuning import Tuned, tune

METHODS = ("sgld", "rmsprop", "mala")


@dataclasses.dataclass(frozen=True)
class LocalLearningCoefficient(Result):
    """λ̂ with what is needed to trust it.

    Attributes:
        value: λ̂ = nβ (mean L − L(w*)) over all chains; NaN where one diverged
            (came to a thousand times the energy d/2 that a chain at home has, or to no number).
        stderr: Its Monte-Carlo standard error, from the effective sample size. It knows nothing of the step's bias.
        rhat: Rank-normalised split R̂ of the recorded losses; 1 for chains that agree.
        ess: Effective number of draws behind the mean.
        chains: λ̂ of each chain, shape (chains,).
        trace: Rise of the loss at every step, burn-in included, shape (chains, burn_in + draws). With batches it is
            that of the step's batch, over the same batch's loss at w*.
        burn_in: Steps left out at the start of each.
        acceptance: Mean probability that a Metropolis test accepts a step.
        equilibrium: Mean of (w − w*)·∇U / d over the chains, U the negative log posterior. 1 in equilibrium, whatever
            the loss; less while some directions are still nearer to w* than they will be, which R̂ cannot see, as all
            chains start there; more by the bias of an unadjusted step.
        stiffness: Step times the largest curvature of the (preconditioned) log posterior at w*. Chains diverge above 4;
            below, the stiffest direction spreads by 1/(1 − stiffness/4) too much unless steps are adjusted.
        gradient_noise: Variance that drawing batches adds to a step at w*, over that of the injected noise, in the
            mean over parameters; the chain is hotter by about as much. 0 with all examples.
        step_size: ε.
        nbeta: nβ.
        gamma: γ.
        n: Number n behind the default of nβ.
        n_parameters: Number d of free parameters.
        method: The kind of chain.
        seed: Seed of the chains.
        evaluations: Gradients taken, pilots included.
        flags: What speaks against the value, of "diverged", "large_step" (a chain diverged; stiffness above 0.5 where
            not adjusted; acceptance below 0.5, adjusted 0.2), "gradient_noise" (above 0.2), "not_mixed" (R̂ above 1.05,
            fewer than 10 effective draws a chain, or equilibrium below 0.8), "negative" (λ̂ below zero by two standard
            errors: w* is no minimum).
    """

    value: float
    stderr: float
    rhat: float
    ess: float
    chains: np.ndarray
    trace: np.ndarray
    burn_in: int
    acceptance: float
    equilibrium: float
    stiffness: float
    gradient_noise: float
    step_size: float
    nbeta: float
    gamma: float
    n: int
    n_parameters: int
    method: str
    seed: int
    evaluations: int
    flags: tuple[str, ...]

    def __str__(self) -> str:
        flags = f", {', '.join(self.flags)}" if self.flags else ""
        return (
            f"{self.value:.4g} ± {self.stderr:.2g} of d/2 = {self.n_parameters / 2:g} (nβ={self.nbeta:.4g}, "
            f"γ={self.gamma:g}, R̂={self.rhat:.3f}, ESS={self.ess:.0f}, seed={self.seed}{flags})"
        )


@of_objective
def learning_coefficient(
    objective: Objective,
    chains: int = 4,
    draws: int = 1000,
    gamma: float = 100.0,
    seed: int = 0,
    *,
    method: str = "sgld",
    step_size: float | None = None,
    nbeta: float | None = None,
    n: int | None = None,
    burn_in: int | None = None,
    full_batch: bool = False,
    parameters: str | Sequence[str] | None = None,
) -> LocalLearningCoefficient:
    """Estimate λ̂ = nβ (E[L(w)] − L(w*)) over p(w) ∝ exp(−nβ L(w) − γ/2 ‖w − w*‖²), by chains from w*.

    At a regular minimum and for γ → 0 it is d/2; with a tether ½ N_eff(H, γ/nβ), N_eff(H, z) = Σ h/(h + z). Where the
    loss is degenerate it is less: the local learning coefficient of singular learning theory. It is a complexity, not a
    bound.

    The batches of the objective are the mini-batches, each drawn with its weight in L. A chain without adjustment and
    with step ε gives Σ ½/(1 − ε nβ h/4) on a regular Gaussian; "mala" has no such error.

    Memory: eight vectors of the parameters, gradients among them; "rmsprop" three more.

    Args:
        objective: The loss at a local minimum w*.
        chains: Number of chains, each with random numbers of its own.
        draws: Recorded steps a chain, at least 4.
        gamma: Strength γ of the tether, in units of 1/weight². The chain forgets in about 2/(ε γ) steps or sooner, so
            less tether asks for more draws.
        seed: Seed of all chains.
        method: "sgld", "rmsprop" (preconditioned by RMSProp's root mean square gradient of a pilot run), or "mala"
            (Metropolis-adjusted; takes all examples a step).
        step_size: ε; by default found by curvature and a pilot (see `docs/measures.md`).
        nbeta: Inverse temperature nβ; by default n / ln n.
        n: Number of training examples (not of batches); by default those of the objective.
        burn_in: Steps left out at the start of each chain; by default half of `draws`.
        full_batch: Whether every step sees all examples.
        parameters: Names, modules or patterns of the parameters that move, such as "encoder" or "*.bias": the
            weight-restricted coefficient. By default all.

    Returns:
        λ̂ with standard error, R̂, effective sample size, the trace and flags.

    Raises:
        MeasurementError: The loss at w* is not finite or does not depend on the parameters, or no step is stable.
        ValueError: An argument is out of range.

    Source: Lau, Furman, Wang, Murfet & Wei 2023, arXiv:2308.12108; Wang et al. 2024, arXiv:2410.02984 (restricted); Li
    et al. 2016, arXiv:1512.07666 (RMSProp).

    Where we differ: L(w*) is over all examples (or of the very batch that a step sees) instead of a few batches; n
    counts examples, never those of a batch; the preconditioner is fixed before anything is recorded, so that the chain
    has the stationary law that the published recipe reaches only with a correction it leaves out.
    """
    examples = objective.n_examples if n is None else n
    nbeta = default_nbeta(examples) if nbeta is None else nbeta
    burn_in = draws // 2 if burn_in is None else burn_in
    check(chains, draws, gamma, nbeta, burn_in, method, step_size)
    with objective.session():
        posterior = LocalPosterior(objective, nbeta, gamma, parameters, full_batch or method == "mala")
        return sample(posterior, chains, draws, burn_in, seed, method, step_size, examples)


def default_nbeta(n: int) -> float:
    """Return n / ln n.

    Raises:
        ValueError: n is too small for a logarithm above zero.
    """
    if n < 2:
        raise ValueError(f"n is {n}; nβ = n/ln n needs at least 2 training examples, or give nbeta")
    return n / math.log(n)


def check(
    chains: int, draws: int, gamma: float, nbeta: float, burn_in: int, method: str, step_size: float | None
) -> None:
    """Refuse settings that no chain can have.

    Raises:
        ValueError: One is out of range.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; it must be {' or '.join(map(repr, METHODS))}")
    for name, value, least in (("chains", chains, 1), ("draws", draws, 4), ("burn_in", burn_in, 0)):
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")
    if not 0 <= gamma < math.inf:
        raise ValueError(f"gamma is {gamma}; it must be a finite number, 0 for no tether")
    for name, number in (("nbeta", nbeta), ("step_size", step_size)):
        if number is not None and not 0 < number < math.inf:
            raise ValueError(f"{name} is {number}; it must be a positive finite number")


def sample(
    posterior: LocalPosterior,
    chains: int,
    draws: int,
    burn_in: int,
    seed: int,
    method: str,
    step_size: float | None,
    n: int,
) -> LocalLearningCoefficient:
    """Tune, run all chains and sum up; call it within the objective's session."""
    require_finite(posterior.center.new_tensor(posterior.loss), "loss")
    tuned = tune(posterior, method, step_size, max(burn_in, 100), seed)
    with posterior.objective.same_kernels():
        runs = [
            run_chain(posterior, tuned.proposal, burn_in + draws, (seed, chain), burn_in) for chain in range(chains)
        ]
    trace = np.stack([run.excess for run in runs])
    recorded = trace[:, burn_in:]
    value = posterior.nbeta * float(recorded.mean())
    known = bool(np.isfinite(recorded).all())
    rhat, ess = split_rhat(recorded), effective_sample_size(recorded)
    stderr = posterior.nbeta * mean_error(recorded) if known else math.nan
    acceptance = float(np.mean([run.acceptance for run in runs]))
    equilibrium = float(np.mean([run.equilibrium for run in runs]))
    noise = _gradient_noise(posterior, tuned)
    return LocalLearningCoefficient(
        value=value,
        stderr=stderr,
        rhat=rhat,
        ess=ess,
        chains=posterior.nbeta * recorded.mean(axis=1),
        trace=trace,
        burn_in=burn_in,
        acceptance=acceptance,
        equilibrium=equilibrium,
        stiffness=tuned.stiffness,
        gradient_noise=noise,
        step_size=tuned.proposal.step,
        nbeta=posterior.nbeta,
        gamma=posterior.gamma,
        n=n,
        n_parameters=posterior.size,
        method=method,
        seed=seed,
        evaluations=tuned.evaluations + sum(run.evaluations for run in runs),
        flags=flags(len(runs), recorded, tuned, (acceptance, equilibrium, noise), (value, stderr, rhat, ess)),
    )


def _gradient_noise(posterior: LocalPosterior, tuned: Tuned) -> float:
    if posterior.noise is None:
        return 0.0
    scale = tuned.proposal.scale
    variance = posterior.noise if scale is None else posterior.noise * scale
    return tuned.proposal.step / 4 * posterior.nbeta**2 * float(variance.double().mean())
