"""What is read of each group of batches while products are added up, against the matrices of single batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.curvature import fisher, ggn, hessian
from landscape.curvature._operator import SymmetricOperator
from landscape.sharpness._congruence import stretched

SIZES = [7, 13, 20, 5, 15]


@pytest.fixture(scope="module")
def objective(cases) -> Objective:
    x, y = cases.data(sum(SIZES))
    batches = list(zip(x.split(SIZES), y.split(SIZES), strict=True))
    return Objective(cases.mlp().double(), nn.CrossEntropyLoss(), batches)


OPERATORS = {
    "kept": hessian,
    "rebuilt": lambda objective: hessian(objective, strategy="rebuilt"),
    "some kept": lambda objective: hessian(objective, memory_budget=60_000),
    "linearized": lambda objective: hessian(objective, strategy="linearized"),
    "ggn": ggn,
    "empirical fisher": lambda objective: fisher(objective, "empirical"),
    "sum": lambda objective: 2 * hessian(objective) - ggn(objective),
    "stretched": lambda objective: stretched(hessian(objective), objective.vector().abs()),
}


def parts(objective: Objective, make) -> torch.Tensor:
    """The weighted matrix of each batch alone."""
    alone = [make(objective.restrict([batch])).dense() for batch in objective.batches]
    weights = torch.tensor(objective.batch_weights, dtype=torch.float64)
    return weights[:, None, None] * torch.stack(alone)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "linearized" else name for name in OPERATORS]
)
def test_groups_are_the_batches_own_matrices(objective, name):
    operator = OPERATORS[name](objective)
    exact = parts(objective, OPERATORS[name])
    left, right = torch.randn(2, 139, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _agree(operator, exact, left, right)


def _agree(operator: SymmetricOperator, exact: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    before = operator.n_matvecs
    product, found = operator.by_batch(right[:, 0], lambda image: left.T @ image, (3,))
    torch.testing.assert_close(product, exact.sum(0) @ right[:, 0], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found, torch.einsum("ik,gij,j->gk", left, exact, right[:, 0]), rtol=1e-8, atol=1e-10)
    products, forms = operator.with_forms(right)
    torch.testing.assert_close(products, exact.sum(0) @ right, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(forms, torch.einsum("ik,gij,jk->gk", right, exact, right).numpy(), atol=1e-10)
    assert operator.n_matvecs == before + 4


@pytest.mark.parametrize("name", ["kept", "sum"])
def test_blocks_have_groups_of_their_own(objective, name):
    operator = OPERATORS[name](objective).restrict("2")
    exact = parts(objective, lambda each: OPERATORS[name](each).restrict("2"))
    size = operator.shape[0]
    left, right = torch.randn(2, size, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _agree(operator, exact, left, right)


@pytest.mark.parametrize("name", ["kept", "rebuilt", "some kept", "ggn", "empirical fisher"])
def test_a_group_alone_is_multiplied_at_its_share_of_the_cost(objective, name):
    operator = OPERATORS[name](objective)
    weights = torch.tensor(objective.batch_weights, dtype=torch.float64)[:, None, None]
    exact = parts(objective, OPERATORS[name]) / weights
    vector = torch.randn(139, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert operator.groups_alone
    before = operator.n_matvecs
    for group, alone in enumerate(exact):
        torch.testing.assert_close(operator.of_group(vector, group), alone @ vector, rtol=1e-8, atol=1e-10)
    assert operator.n_matvecs == before + 1
    for _ in range(4):
        operator.of_group(vector, 2)  # a third each
    assert operator.n_matvecs == before + 3
    block = operator.restrict("2")
    inside = block.pad(torch.ones(block.shape[0], dtype=torch.float64)).bool()
    padded = torch.where(inside, vector, 0.0)
    expected = (exact[1] @ padded)[inside]
    torch.testing.assert_close(block.of_group(vector[inside], 1), expected, rtol=1e-8, atol=1e-10)
    bias = block.restrict("*.bias")
    only = bias.cut(torch.arange(block.shape[0]))
    assert bias.of_group(vector[: len(only)], 3).shape == only.shape
    unit = torch.eye(len(only), dtype=torch.float64)[0]
    torch.testing.assert_close(
        bias.of_group(unit, 3), exact[3][inside][:, inside][only][:, only[0]], rtol=1e-8, atol=1e-10
    )


def test_sums_and_differences_have_no_groups_alone(objective):
    for operator in (OPERATORS["sum"](objective), hessian(objective, strategy="differences")):
        assert not operator.groups_alone
    with pytest.raises(NotImplementedError, match="one group of batches alone"):
        OPERATORS["sum"](objective).of_group(objective.vector(), 0)


def test_weight_decay_is_shared_out(objective):
    operator = hessian(objective).weight_decay(0.3)
    _, forms = operator.with_forms(torch.eye(139, dtype=torch.float64)[:, :4])
    _, without = hessian(objective).with_forms(torch.eye(139, dtype=torch.float64)[:, :4])
    np.testing.assert_allclose(forms - without, 0.3 * np.repeat(np.array(SIZES)[:, None] / 60, 4, axis=1), atol=1e-12)


def test_neighbouring_batches_are_read_together(cases):
    x, y = cases.data(80)
    objective = Objective(cases.mlp().double(), nn.CrossEntropyLoss(), list(zip(x.split(2), y.split(2), strict=True)))
    operator = hessian(objective)
    calls = 0

    def read(image: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return image[:2].clone()

    product, found = operator.by_batch(torch.ones(139, dtype=torch.float64), read, (2,))
    assert calls == len(found) == 16
    torch.testing.assert_close(found.sum(0), product[:2])


def test_other_examples_or_a_single_batch_have_no_groups(objective, cases):
    x, y = cases.data(20)
    single = Objective(cases.mlp().double(), nn.CrossEntropyLoss(), [(x, y)])
    other = Objective(cases.mlp().double(), nn.CrossEntropyLoss(), [(x[:10], y[:10]), (x[10:], y[10:])])
    for operator in (
        hessian(single),
        hessian(objective) - hessian(other),
        hessian(objective, strategy="differences"),
        hessian(objective).weight_decay(1.0) - hessian(other),
    ):
        assert operator.clusters is None
        product, found = operator.by_batch(torch.ones(139, dtype=torch.float64), lambda image: image[:1], (1,))
        assert found is None
        torch.testing.assert_close(product, operator @ torch.ones(139, dtype=torch.float64))
