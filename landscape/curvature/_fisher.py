"""The Fisher information of a model's predictive distribution, and the empirical one of its labels."""

from __future__ import annotations

import numpy as np
import torch

from landscape._given import of_objective
from landscape.curvature._batchwise import CHUNK_SIZE, MEMORY_BUDGET
from landscape.curvature._gauss_newton import Metric, OutputOperator
from landscape.curvature._likelihood import information
from landscape.curvature._readings import Readings
from landscape.curvature._split import Split
from landscape.objective import Objective

KINDS = ("exact", "mc", "empirical")


class FisherOperator(OutputOperator):
    """A Fisher information matrix at fixed parameters; make it with `fisher`.

    Attributes:
        outputs: Name of the loss function whose input counts as the model's outputs.
        kind: "exact", "mc" or "empirical".
        draws: Labels drawn for each target; None unless Monte-Carlo.
        seed: Their seed; None unless Monte-Carlo.
        n: Number of examples (rows of the loss function's input with a counted target) behind an empirical one.
    """

    def __init__(
        self,
        objective: Objective,
        kind: str,
        vector: torch.Tensor | None,
        draws: int,
        seed: int,
        memory_budget: int,
        chunk_size: int,
    ):
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
        if draws < 1:
            raise ValueError(f"draws is {draws}; at least one label must be drawn for each target")
        self.kind = kind
        self.draws = draws if kind == "mc" else None
        self.seed = seed if kind == "mc" else None
        self._examples: dict[int, int] = {}
        super().__init__(objective, vector, memory_budget, chunk_size)
        self.n = sum(objective.processes.gather(sum(self._examples.values())))

    def _cut_at(self, parts: Split) -> torch.Tensor:
        return parts.source

    def _metric(self, index: int, parts: Split) -> Metric:
        if self.kind == "empirical":
            (slopes,) = torch.autograd.grad(parts.loss, parts.source, retain_graph=True)
            return _Labels(slopes, _is_single(parts))
        # Seeded by the batch, so that a rebuilt graph meets the same labels.
        return information(parts, self.draws, np.random.default_rng((self.seed or 0, index)))

    def _split(self, index: int) -> Split | None:
        parts = super()._split(index)
        if parts is not None:
            self._examples[index] = _counted_rows(parts)
        return parts

    def _evaluate(self, index: int) -> torch.Tensor:
        parts = self._split(index)
        return self._loss(index) if parts is None else parts.loss

    def _sum(
        self, block: torch.Tensor, kept: tuple[int, ...], readings: Readings, group: int | None = None
    ) -> torch.Tensor:
        product = super()._sum(block, kept, readings, group)
        if self.kind != "empirical":
            return product
        readings.scale(self.n)
        return product * self.n

    def __repr__(self) -> str:
        drawn = f", draws={self.draws}, seed={self.seed}" if self.kind == "mc" else ""
        return super().__repr__().replace("(", f"(kind={self.kind!r}{drawn}, ", 1)


class _Labels:
    """Σ_n δ_n δ_nᵀ on the outputs, where δ_n is the derivative of the loss in the outputs of example n.

    As JᵀδδᵀJ = (Jᵀδ)(Jᵀδ)ᵀ, no gradient of a single example is ever formed.
    """

    def __init__(self, slopes: torch.Tensor, single: bool):
        self._slopes = slopes.detach()
        # Counted from the end, as columns may come first.
        self._within = tuple(range(-slopes.ndim if single else 1 - slopes.ndim, 0))

    def __call__(self, tangents: torch.Tensor, batched: bool) -> torch.Tensor:
        along = tangents * self._slopes
        return self._slopes * (along.sum(dim=self._within, keepdim=True) if self._within else along)


def _is_single(parts: Split) -> bool:
    """Whether the loss is called on one example without a batch dimension."""
    return parts.source.ndim == 1 and parts.call is not None and parts.call.class_axis is not None


def _counted_rows(parts: Split) -> int:
    """Count the examples of a batch of which any target is counted."""
    if _is_single(parts) or parts.source.ndim == 0:
        return 1
    if parts.call is not None and parts.call.class_axis is not None:
        kept = parts.call.kept
        return int(kept.reshape(len(kept), -1).any(dim=1).sum())
    return len(parts.source)


@of_objective
def fisher(
    objective: Objective,
    kind: str = "exact",
    vector: torch.Tensor | None = None,
    draws: int = 1,
    seed: int = 0,
    memory_budget: int = MEMORY_BUDGET,
    chunk_size: int = CHUNK_SIZE,
) -> FisherOperator:
    """Make a Fisher information matrix of the mean loss as a symmetric linear operator.

    The loss is read as a sum of terms −a_r log p(y_r | z_r), one for each target, where a_r is whatever it weighs and
    divides by. "exact" is F = Σ_r a_r J_rᵀ E[s sᵀ] J_r with s = ∇_z log p(y | z_r) and y drawn from p(· | z_r): for
    cross-entropies and squares it equals the Gauss-Newton matrix. "mc" takes the mean over `draws` labels for each
    target instead of the expectation. "empirical" is Σ_n g_n g_nᵀ / N with the gradients g_n of the examples' own
    losses at their true labels, g_n / N being example n's share of ∇L; examples are the rows of the loss function's
    input. It is not an estimate of the others, and scales with the square of the loss.

    No gradient of a single example is formed; a product costs what one with the Gauss-Newton matrix does.

    Memory: as `ggn`.

    Args:
        objective: The loss over the measured examples; `cross_entropy`, `nll_loss`, `binary_cross_entropy` (with logits
            or not) or `mse_loss` for "exact" and "mc", anything for "empirical".
        kind: "exact", "mc" or "empirical".
        vector: Flat parameters, shape (P,), to take it at; by default a copy of the model's present ones.
        draws: Labels drawn for each target ("mc").
        seed: Their seed. They are drawn once: all products are with one matrix.
        memory_budget: Bytes that kept graphs may take; other batches are differentiated at every product.
        chunk_size: Columns of a block that are multiplied together where the model is so small that this pays.

    Returns:
        The operator, shape (P, P).

    Raises:
        MeasurementError: As in `ggn`, or the predictive distribution behind the loss is not known.
        ValueError: The kind is unknown, or draws is not positive.

    Source: Amari 1998, doi:10.1162/089976698300017746; Kunstner, Balles & Hennig 2019, arXiv:1905.12558 (why the
    empirical one is another matrix).

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.curvature import ggn
        >>> objective = Objective(torch.nn.Linear(2, 3), torch.nn.CrossEntropyLoss(), [(torch.eye(2), torch.arange(2))])
        >>> torch.allclose(fisher(objective).dense(), ggn(objective).dense(), atol=1e-6)
        True
    """
    return FisherOperator(objective, kind, vector, draws, seed, memory_budget, chunk_size)
