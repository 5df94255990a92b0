"""Kronecker-factored curvature and its inverse, computed by curvlinops behind this package's face."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from landscape._derivatives import require_gradient
from landscape._errors import MeasurementError
from landscape._given import of_objective
from landscape._selection import sublayout
from landscape._step import ModelStep
from landscape.curvature._operator import SymmetricOperator
from landscape.objective import Objective

_LOSSES = (nn.CrossEntropyLoss, nn.MSELoss, nn.BCEWithLogitsLoss)
_LAYERS = (nn.Linear, nn.Conv2d)


class KroneckerOperator(SymmetricOperator):
    """A block-diagonal approximation of the Gauss-Newton matrix by Kronecker factors; make it with `kfac`.

    Attributes:
        method: "kfac" or "ekfac".
        damping: What was added to the diagonal before inversion; None for the matrix itself.
    """

    def __init__(self, objective: Objective, method: str, engine: Any, kept: tuple[int, ...], damping: float | None):
        layout = sublayout(objective.layout, kept)
        super().__init__(layout.total, objective.dtype, objective.device, layout)
        self.method = method
        self.damping = damping
        self._engine = engine

    def inverse(self, damping: float) -> KroneckerOperator:
        """Return (K + damping·I)⁻¹, computed exactly from the factors' eigenvectors.

        Args:
            damping: Positive number added to every eigenvalue.

        Returns:
            The operator of the same shape.

        Raises:
            ValueError: The damping is not positive, or this is an inverse already.
        """
        if self.damping is not None:
            raise ValueError("this is an inverse already; take the inverse of what kfac(...) returns")
        if not damping > 0:
            raise ValueError(f"damping is {damping}; Kronecker factors are singular, so it must be positive")
        inverted = copy.copy(self)
        inverted.n_matvecs = 0
        inverted.damping = damping
        inverted._engine = _curvlinops().KFACInverseLinearOperator(
            self._engine, damping=damping, use_exact_damping=True, cache=True
        )
        return inverted

    def eigenbasis(self) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
        """Decompose every A ⊗ B by the eigenvectors of its two factors.

        Returns:
            The eigenvalues, shape (p,), in float64 and in no order, and v ↦ Uᵀv for vectors of shape (p,), with
            K = U diag(eigenvalues) Uᵀ.

        Raises:
            ValueError: This is an inverse, or its eigenvalues are not products of its factors' (EKFAC).
        """
        if self.damping is not None or self.method != "kfac":
            raise ValueError(f"eigenvalues are taken of kfac(objective, 'kfac') itself; this is {self!r}")
        layout, factors = self.layout, self._engine.state_dict()
        assert layout is not None
        inputs, outputs = factors["input_covariances"], factors["gradient_covariances"]
        values, bases = [], []
        for name in layout.names:
            module, _, kind = name.rpartition(".")
            pair = [outputs[module]] + ([inputs[module]] if kind == "weight" else [])
            (left, rows), *right = [torch.linalg.eigh(factor.double()) for factor in pair]
            across, columns = right[0] if right else (left.new_ones(1), left.new_ones(1, 1))
            values.append(torch.outer(left, across).reshape(-1))
            bases.append((rows, columns))

        def rotated(vector: torch.Tensor) -> torch.Tensor:
            parts = layout.unflatten(vector.double())
            turned = [
                rows.T @ part.reshape(len(rows), -1) @ columns
                for part, (rows, columns) in zip(parts, bases, strict=True)
            ]
            return torch.cat([part.reshape(-1) for part in turned])

        return torch.cat(values), rotated

    def _matvec(self, vector: torch.Tensor) -> torch.Tensor:
        return self._engine @ vector

    def _matmat(self, block: torch.Tensor) -> torch.Tensor:
        return self._engine @ block

    def __repr__(self) -> str:
        inverse = "" if self.damping is None else f"inverse, damping={self.damping:g}, "
        return f"KroneckerOperator({self.method}, {inverse}P={self.shape[0]}, n_matvecs={self.n_matvecs})"


@of_objective
def kfac(objective: Objective, method: str = "kfac", approximation: str = "expand") -> KroneckerOperator:
    """Approximate the Gauss-Newton matrix by one Kronecker product A ⊗ B a layer, weights and biases apart.

    A is the mean outer product of a layer's inputs, B that of the derivatives of the loss in its outputs (with the
    exact loss Hessian, as many backward passes as outputs). It is exact for a deep linear network on one example. It
    knows linear and two-dimensional convolutional layers; the operator is over their trainable parameters only, with a
    layout of its own.

    Memory: the factors, and a copy of the module.

    Args:
        objective: Made by `Objective(model, loss_fn, batches)` with `CrossEntropyLoss`, `MSELoss` or
            `BCEWithLogitsLoss`, averaging, without weights or ignored targets.
        method: "kfac", or "ekfac" with corrected eigenvalues.
        approximation: "expand" or "reduce": what layers that share weights over positions do.

    Returns:
        The operator, shape (p, p) with p ≤ P; `.inverse(damping)` for its inverse.

    Raises:
        MeasurementError: curvlinops is not installed, or the objective is not as said.
        ValueError: The method or approximation is unknown.

    Source: Martens & Grosse 2015, arXiv:1503.05671; George et al. 2018, arXiv:1806.03884 (EKFAC); Eschenhagen et al.
    2023, arXiv:2311.00636 (shared weights). Computed by curvlinops.
    """
    if method not in ("kfac", "ekfac"):
        raise ValueError(f"method is {method!r}; it must be 'kfac' or 'ekfac'")
    if approximation not in ("expand", "reduce"):
        raise ValueError(f"approximation is {approximation!r}; it must be 'expand' or 'reduce'")
    require_gradient(objective)
    loss_fn = _plain_loss(objective)
    curvlinops = _curvlinops()
    # A copy at the objective's point: hooks and training do not meet.
    model = copy.deepcopy(objective.module).to(objective.dtype).eval()
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, part in objective.layout.named(objective.vector()).items():
            named[name].copy_(part)
        buffers = dict(model.named_buffers())
        for name, buffer in objective.buffers().items():
            buffers[name].copy_(buffer)
    held = {id(p) for layer in model.modules() if isinstance(layer, _LAYERS) for p in layer.parameters(recurse=False)}
    kept = tuple(i for i, name in enumerate(objective.layout.names) if id(named[name]) in held)
    if not kept:
        raise MeasurementError(
            f"{type(model).__name__} has no trainable linear or two-dimensional convolutional layer, which is all that "
            "Kronecker factors are known for; use ggn(objective)"
        )
    make = curvlinops.KFACLinearOperator if method == "kfac" else curvlinops.EKFACLinearOperator
    engine = make(
        model,
        loss_fn,
        [named[objective.layout.names[i]] for i in kept],
        objective.batches,
        check_deterministic=False,  # the objective has probed that
        fisher_type=curvlinops.FisherType.TYPE2,
        kfac_approx=approximation,
        separate_weight_and_bias=True,
    )
    operator = KroneckerOperator(objective, method, engine, kept, None)
    with objective.session():
        # The first product computes the factors, with hooks and passes that are kept apart from the training.
        operator._matvec(torch.zeros(operator.shape[0], dtype=operator.dtype, device=operator.device))
    return operator


def _plain_loss(objective: Objective) -> nn.Module:
    loss_fn: Any = objective._step._loss_fn if isinstance(objective._step, ModelStep) else None
    plain = (
        isinstance(loss_fn, _LOSSES)
        and loss_fn.reduction == "mean"
        and getattr(loss_fn, "weight", None) is None
        and getattr(loss_fn, "pos_weight", None) is None
        and not getattr(loss_fn, "label_smoothing", 0.0)
    )
    ignored = plain and any(
        bool((target == loss_fn.ignore_index).any())
        for _, target in objective.batches
        if isinstance(loss_fn, nn.CrossEntropyLoss) and not target.is_floating_point()
    )
    if not plain or ignored or objective.mode != "eval":
        raise MeasurementError(
            "Kronecker factors need Objective(model, loss_fn, batches) in eval mode with a plain CrossEntropyLoss, "
            "MSELoss or BCEWithLogitsLoss (reduction='mean', no weights, smoothing or ignored targets); use "
            "ggn(objective), which takes any"
        )
    return loss_fn


def _curvlinops() -> Any:
    # Imported here because it is optional.
    try:
        import curvlinops
    except ImportError as error:
        raise MeasurementError(
            "KFAC is computed by curvlinops, which is not installed; install the extra landscape-geometry[kfac]. On a "
            "CPU build of torch install curvlinops-for-pytorch and backpack-for-pytorch with --no-deps, as they would "
            f"replace it ({error})"
        ) from error
    return curvlinops
