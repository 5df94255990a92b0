from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape._sampling_error import Clusters
from landscape.curvature import top_eigenpairs
from landscape.curvature._dense import DenseOperator
from landscape.curvature._lanczos import rademacher
from landscape.curvature._partial_look import ruled_out
from landscape.curvature._ritz_space import RitzSpace
from landscape.curvature._verification import marks

GROUPS, SIZE = 6, 400
OUTLIERS = [2.0, 1.8, 1.5, 1.2, 1.1]
WANTED = ((5, "LA"),)


class Groups(DenseOperator):
    """Groups whose matrices scatter about the whole in eigenvalues and in eigenvectors."""

    groups_alone = True

    def __init__(self, eigenvalues, groups: int = GROUPS, noise: float = 0.05, own: float = 0.05):
        generator = torch.Generator().manual_seed(len(eigenvalues))
        size = len(eigenvalues)
        axes = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
        scatter = torch.randn(groups, size, generator=generator, dtype=torch.float64) * noise * groups**0.5
        values = torch.as_tensor(np.asarray(eigenvalues)) * (1 + scatter - scatter.mean(0))
        others = torch.randn(groups, size, 5, generator=generator, dtype=torch.float64) * (own / size) ** 0.5
        others = others @ others.transpose(1, 2)
        matrices = axes @ torch.diag_embed(values) @ axes.T + others - others.mean(0)
        clusters = Clusters.of([1 / groups] * groups, [100] * groups, False)
        super().__init__(matrices.mean(0), matrices / groups, clusters)
        self.of_groups = matrices

    def _of_group(self, vector: torch.Tensor, group: int) -> torch.Tensor:
        return self.of_groups[group] @ vector


def operator(copied: float | None = None, **settings) -> Groups:
    copies = [] if copied is None else [copied]
    return Groups(np.concatenate([OUTLIERS, copies, np.linspace(-0.4, 0.4, SIZE - 5)]), **settings)


def space_of(found: Groups, seed: int = 0) -> RitzSpace:
    space = RitzSpace(found, rademacher(len(found.matrix), seed), 60, seed)
    space.grow(24)
    return space


@pytest.mark.parametrize("copied", [None, *OUTLIERS[:4]])
def test_what_a_part_of_the_examples_rules_out_was_not_missed(copied):
    found = operator(copied)
    for seed in range(3):
        space = space_of(found, seed)
        before, values = found.n_matvecs, space.ritz()[0].copy()
        assert ruled_out(space, WANTED, 1e-3, 8) == (copied is None)
        assert found.n_matvecs - before in (space.steps - 24, space.steps - 25)  # of a share left over, one
        assert 1 <= space.steps - 24 <= 2  # shares of a sixth, where a whole look takes five and more
        np.testing.assert_array_equal(space.ritz()[0], values)
        assert space.forms.matrices().shape == (GROUPS, 24, 24)


@pytest.mark.parametrize(("own", "told"), [(0.05, True), (0.7, True), (1.0, False), (2.0, False)])
def test_it_tells_nothing_where_the_group_has_large_eigenvalues_of_its_own(own, told):
    # By Courant and Fischer: nothing is ruled out where the group's matrix in the complement reaches what is sought.
    found = operator(own=own)
    space = space_of(found)
    basis = space.basis
    outside = torch.eye(SIZE, dtype=torch.float64) - basis.T @ basis
    largest = float(torch.linalg.eigvalsh(outside @ found.of_groups[3] @ outside)[-1])
    values, vectors = torch.linalg.eigh(found.matrix)
    forms = torch.einsum("ik,gij,jk->gk", vectors[:, -5:], found.of_groups / GROUPS, vectors[:, -5:]).numpy()
    scatter = float((found.clusters.spread(forms) / values[-5:].numpy()).max()) * (GROUPS - 1) ** 0.5
    sought = 1.2 * (1 - 3 * scatter)
    assert marks(space, WANTED, 1e-3)[0] == (pytest.approx(1.2), 1)
    assert (largest < sought) == told
    assert ruled_out(space, WANTED, 1e-3, 8) == told


def test_the_whole_look_goes_on_from_an_untouched_space():
    found = operator(1.5, own=2.0)
    space = space_of(found)
    assert not ruled_out(space, WANTED, 1e-3, 8)
    space.inject()
    space.grow(8)
    basis = space.basis
    projected = (basis @ found.matrix @ basis.T).numpy()
    np.testing.assert_allclose(projected, space._projected[:32, :32], atol=1e-10)
    np.testing.assert_allclose(space.ritz()[0][::-1][2:4], 1.5, rtol=0.05)


def test_the_whole_look_begins_where_a_group_met_something():
    found = operator(1.5)
    missed = torch.linalg.eigh(found.matrix)[1][:, [-4, -3]]
    for seed in range(3):
        space = space_of(found, seed)
        outside = missed - space.basis.T @ (space.basis @ missed)
        copy = torch.linalg.svd(outside, full_matrices=False)[0][:, 0]  # the one vector of 1.5 that the space lacks
        assert not ruled_out(space, WANTED, 1e-3, 8)
        space.inject()
        assert float(space._next @ copy) ** 2 > 0.1  # of a random direction 1/400


def test_few_groups_or_a_wide_scatter_tell_nothing_and_cost_nothing():
    for found in (operator(groups=3), operator(noise=0.3)):
        space = space_of(found)
        assert not ruled_out(space, WANTED, 1e-3, 8)
        assert space.steps == found.n_matvecs == 24
    alone = operator()
    alone.groups_alone = False
    assert not ruled_out(space_of(alone), WANTED, 1e-3, 8)
    assert alone.n_matvecs == 24


def test_no_part_is_looked_at_where_the_wanted_end_is_on_the_other_side_of_zero():
    found = operator()
    space = space_of(found)
    assert not ruled_out(space, ((5, "LA"), (SIZE - 4, "SA")), 1e-3, 8)
    assert found.n_matvecs == 24


@pytest.mark.parametrize("copied", [None, 1.5])
def test_a_search_takes_fewer_products_and_finds_the_same(copied):
    quick, usual = operator(copied), operator(copied)
    usual.groups_alone = False
    found, expected = (top_eigenpairs(each, 5, method="lanczos") for each in (quick, usual))
    assert found.converged
    exact = torch.linalg.eigvalsh(quick.matrix).numpy()[::-1][:5]
    np.testing.assert_allclose(found.values, exact, rtol=1e-5)
    assert found.n_matvecs < expected.n_matvecs
    assert found.n_matvecs == quick.n_matvecs
