"""The trace of a symmetric operator from its products, stopped by its own standard error."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
import torch

from landscape._fetching import fetched
from landscape._given import of_operator
from landscape._memory import fits
from landscape._results import Estimate
from landscape._sampling_error import of_contributions
from landscape.curvature._calibration import form_error, fourth_power
from landscape.curvature._eigenpairs import Eigenpairs, require_vectors
from landscape.curvature._hutchpp import Deflated
from landscape.curvature._lanczos import rademacher
from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._products import checked_later, require_finite_products
from landscape.curvature._streamed_trace import VECTORS, StreamedTrace
from landscape.curvature._xtrace import Sketch, Small, exchangeable_factor

# Up to this size the whole diagonal costs no more than the first rounds of an estimate.
EXACT_SIZE = 24
# A trace that cancels never reaches a relative error: below this share of ‖H‖_F the error is measured against that.
FLOOR = 0.1
# Vectors that xtrace and hutch++ keep for each product, with room for the moment when their blocks grow.
_BLOCKS = 6
_METHODS = ("xtrace", "hutch++", "hutchinson")


@dataclasses.dataclass(frozen=True)
class TraceEstimate(Estimate):
    """A trace with its standard error and cost; value ± 1.96·stderr is the 95 % interval, also for few test vectors.

    Attributes:
        value: The estimate of tr H.
        stderr: Its standard error, widened by Student's t where it rests on few degrees of freedom.
        n: Number of test vectors.
        seed: Their seed.
        dof: Degrees of freedom behind the standard error.
        spread: The standard error before it was widened.
        stderr_sample: Standard error over examples, from vᵀH_g v of the groups of batches g; NaN with a single batch.
        n_matvecs: Number of products spent.
        converged: Whether the standard error reached the tolerance.
        method: How it was estimated; "exact" where the whole diagonal was taken.
    """

    n_matvecs: int
    converged: bool
    method: str


@of_operator
def trace(
    operator: SymmetricOperator,
    method: str = "xtrace",
    tol: float = 0.02,
    seed: int = 0,
    max_matvecs: int = 200,
    floor: float = FLOOR,
    known: Sequence[Eigenpairs] = (),
    memory_budget: int | str | None = None,
) -> TraceEstimate:
    """Estimate tr H until the standard error falls below tol · max(|tr H|, floor · ‖H‖_F).

    - "hutchinson" averages vᵀHv over vectors of independent signs (Girard 1987; Hutchinson 1990).

    - "xtrace" projects out a subspace made of the other test vectors, exchangeably for each (Epperly, Tropp & Webber
      2024, arXiv:2301.07825, §2.3). Test vectors are uniform on the sphere, and the residual part is normalised by its
      own length.

    - "hutch++" takes the trace on one subspace exactly, and probes the rest with fresh vectors (Meyer, Musco, Musco &
      Woodruff 2021, arXiv:2010.09649). Our subspace grows by block Krylov steps, one product a direction; the paper's
      sketch needs two. `known` eigenpairs join the subspace without a product.

    The last two need far fewer products where the spectrum decays. Standard errors are calibrated: value ± 1.96·stderr
    covers tr H in about 95 % of seeds, also when stopped early (`form_error`, `exchangeable_factor`). What the XTrace
    paper proposes, the spread over √n, is 1.2 to 1.5 times too small on decaying spectra. Up to P = 24 the whole
    diagonal is taken instead, where the budget allows.

    Memory: xtrace keeps four blocks of (P, n_matvecs/2) numbers, hutch++ two of (P, n_matvecs), and both need three
    times that for a moment; hutchinson takes six vectors. Where that exceeds a `memory_budget`, Hutch++ is taken with
    probes that are not kept (`StreamedTrace`): four vectors and a subspace of what else fits, a third of the products
    at most, or the known eigenpairs as they lie.

    Args:
        operator: The symmetric operator, shape (P, P).
        method: "xtrace", "hutch++" or "hutchinson".
        tol: Relative standard error to reach.
        seed: Seed of the test vectors.
        max_matvecs: Most products to spend.
        floor: Share of the Frobenius norm (estimated from the same products) below which |tr H| is no longer the scale.
        known: Eigenpairs of this operator found before, for example both ends of a `spectrum`; "hutch++" only. Those
            without vectors are left alone.
        memory_budget: What the estimate may allocate: bytes, a text such as "8GB", or "auto" for what is free on the
            device less a margin. The operator's own memory, and that of its products, come on top.

    Returns:
        The estimate; `converged` is False where the budget ended first.

    Raises:
        ValueError: The method is unknown, the budget too small, or `known` given to another method.
        MeasurementError: A product is not finite, or the budget of memory is below four vectors.

    Example:
        >>> import torch
        >>> from landscape.curvature._dense import DenseOperator
        >>> H = DenseOperator(torch.diag(torch.arange(100, dtype=torch.float64)))
        >>> estimate = trace(H, method="hutchinson")  # signs see a diagonal exactly
        >>> estimate.value, estimate.converged
        (4950.0, True)
    """
    if method not in _METHODS:
        raise ValueError(f"method is {method!r}; it must be one of {', '.join(_METHODS)}")
    if max_matvecs < 8:
        raise ValueError(f"max_matvecs is {max_matvecs}; a trace with a standard error needs at least 8 products")
    if known and method != "hutch++":
        raise ValueError(f"known eigenpairs serve method='hutch++' only, and method is {method!r}")
    known = [pairs for pairs in known if pairs.vectors.shape[1]]
    held = fits(memory_budget, operator)
    before = operator.n_matvecs
    if operator.shape[0] <= min(EXACT_SIZE, max_matvecs):
        return exact_trace(operator)
    within = _Tolerance(tol, floor)
    if method != "hutchinson" and held < _BLOCKS * max_matvecs + VECTORS:
        require_vectors(memory_budget, held, VECTORS, "a trace and its probes")
        method = "hutch++"
        found, converged = _streamed(operator, within, seed, max_matvecs, known, int(held) - VECTORS)
    elif method == "hutch++":
        found, converged = _hutchpp(operator, within, seed, max_matvecs, known)
    else:
        run = _xtrace if method == "xtrace" else _hutchinson
        found, converged = run(operator, within, seed, max_matvecs)
    return TraceEstimate(
        **{field.name: getattr(found, field.name) for field in dataclasses.fields(Estimate)},
        n_matvecs=operator.n_matvecs - before,
        converged=converged,
        method=method,
    )


def exact_trace(operator: SymmetricOperator) -> TraceEstimate:
    """Take the trace of a small operator from its whole diagonal."""
    before, size = operator.n_matvecs, operator.shape[0]
    products, forms = operator.with_forms(torch.eye(size, dtype=operator.dtype, device=operator.device))
    error = of_contributions(operator.clusters, None if forms is None else forms.sum(axis=1))
    return TraceEstimate(
        float(products.double().trace()),
        0.0,
        1,
        None,
        stderr_sample=float(error),
        n_matvecs=operator.n_matvecs - before,
        converged=True,
        method="exact",
    )


@dataclasses.dataclass(frozen=True)
class _Tolerance:
    tol: float
    floor: float

    def target(self, value: float, square: float) -> float:
        """The standard error to reach, for tr H = value and ‖H‖²_F = square."""
        return self.tol * max(abs(value), self.floor * math.sqrt(max(square, 0.0)))

    def met(self, estimate: Estimate, square: float) -> bool:
        return estimate.stderr <= self.target(estimate.value, square)


def planned(n: int, estimate: Estimate, target: float, most: int) -> int:
    """Number of samples that should reach the target, from what n gave.

    Looking after every sample would stop at the moment when the error seems smallest; few looks keep it calibrated.

    Returns:
        At least n + 4, at most `most`.
    """
    wanted = n * (estimate.stderr / target) ** 2 if target > 0 else math.inf
    return int(min(most, max(n + 4, math.ceil(min(wanted, 1e9)))))


def _hutchinson(operator: SymmetricOperator, within: _Tolerance, seed: int, budget: int) -> tuple[Estimate, bool]:
    size = operator.shape[0]
    samples: list[float] = []
    squares: list[float] = []
    parts: list[np.ndarray] = []
    wanted = 8
    while True:
        forms, lengths, shares = [], [], []
        with checked_later():
            for index in range(len(samples), wanted):
                probe = rademacher(size, seed, index).to(operator.device, operator.dtype)
                product, share = operator.by_batch(probe, functools.partial(torch.dot, probe), ())
                image = product.double()
                forms.append(torch.dot(probe.double(), image))
                lengths.append(torch.dot(image, image))
                shares += [] if share is None else [share]
        found = fetched([*forms, *lengths]).reshape(2, -1)
        require_finite_products(*found[0])
        samples += found[0].tolist()
        squares += found[1].tolist()
        parts += list(fetched(shares))
        square = float(np.mean(squares))
        spread, dof = form_error(np.array(samples), square, fourth_power(squares, size), size, signs=True)
        estimate = Estimate.student(float(np.mean(samples)), spread, len(samples), seed, dof)
        met = within.met(estimate, square)
        if met or wanted >= budget:
            error = of_contributions(operator.clusters, np.mean(parts, axis=0) if parts else None)
            return dataclasses.replace(estimate, stderr_sample=float(error)), met
        wanted = planned(wanted, estimate, within.target(estimate.value, square), budget)


def _streamed(
    operator: SymmetricOperator,
    within: _Tolerance,
    seed: int,
    budget: int,
    known: Sequence[Eigenpairs],
    directions: int,
) -> tuple[Estimate, bool]:
    """Take a subspace of a third of the products, or the known pairs, and then probes until the error is met."""
    parts = [pairs.parts.sum(axis=1) for pairs in known if pairs.parts is not None]
    own = np.sum(parts, axis=0) if known and len(parts) == len(known) else None
    streamed = StreamedTrace(operator, seed, [(pairs.vectors, pairs.values) for pairs in known], own)
    if not known and (count := min(directions, budget // 3, operator.shape[0] - 2)) > 0:
        streamed.span(count)
    taken, wanted = 0, 6
    most = budget - streamed.spent
    while True:
        streamed.probe(min(wanted, most) - taken)
        taken = min(wanted, most)
        estimate, square = streamed.estimate(fourth_power)
        if within.met(estimate, square):
            return estimate, True
        if taken >= most:
            return estimate, False
        wanted = planned(taken, estimate, within.target(estimate.value, square), most)


def _xtrace(operator: SymmetricOperator, within: _Tolerance, seed: int, budget: int) -> tuple[Estimate, bool]:
    size = operator.shape[0]
    most = max(2, min(budget // 2, size - 2))
    generator = np.random.default_rng(seed)
    sketch = Sketch.empty(operator)
    while True:
        fresh = torch.from_numpy(
            generator.standard_normal((min(max(6, sketch.count // 2), most - sketch.count), size)).T
        )
        sketch.grow(fresh * (np.sqrt(size) / torch.linalg.vector_norm(fresh, dim=0)))
        small = sketch.small()
        last = sketch.count >= most
        estimate = _exchangeable(small, seed, jackknife=last)
        # The correction only widens: it can wait until the error without it is small enough.
        if not last and within.met(estimate, small.square):
            estimate = _exchangeable(small, seed, jackknife=True)
        converged = within.met(estimate, small.square)
        if converged or last:
            error = of_contributions(operator.clusters, sketch.parts(small))
            return dataclasses.replace(estimate, stderr_sample=float(error)), converged


def _exchangeable(small: Small, seed: int, jackknife: bool) -> Estimate:
    forms = small.traces()
    count = len(forms)
    squares = small.residual_squares()
    rest = small.size - count + 1
    second, centre = float(squares.mean()), float(small.outside().mean())
    spread, dof = form_error(forms, second, fourth_power(squares, rest), rest, signs=False, mean=centre)
    factor = 1.0
    if jackknife:
        left_out = np.array([small.without(j)[1].traces().mean() for j in range(count)])
        deviations = float(((left_out - left_out.mean()) ** 2).sum())
        factor = exchangeable_factor((count - 1) / count * deviations, spread**2)
    error = float(np.hypot(spread * np.sqrt(factor), small.rounding))
    return Estimate.student(float(forms.mean()), error, count, seed, dof)


def _hutchpp(
    operator: SymmetricOperator, within: _Tolerance, seed: int, budget: int, known: Sequence[Eigenpairs]
) -> tuple[Estimate, bool]:
    deflated = Deflated(operator, seed, known)
    deflated.probe(6)
    gain, restarted = math.inf, False
    while True:
        estimate, square = deflated.estimate()
        if within.met(estimate, square):
            return estimate, True
        left = budget - deflated.spent
        if left < 1:
            return estimate, False
        target = within.target(estimate.value, square)
        needed = estimate.n * ((estimate.stderr / target) ** 2 - 1) if target > 0 else math.inf
        step = min(deflated.next_growth(), left - 1)
        # A larger subspace pays where the last directions saved more probes than they cost. Where they did not, the
        # Krylov space may hold one copy only of eigenvalues that come in many: one fresh start tells.
        if gain <= 1 and not restarted:
            deflated.restart()
            gain, restarted = math.inf, True
        if gain > 1 and 1 <= step < needed:
            before = deflated.variance()
            grown = deflated.grow(step)
            gain = needed * (1 - deflated.variance() / before) / max(grown, 1) if before > 0 else 0.0
            restarted &= gain <= 1
        else:
            deflated.probe(min(left, max(2, math.ceil(min(needed, left)))))
