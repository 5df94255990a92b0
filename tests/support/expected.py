"""The right value of every measure, from the bare float64 loss; each function says what is wrong, or nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from landscape_test_support.bare import Hidden
from torch import nn

from landscape import Objective
from landscape.compression import bits
from landscape.sharpness import worst_case
from landscape.sharpness._noise import draw
from landscape.volume import learning_coefficient

_RELATIVE = 1e-4
_ABSOLUTE = 2e-6  # rounding of a float32 loss


def differs(recorded: float, right: float, relative: float = _RELATIVE, absolute: float = _ABSOLUTE) -> str:
    """Return what is wrong with a recorded number, empty where nothing is."""
    if math.isclose(recorded, right, rel_tol=relative, abs_tol=absolute):
        return ""
    return f"recorded {recorded:.6g}, right {right:.6g}"


def settings(row: Any) -> Any:
    """Return the settings that a row was recorded with."""
    return row.attrs["settings"]


def loss(reference: Any, row: Any, run: Any) -> str:
    """The mean of the module's own steps."""
    return differs(float(row["train_loss"]), reference.last.loss(), 1e-5)


def lambda_max(reference: Any, row: Any, run: Any) -> str:
    """The largest eigenvalue of the dense Hessian."""
    bare = reference.last
    if bare.surrogate:
        return "a number, although the gradient is not the loss's"
    values = torch.linalg.eigvalsh(bare.hessian)
    return differs(float(row["lambda_max"]), float(values[-1]), absolute=_RELATIVE * float(values.abs().max()))


def trace(reference: Any, row: Any, run: Any) -> str:
    """The dense Hessian's trace, within five recorded standard errors."""
    bare = reference.last
    if bare.surrogate:
        return "a number, although the gradient is not the loss's"
    size = float(torch.linalg.matrix_norm(bare.hessian))
    allowed = 5 * float(row["trace_stderr"]) + _RELATIVE * size
    return differs(float(row["trace"]), float(torch.trace(bare.hessian)), absolute=allowed)


def sam(reference: Any, row: Any, run: Any) -> str:
    """The rise after one step of length 0.05 along the gradient."""
    bare = reference.last
    if bare.surrogate:
        return "a number, although the gradient is not the loss's"
    gradient, here = bare.gradient(), bare.loss()
    right = bare.loss(bare.vector() + 0.05 * gradient / gradient.norm()) - here
    return differs(float(row["sam"]), right, 1e-3, _ABSOLUTE * (1 + abs(here)))


def average_case(reference: Any, row: Any, run: Any) -> str:
    """The mean rise under the same perturbations, each draw with both signs."""
    bare, pairs = reference.last, settings(row)["draws"] // 2
    weights, here = bare.vector(), bare.loss()
    moves = [0.1 * weights.abs() * draw(len(weights), "l2", 0, index).double() for index in range(pairs)]
    right = float(np.mean([bare.loss(weights + sign * move) - here for move in moves for sign in (1, -1)]))
    return differs(float(row["average_case"]), right, 1e-3, _ABSOLUTE * (1 + abs(here)))


def worst(reference: Any, row: Any, run: Any) -> str:
    """The same search in the bare loss."""
    right = worst_case(plain(reference), steps=settings(row)["steps"]).value
    return differs(float(row["worst_case"]), right, 2e-2, _ABSOLUTE)


def fewest_bits(reference: Any, row: Any, run: Any) -> str:
    """The same code for the bare loss in the module's own type, in which the code writes its scales."""
    right = bits(plain(reference, None), tolerances=settings(row)["tolerances"]).bits
    found = [differs(*map(float, pair), 2e-2) for pair in zip(row["bits"].values.reshape(-1), right, strict=True)]
    return next(filter(None, found), "")


def connectivity(reference: Any, row: Any, run: Any) -> str:
    """The loss at both ends and in the middle of the line between the two epochs."""
    first, last = reference.bare(0), reference.last
    if len(first.vector()) != len(last.vector()):
        return "a number, although the two ends have different parameters"
    recorded = row["curve_train_loss"].isel(path=0)
    for position in (0.0, 0.5, 1.0):
        value = recorded.sel(t=position)
        middle = reference.bare()
        middle._move((1 - position) * first.vector() + position * last.vector())
        middle.recompute_batchnorm()
        if wrong := differs(float(value), middle.loss(), _RELATIVE):
            return f"at t = {position}: {wrong}"
    return ""


def coefficient(reference: Any, row: Any, run: Any) -> str:
    """nβ from the number of examples, and the same chains over the bare loss."""
    if reference.last.surrogate:
        return "a number, although the gradient is not the loss's"
    n = sum(count for count, share in zip(reference.counts, reference.shares, strict=True) if share)
    if wrong := differs(float(row["nbeta"]), n / math.log(n), 1e-6):
        return f"nβ: {wrong}"
    objective, given = plain(reference, None), settings(row)
    names = ("chains", "draws", "step_size")
    right = learning_coefficient(objective, **{name: given[name] for name in names})
    # The chains draw batches: only where all batches count by their examples are they the very same chains.
    alike = np.allclose(objective.module.factors, 1.0, rtol=1e-6)
    error = 0.0 if alike else 4 * math.hypot(right.stderr, float(row["learning_coefficient_stderr"]))
    return differs(float(row["learning_coefficient"]), right.value, 2e-2, 1e-3 + error)


def weights(reference: Any, row: Any, run: Any) -> str:
    """The state that the run file gives back is the module's own."""
    module = reference.modules[-1]
    recorded, own = run.state_dict(int(row["step"])), module.state_dict()
    for name, tensor in own.items():
        if name not in recorded:
            return f"{name} is not recorded"
        if not torch.allclose(recorded[name].double(), tensor.double(), rtol=0, atol=0, equal_nan=True):
            return f"{name} is not what it was"
    return ""


class Holds(nn.Module):
    """Gives the bare loss of the batch whose number stands in the input; its loss functions cannot be seen."""

    def __init__(self, reference: Any, dtype: torch.dtype | None):
        super().__init__()
        self.bare = reference.bare(dtype=dtype)
        self.module = self.bare.module
        total = sum(reference.shares)
        known = [count if share else 0 for count, share in zip(reference.counts, reference.shares, strict=True)]
        self.counts = known
        self.factors = [
            share / total / (count / sum(known)) if count else 0.0
            for share, count in zip(reference.shares, known, strict=True)
        ]

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return the mean over rows, each the loss of a batch, weighted such that rows count like examples."""
        total, wide = numbers.new_zeros(()), numbers.dtype == torch.float64
        indices, counts = numbers.unique(return_counts=True)
        with torch.enable_grad(), Hidden():
            for index, count in zip(map(int, indices), counts.tolist(), strict=True):
                total = total + count / len(numbers) * self.factors[index] * self.bare.batch_loss(index, wide)
        return total


def plain(reference: Any, dtype: torch.dtype | None = torch.float64) -> Objective:
    """Return an objective with nothing to understand: the bare loss, in float64 or (None) in the module's type."""
    if next(reference.modules[-1].parameters()).dtype == torch.float64:
        dtype = torch.float64
    holder = Holds(reference, dtype)
    batches = [
        (torch.full((count,), float(index)), torch.zeros(count)) for index, count in enumerate(holder.counts) if count
    ]
    return Objective(holder, lambda output, target: output, batches, dtype=dtype)


EXPECTED = {
    "loss": loss,
    "lambda_max": lambda_max,
    "trace": trace,
    "average_case": average_case,
    "worst_case": worst,
    "sam": sam,
    "bits": fewest_bits,
    "connectivity": connectivity,
    "learning_coefficient": coefficient,
    "weights": weights,
}
