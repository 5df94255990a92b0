"""How exact eigenvalues must be: to a share of their size, or to a share of their error over examples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from landscape._sampling_error import Clusters
from landscape.curvature._ritz_space import RitzSpace

SAMPLE = "sample"
# Where the batches do not tell a sampling error.
FALLBACK = 1e-3
_SHARE = 0.1
# A spread that is almost zero, or larger than the value, is no measure of accuracy.
_LEAST, _MOST = 1e-4, 0.05


class Accuracy:
    """The relative accuracy that each eigenvalue is wanted to.

    With tol="sample" it is a tenth of the value's standard error over examples (not widened), at least 10⁻⁴ and at most
    5 %. The error is taken from the present Ritz vectors.

    Args:
        tol: Relative accuracy, or "sample".
        clusters: Groups of batches that the operator knows; without them "sample" means 10⁻³.

    Attributes:
        number: `tol`, or what stands for "sample" where the error over examples is not known on the way.
        origin: "given", "sample", or "fallback" where "sample" had to be replaced by a number.

    Raises:
        ValueError: tol is neither a positive number nor "sample".
    """

    def __init__(self, tol: float | str, clusters: Clusters | None):
        check_tolerance(tol)
        self.origin = "given" if tol != SAMPLE else "fallback" if clusters is None else SAMPLE
        self.number = FALLBACK if isinstance(tol, str) else float(tol)
        self._clusters = clusters

    def as_number(self) -> dict[str, Any]:
        """Return what eigenpairs say of their tolerance where a search needs a number."""
        return {"tolerance": self.number, "tolerance_from": "given" if self.origin == "given" else "fallback"}

    def of(self, space: RitzSpace) -> np.ndarray:
        """Return the relative accuracy for each Ritz value, ascending, shape (count,)."""
        values, vectors = space.ritz()
        forms = space.forms.along(vectors) if self.origin == SAMPLE else None
        if forms is None or self._clusters is None:
            return np.full(len(values), self.number)
        sizes = np.maximum(np.abs(values), np.finfo(np.float64).tiny)
        return np.clip(_SHARE * self._clusters.spread(forms) / sizes, _LEAST, _MOST)


def check_tolerance(tol: float | str) -> None:
    """Refuse what is no tolerance of eigenvalues.

    Raises:
        ValueError: It is neither a positive number nor "sample".
    """
    if tol != SAMPLE and (isinstance(tol, str) or not 0 < tol < math.inf):
        raise ValueError(
            f"tol is {tol!r}; give a relative accuracy such as 1e-3, or 'sample' to stop at a tenth of the error over "
            "examples"
        )
