"""Curvature by blocks, and how far two curvature operators are apart."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch

from landscape._results import Estimate, Result
from landscape.curvature._calibration import form_error, fourth_power
from landscape.curvature._dense import DenseOperator
from landscape.curvature._eigenpairs import top_eigenpairs
from landscape.curvature._lanczos import rademacher
from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._trace import EXACT_SIZE, TraceEstimate, exact_trace, trace

# Up to this size a whole block costs no more than its largest eigenvalue and its trace.
_WHOLE = 64


@dataclasses.dataclass(frozen=True)
class LayerCurvature(Result):
    """Trace and largest eigenvalue of one diagonal block.

    Attributes:
        name: The block's name.
        size: Number of its parameters.
        trace: Its trace.
        lambda_max: Its largest eigenvalue.
        residual: ‖Hv − λv‖ of that.
        converged: Whether both met their tolerance.
        lambda_max_stderr_sample: Standard error over examples of the eigenvalue; NaN where it is not known.
    """

    name: str
    size: int
    trace: TraceEstimate
    lambda_max: float
    residual: float
    converged: bool
    lambda_max_stderr_sample: float


def layer_curvature(
    blocks: Mapping[str, SymmetricOperator] | Iterable[tuple[str, SymmetricOperator]],
    method: str = "xtrace",
    tol: float = 0.05,
    eigen_tol: float | str = 1e-3,
    seed: int = 0,
    max_matvecs: int = 200,
) -> list[LayerCurvature]:
    """Measure the trace and λ_max of each diagonal block of an operator, for example those of `H.layers()`.

    The traces of blocks that cover all parameters sum to the whole trace; λ_max of a block is at most that of the
    whole. Blocks of up to 64 parameters are taken whole; beyond, eigenvalue and trace are measured one after the other,
    and "hutch++" knows the eigenpair by then.

    Args:
        blocks: Restricted operators by name, made one after another where an iterable gives them.
        method: Method of `trace`.
        tol: Relative standard error of the traces.
        eigen_tol: Relative accuracy of the eigenvalues, or "sample", as in `top_eigenpairs`.
        seed: Seed of test and start vectors.
        max_matvecs: Most products for each trace and each eigenvalue.

    Returns:
        One result a block, in the order given.

    Raises:
        MeasurementError: A product is not finite.
    """
    found = []
    for name, block in blocks.items() if isinstance(blocks, Mapping) else blocks:
        size = block.shape[0]
        if size <= min(_WHOLE, max_matvecs):
            matrix, parts = block.whole(by_batch=True)
            whole = DenseOperator(matrix, parts, block.clusters)
            top = top_eigenpairs(whole, 1, tol=eigen_tol, seed=seed, method="dense")
            estimate = exact_trace(whole)
        else:
            top = top_eigenpairs(block, 1, tol=eigen_tol, seed=seed, max_matvecs=max_matvecs, method="lanczos")
            known = (top,) if method == "hutch++" and top.converged else ()
            estimate = trace(block, method, tol=tol, seed=seed, max_matvecs=max_matvecs, known=known)
        converged = bool(estimate.converged and top.converged)
        value, residual, sampled = (float(each[0]) for each in (top.values, top.residuals, top.stderr_sample))
        found.append(LayerCurvature(name, size, estimate, value, residual, converged, sampled))
    return found


@dataclasses.dataclass(frozen=True)
class Gap(Result):
    """How far two operators on the same parameters are apart.

    Attributes:
        frobenius: ‖A − B‖_F / ‖A‖_F.
        trace: (tr A − tr B) / |tr A|, with its error over examples where both operators are of one objective.
        cosine: ⟨A, B⟩_F / (‖A‖_F ‖B‖_F).
        n_matvecs: Number of products of both operators together.
    """

    frobenius: Estimate
    trace: Estimate
    cosine: float
    n_matvecs: int


def operator_gap(first: SymmetricOperator, second: SymmetricOperator, probes: int = 20, seed: int = 0) -> Gap:
    """Estimate the relative distance of two operators from the same probes, for example Hessian and GGN.

    With signs v: E‖Av − Bv‖² = ‖A − B‖²_F, E‖Av‖² = ‖A‖²_F, E vᵀ(A − B)v = tr A − tr B. Errors of the ratios are to
    first order. Where the parts of A that B lacks are what noise in the residuals leaves, the gap closes as a
    network fits its data. Up to P = 24 it is exact.

    Memory: a few vectors, whatever the number of probes.

    Args:
        first: The operator A, the unit of the distances.
        second: The operator B, of the same size.
        probes: Number of probes, two at least; each costs one product with A and one with B.
        seed: Their seed.

    Returns:
        The distances; NaN where A, or its trace, is zero.

    Raises:
        ValueError: The sizes differ or there are fewer than two probes.
        MeasurementError: A product is not finite.
    """
    size = first.shape[0]
    if second.shape != first.shape:
        raise ValueError(f"operators of shapes {first.shape} and {second.shape} have no distance; give them one layout")
    if probes < 2:
        raise ValueError(f"probes is {probes}; an error bar needs at least two")
    before = first.n_matvecs + second.n_matvecs
    exact = size <= EXACT_SIZE
    columns = torch.eye(size) if exact else (rademacher(size, seed, index) for index in range(probes))
    samples, parts = zip(*(_products(first, second, column) for column in columns), strict=True)
    spent = first.n_matvecs + second.n_matvecs - before
    each = {name: np.array([sample[name] for sample in samples]) for name in samples[0]}
    means = {name: float(values.mean()) for name, values in each.items()}
    norms = math.sqrt(means["aa"] * means["bb"])
    cosine = means["ab"] / norms if norms > 0 else math.nan
    share = means["dd"] / means["aa"] if means["aa"] > 0 else math.nan
    frobenius = _first_order(math.sqrt(share), each["dd"] - share * each["aa"], 2 * means["aa"], exact, seed)
    ratio = means["d"] / abs(means["a"]) if means["a"] != 0 else math.nan
    sampled = _over_examples(first, second, parts, means["a"], ratio)
    if exact or math.isnan(ratio):
        whole = dataclasses.replace(_first_order(ratio, each["d"], 1.0, exact, seed), stderr_sample=sampled)
        return Gap(frobenius, whole, cosine, spent)
    signed = ratio if means["a"] > 0 else -ratio
    # The quadratic form A - B - signed A is, to first order, the samples' own.
    second_power = np.maximum(each["dd"] - 2 * signed * each["ad"] + signed**2 * each["aa"], 0.0)
    forms = each["d"] - signed * each["a"]
    spread, dof = form_error(forms, float(second_power.mean()), fourth_power(second_power, size), size, signs=True)
    whole = Estimate.student(ratio, spread / abs(means["a"]), probes, seed, dof)
    return Gap(frobenius, dataclasses.replace(whole, stderr_sample=sampled), cosine, spent)


_Parts: TypeAlias = tuple[np.ndarray | None, np.ndarray | None]


def _products(
    first: SymmetricOperator, second: SymmetricOperator, column: torch.Tensor
) -> tuple[dict[str, float], _Parts]:
    """Multiply one probe by both, and keep scalar products alone: their own, and those of the groups of batches."""
    v = column.to(first.device, torch.float64)
    (a, of_a), (b, of_b) = (_product(operator, column) for operator in (first, second))
    a, b = a.double(), b.to(a.device, torch.float64)
    d = a - b
    pairs = {"aa": (a, a), "ab": (a, b), "bb": (b, b), "dd": (d, d), "ad": (a, d), "a": (v, a), "d": (v, d)}
    return {name: float(torch.dot(left, right)) for name, (left, right) in pairs.items()}, (of_a, of_b)


def _product(operator: SymmetricOperator, column: torch.Tensor) -> tuple[torch.Tensor, np.ndarray | None]:
    probe = column.to(operator.device, operator.dtype)
    product, forms = operator.by_batch(probe, functools.partial(torch.dot, probe), ())
    return product, None if forms is None else forms.double().cpu().numpy()


def _over_examples(
    first: SymmetricOperator, second: SymmetricOperator, parts: Sequence[_Parts], trace: float, ratio: float
) -> float:
    """Return the standard error over examples of (a − b)/|a|, by d(a − b)/|a| less the ratio times d|a|/|a|."""
    one, other = zip(*parts, strict=True)
    # Groups of other objectives would be other examples.
    if first.clusters is None or first.clusters is not second.clusters or math.isnan(ratio):
        return math.nan
    a, b = np.mean(one, axis=0), np.mean(other, axis=0)
    moves = (a - b - ratio * math.copysign(1.0, trace) * a) / abs(trace)
    return float(first.clusters.stderr(moves))


def _first_order(value: float, samples: np.ndarray, divisor: float, exact: bool, seed: int) -> Estimate:
    if exact and not math.isnan(value):
        return Estimate.exact(value)
    if not value > 0:
        return Estimate(value, 0.0 if value == 0 else math.nan, len(samples), seed)
    n = len(samples)
    spread = float(np.std(samples, ddof=1) / np.sqrt(n)) / (divisor * value)
    return Estimate.student(value, spread, n, seed, n - 1)
