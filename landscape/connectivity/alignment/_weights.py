"""Weight matching: the permutations that bring the weights of two networks closest."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch

from landscape.connectivity.alignment._assignment import Similarity
from landscape.connectivity.alignment._spec import Permutation, PermutationSpec

_MAX_SWEEPS = 100


def match_weights(
    spec: PermutationSpec,
    ours: Mapping[str, torch.Tensor],
    theirs: Mapping[str, torch.Tensor],
    seed: int = 0,
    restarts: int = 1,
    start: Mapping[str, Permutation] | None = None,
    groups: Collection[str] | None = None,
) -> dict[str, Permutation]:
    """Maximise Σ ⟨W_a, P(W_b)⟩ over the permutations, one group at a time with the others as they are.

    That is the same as the least distance ‖W_a − P(W_b)‖, as permutations keep norms. Each step is a linear assignment,
    solved exactly; a step is taken where the sum grows, which matters for groups that lie on two axes of one tensor,
    whose assignment is not linear. Groups come in random order, over and over, until none moves.

    Args:
        spec: The symmetries, fitted.
        ours: Parameters of the network that stays, by name.
        theirs: Parameters of the network to be permuted.
        seed: Seed of the orders and of starting points.
        restarts: Number of descents; all but the first start at random permutations, and the best is taken.
        start: Permutations that the first descent starts from; by default those that move nothing.
        groups: Groups that may move; by default all.

    Returns:
        A permutation for each group.

    Source: Ainsworth et al. 2023, arXiv:2209.04836, algorithm 1.
    """
    a = {name: ours[name].detach().double().cpu() for name in spec.axes if name in ours}
    b = {name: theirs[name].detach().double().cpu() for name in spec.axes if name in theirs}
    generator = np.random.default_rng(seed)
    movable = [group for group in spec.groups if groups is None or group in groups]
    best: tuple[float, dict[str, Permutation]] | None = None
    for attempt in range(restarts):
        first = dict(start or spec.identity())
        if attempt:
            drawn = spec.random(int(generator.integers(2**31)))
            first |= {group: drawn[group] for group in movable}
        found = _descend(spec, a, b, first, movable, generator)
        total = _total(spec, a, b, found, a)
        if best is None or total > best[0]:
            best = total, found
    assert best is not None
    return best[1]


def _descend(
    spec: PermutationSpec,
    a: Mapping[str, torch.Tensor],
    b: Mapping[str, torch.Tensor],
    permutations: dict[str, Permutation],
    movable: list[str],
    generator: np.random.Generator,
) -> dict[str, Permutation]:
    touched: dict[str, list[str]] = {group: [] for group in spec.groups}
    for name, _, _, part in spec.occurrences():
        if name in a and part.group is not None and name not in touched[part.group]:
            touched[part.group].append(name)
    for _ in range(_MAX_SWEEPS):
        moved = False
        for group in generator.permutation(movable).tolist():
            names = touched[group]
            candidate = permutations | {group: _step(spec, a, b, permutations, group)}
            before, after = (_total(spec, a, b, tried, names) for tried in (permutations, candidate))
            if after > before + 1e-12 * max(abs(before), 1.0):
                permutations, moved = candidate, True
        if not moved:
            break
    return permutations


def _step(
    spec: PermutationSpec,
    a: Mapping[str, torch.Tensor],
    b: Mapping[str, torch.Tensor],
    permutations: Mapping[str, Permutation],
    group: str,
) -> Permutation:
    similarity = Similarity(spec.sizes[group], spec.families[group])
    for name, axis, offset, part in spec.occurrences():
        if part.group != group or name not in a:
            continue
        assert part.length is not None
        rows = []
        for tensor in (a[name], spec.permute(name, b[name], permutations, leave=axis)):
            rows.append(tensor.movedim(axis, 0)[offset : offset + part.length].reshape(part.length, -1).numpy())
        similarity.add(rows[0], rows[1], part.repeat, part.inner)
    return similarity.best()


def _total(
    spec: PermutationSpec,
    a: Mapping[str, torch.Tensor],
    b: Mapping[str, torch.Tensor],
    permutations: Mapping[str, Permutation],
    names: Collection[str],
) -> float:
    return sum(float((a[name] * spec.permute(name, b[name], permutations)).sum()) for name in names)
