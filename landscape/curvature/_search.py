"""Growing a space until the wanted eigenpairs are known: steps, restarts, and the second look."""

from __future__ import annotations

import numpy as np

from landscape.curvature._accuracy import SAMPLE, Accuracy
from landscape.curvature._convergence import errors, is_small, ranked, select, slack
from landscape.curvature._partial_look import ruled_out
from landscape.curvature._ritz_space import RitzSpace
from landscape.curvature._verification import LEAST_LOOK, look, outer, second_look

# The bound takes the gaps between Ritz values for those between eigenvalues, which may be narrower.
_MARGIN = 0.1
# Where products are cheap: a narrower margin, and a share of the steps after which a pair must have had its value.
_CAUTIOUS_MARGIN = 0.01
_PERSISTENCE = 0.85
# With tol="sample" a tenth of the error over examples is margin enough.
_SAMPLE_MARGIN = 1.0

Wanted = tuple[tuple[int, str], ...]


class Search:
    """The search for extreme eigenpairs in a space that grows until they are known, or the budget is spent.

    A pair has converged when the bound residual²/gap on the error of its value is within 0.1 tol·|λ|. With tol="sample"
    that is a tenth of the error over examples (`Accuracy`). Where products are cheap (up to P = 4096) it must be
    within 0.01 tol·|λ| instead, and have been so after 85 % of the steps: a value that has not surfaced yet lets the
    next one pass for it, until it appears between the two. Then comes the second look of `_verification.look`.

    Args:
        space: The space.
        wanted: (k, which) of each group of pairs.
        accuracy: Relative accuracy of the values.
        budget: Products to spend; where the pairs cannot converge but it spans the whole space, that is spanned.
        verify: Whether to take the second look.
    """

    def __init__(self, space: RitzSpace, wanted: Wanted, accuracy: Accuracy, budget: int, verify: bool = True):
        self.space = space
        self.wanted = wanted
        self.accuracy = accuracy
        self.budget = budget
        self.verify = verify
        self._cautious = is_small(space.size)
        self._margin = _CAUTIOUS_MARGIN if self._cautious else _MARGIN
        if accuracy.origin == SAMPLE:
            self._margin = _SAMPLE_MARGIN
        # Steps; of each group of wanted pairs the values, whether they are met, and the error that is allowed.
        self._history: list[tuple[int, list[np.ndarray], list[np.ndarray], list[np.ndarray]]] = []

    def run(self) -> list[np.ndarray]:
        """Search, and tell for each of `wanted` which pairs are known to be what they are taken for."""
        space = self.space
        reserve = second_look(self.budget) if self.verify else 0
        while True:
            self.converge(self.budget - reserve)
            found = self.established()
            everything = space.steps + space.size - space.count <= self.budget and space.capacity == space.size
            if space.complete or (everything and not _all(found)):
                space.grow(space.size - space.count)
                return [np.ones(min(k, space.count), dtype=bool) for k, _ in self.wanted]
            if not self.verify:
                return found
            allowed = min(reserve, self.budget - space.steps)
            if allowed < reserve or not reserve or not any(flags.any() for flags in found):
                return [np.zeros_like(flags) for flags in found]
            confirmed = self._second_look(allowed)
            found = [a & b for a, b in zip(found, confirmed, strict=True)]
            if _all(confirmed):
                return found
            self._history.clear()
            if self.budget - reserve - space.steps < reserve:
                return found  # what stood firm is known; there is no budget to confirm what has turned up

    def _second_look(self, allowed: int) -> list[np.ndarray]:
        """Look at a part of the examples, and at all where that tells nothing; what confirms is not kept."""
        space, tol, before = self.space, self.tolerance(), self.space.steps
        if allowed > LEAST_LOOK and ruled_out(space, self.wanted, tol, allowed - LEAST_LOOK):
            return [np.ones(min(k, space.count), dtype=bool) for k, _ in self.wanted]
        confirmed = look(space, self.wanted, tol, allowed - (space.steps - before))
        if _all(confirmed) and not space.complete:
            space.forget_chain()
        return confirmed

    def tolerance(self) -> float:
        """Return the strictest relative accuracy among the wanted values, with the error over examples known now."""
        values, tol = self.space.ritz()[0], self.accuracy.of(self.space)
        return float(min(tol[select(values, k, which)].min() for k, which in self.wanted))

    def converge(self, budget: int) -> None:
        """Take steps, with restarts where the basis is full, until all wanted pairs are established."""
        space = self.space
        total = sum(k for k, _ in self.wanted)
        least = min(space.size, space.steps + 1 if space.steps else 2 * max(k for k, _ in self.wanted))
        while not space.complete and space.steps < budget:
            if space.steps >= least and _all(self.established()):
                return
            if space.count == space.capacity:
                space.restart(outer(space.ritz()[0], self.wanted, total + (space.capacity - total) // 3))
            space.grow(min(budget - space.steps, max(1, space.count // 25, least - space.steps)))
            self._note()

    def established(self) -> list[np.ndarray]:
        """Tell which wanted pairs have converged, as have all that are further out."""
        if not self._history:
            self._note()
        steps, values, met, allowed = self._history[-1]
        if not self._cautious:
            return met
        earlier = [entry for entry in self._history if entry[0] <= max(1, _PERSISTENCE * steps)]
        if not earlier:
            return [np.zeros_like(flags) for flags in met]
        # Right after a restart the basis is too small to rank the inner pairs, so it may be an entry before that.
        then = next((entry for entry in reversed(earlier) if _all(entry[2])), earlier[-1])
        flags = []
        for new, old, met_now, met_then, room in zip(values, then[1], met, then[2], allowed, strict=True):
            count = min(len(new), len(old))
            same = np.abs(new[:count] - old[:count]) <= room[:count]
            flags.append(np.pad(met_now[:count] & met_then[:count] & same, (0, len(new) - count)))
        return flags

    def _note(self) -> None:
        """Write down where the wanted pairs stand."""
        space = self.space
        values, vectors = space.ritz()
        bounds = errors(values, space.residuals(vectors))
        chosen = [select(values, k, which) for k, which in self.wanted]
        found = [values[c] for c in chosen]
        tol = self.accuracy.of(space)
        met = bounds <= slack(values, values, self._margin * tol)
        known = [ranked(values, c, met, bounds, which) for c, (_, which) in zip(chosen, self.wanted, strict=True)]
        room = slack(values, values, tol)
        self._history.append((space.steps, found, known, [room[c] for c in chosen]))


def _all(flags: list[np.ndarray]) -> bool:
    return all(each.all() for each in flags)
