"""The trace on a subspace, exactly, and the rest of it by fresh probes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from landscape._results import Estimate
from landscape._sampling_error import of_contributions
from landscape.curvature._calibration import form_error
from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._pairs import Eigenpairs
from landscape.curvature._sketch_forms import SketchForms
from landscape.curvature._xtrace import extend

_BLOCK = 4
# Directions that a block adds with less than this share of its length are rounding.
_NEW = 100.0


class Deflated:
    """tr H = tr QᵀHQ + E gᵀ(I−QQᵀ)H(I−QQᵀ)g: Q grows by block Krylov steps, the g are independent of it.

    Given Q the samples are independent, so their error is calibrated. The images Hg are kept: when Q grows, the samples
    of old probes are computed anew, for no products.
    """

    def __init__(self, operator: SymmetricOperator, seed: int, known: Sequence[Eigenpairs] = ()):
        self._operator = operator
        self._generator = np.random.default_rng((seed, 1))
        self.seed = seed
        size = operator.shape[0]
        nothing = torch.empty((size, 0), dtype=operator.dtype, device=operator.device)
        self._probes, self._images = nothing, nothing
        self._basis, self._basis_images = nothing, nothing
        self._frontier: torch.Tensor | None = None
        self.spent = 0
        self._forms = SketchForms(operator)
        self._known_parts: np.ndarray | float | None = 0.0
        self._known = 0
        if known:
            vectors = torch.cat([pairs.vectors.to(nothing) for pairs in known], 1)
            values = torch.as_tensor(np.concatenate([np.asarray(pairs.values) for pairs in known])).to(nothing)
            # Pairs of two searches are orthogonal to their accuracy only; both factors turn alike.
            basis, turn = torch.linalg.qr(vectors)
            parts = [pairs.parts for pairs in known if pairs.parts is not None]
            self._known_parts = np.concatenate(parts, axis=1).sum(axis=1) if len(parts) == len(known) else None
            self._known = basis.shape[1]
            self._basis = basis
            self._basis_images = torch.linalg.solve_triangular(turn, vectors * values, upper=True, left=False)

    def probe(self, count: int) -> None:
        """Add probes, for one product each."""
        fresh = self._normal(count)
        # Outside of the known vectors, whose own products with the groups were never taken.
        known = self._basis[:, : self._known]
        fresh = fresh - known @ (known.T @ fresh)
        images = self._forms.of_tests(self._basis[:, self._known :], fresh)
        self._probes = torch.cat([self._probes, fresh], 1)
        self._images = torch.cat([self._images, images], 1)
        self.spent += count

    def next_growth(self) -> int:
        """Number of directions to add next: half of those at hand, in whole blocks."""
        return max(2 * _BLOCK, self._basis.shape[1] // 2 // _BLOCK * _BLOCK)

    def grow(self, count: int) -> int:
        """Add about that many directions, for one product each.

        Returns:
            The number added, 0 where the Krylov space is exhausted.
        """
        added = 0
        while added < count:
            block = self._normal(_BLOCK) if self._frontier is None else self._frontier
            room = min(count - added, self._operator.shape[0] - self._basis.shape[1] - 2)
            if room < 1:
                break
            fresh = extend(self._basis, block[:, :room])
            self._basis = torch.cat([self._basis, fresh], 1)
            images = self._forms.of_basis(self._basis[:, self._known :], self._probes, fresh)
            self.spent += fresh.shape[1]
            added += fresh.shape[1]
            self._basis_images = torch.cat([self._basis_images, images], 1)
            self._frontier = self._rest_of(images)
        return added

    def restart(self) -> None:
        """Begin another Krylov space at the next growth."""
        self._frontier = None

    def _rest_of(self, images: torch.Tensor) -> torch.Tensor | None:
        """What the images add to the basis; None (a fresh start) where that is rounding in all of them."""
        rest = images - self._basis @ (self._basis.T @ images)
        new = torch.linalg.vector_norm(rest, dim=0)
        floor = _NEW * torch.finfo(images.dtype).eps * torch.linalg.vector_norm(images, dim=0)
        keep = new > floor
        return rest[:, keep] / new[keep] if bool(keep.any()) else None

    def _normal(self, count: int) -> torch.Tensor:
        draws = self._generator.standard_normal((count, self._operator.shape[0]))
        return torch.from_numpy(draws).T.to(self._operator.device, self._operator.dtype)

    def _samples(self) -> tuple[np.ndarray, np.ndarray]:
        """Forms of the residual part and of its square, for probes uniform on the sphere of its space."""
        inside = self._basis.T @ self._probes
        outside = self._probes - self._basis @ inside
        images = self._images - self._basis_images @ inside  # H (I − QQᵀ) g
        images = images - self._basis @ (self._basis.T @ images)
        outside, images = outside.double(), images.double()
        scale = self._rest / (outside**2).sum(dim=0)
        forms = (outside * images).sum(dim=0) * scale
        return forms.cpu().numpy(), ((images**2).sum(dim=0) * scale).cpu().numpy()

    def _over_examples(self) -> float:
        """Return the standard error over examples, from the estimate's own form for each group of batches."""
        inside = self._basis.T @ self._probes
        outside = self._probes - self._basis @ inside
        scale = (self._rest / torch.linalg.vecdot(outside.T, outside.T)).double().cpu().numpy()
        part = inside[self._known :].double().cpu().numpy()

        def estimate(core: np.ndarray, upper: np.ndarray, forms: np.ndarray) -> float:
            rest = forms - 2 * (part * upper).sum(axis=0) + (part * (core @ part)).sum(axis=0)
            return float(np.trace(core) + (scale * rest).mean())

        found = self._forms.along(estimate)
        whole = None if found is None or self._known_parts is None else found + self._known_parts
        return float(of_contributions(self._operator.clusters, whole))

    @property
    def _rest(self) -> int:
        return self._operator.shape[0] - self._basis.shape[1]

    def variance(self) -> float:
        """The variance that one probe of the residual has."""
        forms, squares = self._samples()
        return 2 * max(float(squares.mean()) - float(forms.mean()) ** 2 / self._rest, 0.0)

    def estimate(self) -> tuple[Estimate, float]:
        """Return the estimate of tr H and one of ‖H‖²_F."""
        forms, squares = self._samples()
        core = (self._basis.T @ self._basis_images).double().cpu().numpy()
        mean = float(squares.mean())
        fourth = float(np.clip(np.var(squares, ddof=1) / 2, mean**2 / self._rest, mean**2))
        spread, dof = form_error(forms, mean, fourth, self._rest, signs=False)
        eps = float(torch.finfo(self._probes.dtype).eps)
        rounding = 4 * eps * float(np.abs(core).sum() + np.abs(forms).mean())
        value = float(np.trace(core)) + float(forms.mean())
        # Off the blocks on the diagonal H has the coupling of Q to the rest, on both sides.
        coupled = float((self._basis_images.double() ** 2).sum()) - float((core**2).sum())
        square = float((core**2).sum()) + 2 * max(coupled, 0.0) + mean
        found = Estimate.student(value, float(np.hypot(spread, rounding)), len(forms), self.seed, dof)
        return dataclasses.replace(found, stderr_sample=self._over_examples()), square
