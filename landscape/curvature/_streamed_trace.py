"""Hutch++ with few vectors: the trace on a small subspace exactly, and the rest by probes that are not kept."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch

from landscape._fetching import fetched
from landscape._results import Estimate
from landscape._sampling_error import of_contributions
from landscape.curvature._calibration import form_error
from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._products import checked_later, require_finite_products

VECTORS = 4  # of the operator's length at once, beside the subspace
_PIECE = 1 << 20  # numbers drawn at a time


class StreamedTrace:
    """tr H = tr QᵀHQ + E zᵀHz, with z uniform on the sphere of radius √(P − b) orthogonal to b directions Q.

    Q is chosen before the first probe is drawn. So a probe needs to be seen once, and neither probes nor images are
    kept. `Deflated` keeps both, because it enlarges Q between the probes.

    Known eigenvectors make up Q where they are given. They are used where they lie, without a copy, and need not be
    orthogonal to the last digit: the projector is Q(QᵀQ)⁻¹Qᵀ.

    Memory: b vectors of the subspace where no eigenpairs are given, and `VECTORS` more.

    Args:
        operator: The symmetric operator, shape (P, P).
        seed: Seed of the directions and probes.
        known: Eigenvectors (P, k) with their eigenvalues (k,), any number of such pairs.
        known_parts: What each group of batches contributes to all these eigenvalues together, shape (groups,); without,
            the error over examples is not known where there are any.
    """

    def __init__(
        self,
        operator: SymmetricOperator,
        seed: int,
        known: Sequence[tuple[torch.Tensor, np.ndarray]] = (),
        known_parts: np.ndarray | None = None,
    ):
        self._operator = operator
        self._generator = torch.Generator().manual_seed(seed)
        self.seed = seed
        self._blocks = [vectors for vectors, values in known if len(values)]
        self._inside = float(sum(np.sum(values) for _, values in known))
        self._square = float(sum(np.sum(np.square(values)) for _, values in known))
        self._gram = self._inner()
        # What groups of batches contribute to the trace on Q, and to each probe.
        self._parts: np.ndarray | float | None = known_parts if known else 0.0
        self._shares: list[np.ndarray] = []
        self._forms: list[float] = []
        self._squares: list[float] = []
        self.spent = 0

    @property
    def directions(self) -> int:
        """Number b of directions in the subspace."""
        return len(self._gram)

    def span(self, count: int) -> None:
        """Make a subspace of Lanczos directions, for one product each; before the first probe only.

        Args:
            count: Number of directions.
        """
        basis = torch.empty((count, self._operator.shape[0]), dtype=self._operator.dtype, device=self._operator.device)
        direction = self._normal()
        for index in range(count):
            for _ in range(2):  # twice against rounding
                direction.addmv_(basis[:index].T, torch.mv(basis[:index], direction), alpha=-1)
            norm = torch.linalg.vector_norm(direction)
            if float(norm) == 0.0:  # the Krylov space is exhausted
                basis = basis[:index]
                break
            basis[index] = direction.div_(norm)
            read = functools.partial(torch.dot, basis[index])
            direction, share = self._operator.by_batch(basis[index], read, ())
            self._parts = None if self._parts is None or share is None else self._parts + share.double().cpu().numpy()
            form = float(torch.dot(direction, basis[index]))
            self._inside += form
            self._square += form**2
            self.spent += 1
        self._blocks.append(basis.T)
        self._gram = self._inner()

    def probe(self, count: int) -> None:
        """Take that many probes, for one product each."""
        forms, squares, shares = [], [], []
        with checked_later():
            for _ in range(count):
                vector = self._outside(self._normal())
                vector.mul_(self._rest**0.5 / torch.linalg.vector_norm(vector))
                # Orthogonal to Q, the probe sees of a group's image what lies outside.
                image, share = self._operator.by_batch(vector, functools.partial(torch.dot, vector), ())
                shares += [] if share is None else [share]
                image = self._outside(image)
                forms.append(torch.dot(vector, image))
                squares.append(torch.dot(image, image))
                self.spent += 1
        found = fetched([*forms, *squares]).reshape(2, -1)
        require_finite_products(*found[0])
        self._forms += found[0].tolist()
        self._squares += found[1].tolist()
        self._shares += list(fetched(shares))

    def estimate(self, fourth: Callable[[np.ndarray, int], float]) -> tuple[Estimate, float]:
        """Return the estimate of tr H, and a lower estimate of ‖H‖²_F.

        Args:
            fourth: Estimates tr A⁴ from forms that estimate tr A².

        Returns:
            The two.
        """
        forms, squares = np.array(self._forms), np.array(self._squares)
        mean = float(squares.mean())
        spread, dof = form_error(forms, mean, fourth(squares, self._rest), self._rest, signs=False)
        value = self._inside + float(forms.mean())
        rounding = 4 * float(torch.finfo(self._operator.dtype).eps) * (abs(self._inside) + float(np.abs(forms).mean()))
        error = float(np.hypot(spread, rounding))
        estimate = Estimate.student(value, error, len(forms), self.seed, dof)
        parts = None if self._parts is None or not self._shares else self._parts + np.mean(self._shares, axis=0)
        sampled = float(of_contributions(self._operator.clusters, parts))
        return dataclasses.replace(estimate, stderr_sample=sampled), self._square + mean

    @property
    def _rest(self) -> int:
        return self._operator.shape[0] - self.directions

    def _normal(self) -> torch.Tensor:
        """Draw a vector of independent normal numbers, piece by piece."""
        vector = torch.empty(self._operator.shape[0], dtype=self._operator.dtype, device=self._operator.device)
        for piece in vector.split(_PIECE):
            piece.copy_(torch.randn(len(piece), generator=self._generator, dtype=torch.float32))
        return vector

    def _inner(self) -> np.ndarray:
        """Return QᵀQ, shape (b, b), float64."""
        rows = [[(one.T @ other).double().cpu().numpy() for other in self._blocks] for one in self._blocks]
        return np.block(rows) if rows else np.zeros((0, 0))

    def _outside(self, vector: torch.Tensor) -> torch.Tensor:
        """Take the part in the subspace out of a vector, in place."""
        if not self.directions:
            return vector
        overlaps = np.concatenate([(block.T @ vector).double().cpu().numpy() for block in self._blocks])
        weights = torch.as_tensor(np.linalg.solve(self._gram, overlaps), dtype=vector.dtype, device=vector.device)
        for block, part in zip(self._blocks, weights.split([block.shape[1] for block in self._blocks]), strict=True):
            vector.addmv_(block, part, alpha=-1)
        return vector
