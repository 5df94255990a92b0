"""Symmetric linear operators: restricted to some parameters, added and scaled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from landscape._layout import ParameterLayout
from landscape._selection import joined, modules, select, sublayout
from landscape.curvature._products import Products, Reader


class SymmetricOperator(Products):
    """A symmetric (P, P) matrix given by its products; subclasses say how to multiply one vector.

    Operators of equal size add, subtract and scale: `H + G`, `0.5 * H`, `H - G`, `-H`.

    Attributes:
        shape: (P, P).
        dtype: Type that products are computed in.
        device: Where they are computed.
        layout: Names and shapes of the parameters behind rows and columns; None where they are unknown.
        n_matvecs: Number of products taken so far.
        groups_alone: Whether a product with one group of batches (`of_group`) costs that group's share of a whole one.
        clusters: Groups of batches whose products add up to the operator's, for errors over examples; None where they
            cannot be told apart.
        of_examples: Whether it depends on the measured examples; weight decay does not.
    """

    of_examples = True

    def _sub_by_batch(
        self, block: torch.Tensor, kept: tuple[int, ...], read: Reader, shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Do what `by_batch` does with the sub-block of some tensors of the layout, without counting."""
        if self.clusters is None:
            return (self._submatvec if block.ndim == 1 else self._submatmat)(block, kept), None

        def of_rows(rows: torch.Tensor) -> torch.Tensor:
            return read(self._cut(rows.movedim(0, -1), kept).movedim(0, -1))

        product, readings = self._by_batch(self._pad(block, kept), of_rows, shape)
        return self._cut(product, kept), readings

    def _sub_of_group(self, vector: torch.Tensor, kept: tuple[int, ...], group: int) -> torch.Tensor:
        """Do what `of_group` does with the sub-block of some tensors of the layout, without counting."""
        return self._cut(self._of_group(self._pad(vector, kept), group), kept)

    def _submatvec(self, vector: torch.Tensor, kept: tuple[int, ...]) -> torch.Tensor:
        """Multiply the sub-block of some tensors of the layout; subclasses may leave out the rest of the work."""
        return self._cut(self._matvec(self._pad(vector, kept)), kept)

    def _submatmat(self, block: torch.Tensor, kept: tuple[int, ...]) -> torch.Tensor:
        """Multiply the columns of a block by the sub-block of some tensors of the layout."""
        return self._cut(self._matmat(self._pad(block, kept)), kept)

    def restrict(self, names: str | Sequence[str]) -> Restricted:
        """Take the sub-block of some parameters: rows and columns of all others are left out.

        Args:
            names: Names of parameters or of modules (all that is inside), or patterns such as `*.bias`; one or several.

        Returns:
            The operator of shape (p, p) with a layout of its own.

        Raises:
            ValueError: A name matches nothing, or the operator does not know its parameters.
        """
        return Restricted(self, select(self._known_layout(), names))

    def layers(self) -> dict[str, Restricted]:
        """Return the diagonal blocks by module, in order: of each, the parameters that it holds itself."""
        return {name: Restricted(self, kept) for name, kept in modules(self._known_layout()).items()}

    def weight_decay(self, decay: float | Mapping[str, float]) -> Sum:
        """Add the curvature of ½ Σ_i λ_i w_i², as optimizers mean their `weight_decay`.

        Args:
            decay: One λ for all parameters, or λ by name, module or pattern (as in `restrict`); the rest gets none.

        Returns:
            The operator plus diag(λ).

        Raises:
            ValueError: A name matches nothing, or two stand for the same parameter.
        """
        diagonal = torch.zeros(self.shape[0], dtype=self.dtype, device=self.device)
        if isinstance(decay, Mapping):
            layout = self._known_layout()
            taken: set[int] = set()
            for pattern, value in decay.items():
                for index in select(layout, pattern):
                    if index in taken:
                        raise ValueError(f"the weight decay of {layout.names[index]} is given twice; give it once")
                    taken.add(index)
                    diagonal[layout.slices()[index]] = value
        else:
            diagonal += decay
        return self + Diagonal(diagonal, self.layout)

    def _known_layout(self) -> ParameterLayout:
        if self.layout is None:
            raise ValueError(f"{self!r} does not know the names of its parameters, so none can be chosen by name")
        return self.layout

    def _cut(self, vector: torch.Tensor, kept: tuple[int, ...]) -> torch.Tensor:
        slices = self._known_layout().slices()
        return torch.cat([vector[part] for part in joined([slices[i] for i in kept])])

    def _pad(self, vector: torch.Tensor, kept: tuple[int, ...]) -> torch.Tensor:
        slices = self._known_layout().slices()
        padded = vector.new_zeros(self.shape[0], *vector.shape[1:])
        start = 0
        for part in joined([slices[i] for i in kept]):
            stop = start + part.stop - part.start
            padded[part] = vector[start:stop]
            start = stop
        return padded

    # ------------------------------------------------------------------ algebra

    def __add__(self, other: SymmetricOperator) -> Sum:
        return Sum([(1.0, self), (1.0, other)]) if isinstance(other, SymmetricOperator) else NotImplemented

    def __sub__(self, other: SymmetricOperator) -> Sum:
        return Sum([(1.0, self), (-1.0, other)]) if isinstance(other, SymmetricOperator) else NotImplemented

    def __mul__(self, factor: float) -> Sum:
        return Sum([(float(factor), self)]) if isinstance(factor, (int, float, np.number)) else NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Sum:
        return self * (1.0 / divisor) if isinstance(divisor, (int, float, np.number)) else NotImplemented

    def __neg__(self) -> Sum:
        return self * -1.0


class Diagonal(SymmetricOperator):
    """A diagonal matrix, given by its diagonal of shape (P,)."""

    of_examples = False

    def __init__(self, diagonal: torch.Tensor, layout: ParameterLayout | None = None):
        super().__init__(diagonal.shape[0], diagonal.dtype, diagonal.device, layout)
        self.diagonal = diagonal

    def _matvec(self, vector: torch.Tensor) -> torch.Tensor:
        return self.diagonal * vector

    def _matmat(self, block: torch.Tensor) -> torch.Tensor:
        return self.diagonal[:, None] * block


class Sum(SymmetricOperator):
    """Σ c_j A_j; a product takes one of every A_j, which count it too."""

    def __init__(self, terms: Sequence[tuple[float, SymmetricOperator]]):
        self.terms: list[tuple[float, SymmetricOperator]] = []
        for factor, operator in terms:
            # Sums of sums are flat, so that a long expression prints and multiplies as one.
            inner = operator.terms if isinstance(operator, Sum) else [(1.0, operator)]
            self.terms += [(factor * own, part) for own, part in inner]
        first = self.terms[0][1]
        known = [part.layout for _, part in self.terms if part.layout is not None]
        for _, part in self.terms:
            if part.shape != first.shape or (part.layout is not None and part.layout != known[0]):
                raise ValueError(
                    f"operators of shapes {first.shape} and {part.shape} over different parameters cannot be added; "
                    "take them of the same parameters (restrict both in the same way)"
                )
            if part.device != first.device or part.dtype != first.dtype:
                raise ValueError(
                    f"operators in {first.dtype} on {first.device} and in {part.dtype} on {part.device} cannot be "
                    "added; make both from objectives of one dtype on one device"
                )
        super().__init__(first.shape[0], first.dtype, first.device, known[0] if known else None)
        # Groups must be those of one objective: those of others would be other examples.
        groups = [part.clusters for _, part in self.terms if part.of_examples]
        self.clusters = groups[0] if groups and all(each is groups[0] for each in groups) else None

    def _by_batch(
        self, block: torch.Tensor, read: Reader, shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self.clusters is None:
            return self._matvec(block), None
        weights = torch.as_tensor(self.clusters.weights, dtype=block.dtype, device=block.device)
        weights = weights.reshape(-1, *[1] * len(shape))
        total, readings = torch.zeros_like(block), block.new_zeros((self.clusters.count, *shape))
        for factor, part in self.terms:
            product, found = part.by_batch(block, read, shape)
            total += factor * product
            # Of what does not depend on the examples each group has its share.
            readings += factor * (weights * read(product.movedim(0, -1)) if found is None else found)
        return total, readings

    def _sub_by_batch(
        self, block: torch.Tensor, kept: tuple[int, ...], read: Reader, shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self.clusters is None or any(part.layout is None for _, part in self.terms):
            return super()._sub_by_batch(block, kept, read, shape)
        return Sum([(factor, Restricted(part, kept)) for factor, part in self.terms])._by_batch(block, read, shape)

    def _matvec(self, vector: torch.Tensor) -> torch.Tensor:
        return sum(factor * part._product(vector) for factor, part in self.terms)  # type: ignore[return-value]

    def _matmat(self, block: torch.Tensor) -> torch.Tensor:
        return self._matvec(block)

    def _submatvec(self, vector: torch.Tensor, kept: tuple[int, ...]) -> torch.Tensor:
        total = torch.zeros_like(vector)
        for factor, part in self.terms:
            if part.layout is None:
                total += factor * self._cut(part._product(self._pad(vector, kept)), kept)
            else:
                total += factor * Restricted(part, kept)._product(vector)
        return total

    def _submatmat(self, block: torch.Tensor, kept: tuple[int, ...]) -> torch.Tensor:
        return self._submatvec(block, kept)

    def __repr__(self) -> str:
        inner = " + ".join(f"{factor:g} * {part!r}" for factor, part in self.terms)
        return f"Sum({inner}, n_matvecs={self.n_matvecs})"


class Restricted(SymmetricOperator):
    """The rows and columns of some parameters of an operator; make it with `SymmetricOperator.restrict`.

    Attributes:
        parent: The operator it is a block of, which counts its products too.
        kept: Indices of the tensors into the parent's layout.
    """

    def __init__(self, parent: SymmetricOperator, kept: tuple[int, ...]):
        own = sublayout(parent._known_layout(), kept)
        super().__init__(own.total, parent.dtype, parent.device, own)
        self.parent = parent
        self.kept = kept
        self.clusters, self.of_examples = parent.clusters, parent.of_examples
        self.groups_alone = parent.groups_alone

    def _of_group(self, vector: torch.Tensor, group: int) -> torch.Tensor:
        self.parent._count_share(group)
        return self.parent._sub_of_group(vector, self.kept, group)

    def _sub_of_group(self, vector: torch.Tensor, kept: tuple[int, ...], group: int) -> torch.Tensor:
        self.parent._count_share(group)
        return self.parent._sub_of_group(vector, tuple(self.kept[i] for i in kept), group)

    def _by_batch(
        self, block: torch.Tensor, read: Reader, shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        self.parent.n_matvecs += 1 if block.ndim == 1 else block.shape[1]
        return self.parent._sub_by_batch(block, self.kept, read, shape)

    def _sub_by_batch(
        self, block: torch.Tensor, kept: tuple[int, ...], read: Reader, shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        self.parent.n_matvecs += 1 if block.ndim == 1 else block.shape[1]
        return self.parent._sub_by_batch(block, tuple(self.kept[i] for i in kept), read, shape)

    def _matvec(self, vector: torch.Tensor) -> torch.Tensor:
        self.parent.n_matvecs += 1
        return self.parent._submatvec(vector, self.kept)

    def _matmat(self, block: torch.Tensor) -> torch.Tensor:
        self.parent.n_matvecs += block.shape[1]
        return self.parent._submatmat(block, self.kept)

    def _submatvec(self, vector: torch.Tensor, kept: tuple[int, ...]) -> torch.Tensor:
        self.parent.n_matvecs += 1
        return self.parent._submatvec(vector, tuple(self.kept[i] for i in kept))

    def _submatmat(self, block: torch.Tensor, kept: tuple[int, ...]) -> torch.Tensor:
        self.parent.n_matvecs += block.shape[1]
        return self.parent._submatmat(block, tuple(self.kept[i] for i in kept))

    def cut(self, vector: torch.Tensor) -> torch.Tensor:
        """Take the entries of these parameters out of a vector (P,) or block (P, k) of the parent's."""
        return self.parent._cut(vector, self.kept)

    def pad(self, vector: torch.Tensor) -> torch.Tensor:
        """Put a vector (p,) or block (p, k) of these parameters among zeros for all others."""
        return self.parent._pad(vector, self.kept)

    def __repr__(self) -> str:
        return f"Restricted({self.parent!r}, p={self.shape[0]}, {len(self.kept)} tensors, n_matvecs={self.n_matvecs})"
