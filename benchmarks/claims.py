"""Count how often `top_eigenpairs` calls eigenvalues converged that are not the ten largest.

Made-up searches, P = 20000: ten outliers and a bulk next to the last of them, as networks have, where one of the ten
is doubled or tripled, exactly or nearly (a relative distance of 10⁻⁵). A Krylov space from one start holds one vector
of a multiple eigenvalue, so only the second look can meet the others. The eigenvectors are those of a cosine
transform with random signs, on which random starts have normal components.

Each of six groups of batches has the same eigenvectors. Its eigenvalues scatter about those of the mean by `--noise`,
their standard error over examples. No direction is easier to miss in a part of the data: every other part of H_g only
adds to what is met.

A claim is wrong where a value that is called converged is off by more than its tolerance, or, with tol="sample", by
more than its error over examples.

    python benchmarks/claims.py --tol 1e-3
    python benchmarks/claims.py --tol sample --first-seed 50000 --seeds 80 [--whole-look]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import scipy.fft
import torch

from landscape._sampling_error import Clusters
from landscape.curvature import top_eigenpairs
from landscape.curvature._operator import SymmetricOperator
from landscape.curvature._products import Reader

K = 10
GROUPS = 6
OUTLIERS = np.array([40.8, 39.1, 25.0, 22.4, 19.7, 13.7, 12.6, 10.0, 7.0, 2.8])
NEARLY = 1e-5


class Batches(SymmetricOperator):
    """An operator with given eigenvalues whose groups of batches scatter about them by a share of their size."""

    def __init__(self, eigenvalues: np.ndarray, noise: float, seed: int, groups: bool):
        size = len(eigenvalues)
        super().__init__(size, torch.float32, torch.device("cpu"))
        random = np.random.default_rng(seed)
        place = random.permutation(size)
        scatter = random.normal(size=(GROUPS, size)) * noise * np.sqrt(GROUPS)
        parts = eigenvalues * (1 + scatter - scatter.mean(axis=0)) / GROUPS
        self._eigenvalues = eigenvalues[place].astype(np.float32)
        self._parts = parts[:, place].astype(np.float32)
        self._signs = random.choice([-1.0, 1.0], size).astype(np.float32)
        self.groups_alone = groups
        self.clusters = Clusters.of([1 / GROUPS] * GROUPS, [256] * GROUPS, False) if groups else None

    def _matvec(self, vector: torch.Tensor) -> torch.Tensor:
        return self._back(self._eigenvalues * self._forth(vector))

    def _by_batch(
        self, block: torch.Tensor, read: Reader, shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        inner = self._forth(block)
        return self._matvec(block), torch.stack([read(self._back(part * inner)) for part in self._parts])

    def _of_group(self, vector: torch.Tensor, group: int) -> torch.Tensor:
        return self._back(GROUPS * self._parts[group] * self._forth(vector))

    def _forth(self, vector: torch.Tensor) -> np.ndarray:
        found: np.ndarray = scipy.fft.dct(self._signs * vector.numpy(), norm="ortho")
        return found

    def _back(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self._signs * scipy.fft.idct(array, norm="ortho"))


def spectra(size: int) -> Iterator[np.ndarray]:
    """Yield descending eigenvalues: each of the ten doubled and tripled, exactly and nearly."""
    bulk = 2.6 * np.random.default_rng(0).uniform(-1, 1, size - K) ** 5
    for copies in (1, 2):
        for apart in (0.0, NEARLY):
            for index in range(K):
                exact = np.concatenate([OUTLIERS, bulk])
                exact[-copies:] = OUTLIERS[index] * (1 - apart * np.arange(1, copies + 1))
                yield np.sort(exact)[::-1].copy()


def main() -> None:
    """Read the arguments, search and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tol", default="1e-3", help="a number or 'sample'")
    parser.add_argument("--seeds", type=int, default=16, help="searches for each of the forty spectra")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--whole-look", action="store_true", help="look at all examples, and at no part of them first")
    parser.add_argument("--size", type=int, default=20000)
    parser.add_argument("--noise", type=float, default=0.045, help="error over examples, relative")
    parser.add_argument("--without-groups", action="store_true", help="one batch: nothing is known of its examples")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tol = arguments.tol if arguments.tol == "sample" else float(arguments.tol)
    searches = claims = wrong = pairs = wrong_pairs = spent = 0
    for number, exact in enumerate(spectra(arguments.size)):
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            operator = Batches(exact, arguments.noise, 100003 * number + seed, not arguments.without_groups)
            operator.groups_alone &= not arguments.whole_look
            found = top_eigenpairs(operator, K, tol=tol, seed=seed)
            if isinstance(tol, float):
                allowed = tol * exact[:K]
            else:
                assert operator.clusters is not None, "one batch does not tell an error over examples"
                allowed = operator.clusters.spread(found.parts)
            off = found.converged_each & (np.abs(found.values - exact[:K]) > allowed)
            searches, spent = searches + 1, spent + found.n_matvecs
            claims, wrong = claims + bool(found.converged), wrong + bool(found.converged and off.any())
            pairs, wrong_pairs = pairs + int(found.converged_each.sum()), wrong_pairs + int(off.sum())
    print(f"{searches} searches, {spent / searches:.1f} products each; {claims} called all ten converged, {wrong} of")
    print(f"them wrongly; {wrong_pairs} of the {pairs} values that were called converged are wrong.")


if __name__ == "__main__":
    main()
