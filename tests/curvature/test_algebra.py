from __future__ import annotations

import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.curvature import hessian
from landscape.curvature._dense import DenseOperator
from landscape.curvature._operator import Diagonal


@pytest.fixture
def operator(cases):
    return hessian(Objective(cases.mlp().double(), nn.CrossEntropyLoss(), [cases.data()]))


def test_products_count_for_every_operator_that_takes_part(operator):
    part = operator.restrict("0")
    both = part + operator.restrict("0")
    both @ torch.ones(part.shape[0], 3)
    assert (both.n_matvecs, part.n_matvecs, operator.n_matvecs) == (3, 3, 6)


def test_weight_decay_by_name(operator):
    decayed = operator.weight_decay({"0": 0.1, "4.weight": 0.2})
    diagonal = (decayed.dense() - operator.dense()).diagonal()
    assert diagonal.tolist() == pytest.approx([0.1] * 40 + [0.0] * 72 + [0.2] * 24 + [0.0] * 3)


def test_weight_decay_is_the_curvature_of_the_penalty(cases):
    model = cases.mlp().double()
    cross = nn.CrossEntropyLoss()

    def penalised(scores, y):
        return cross(scores, y) + 0.05 * sum(p.square().sum() for p in model[2].parameters()) / 2

    data = [cases.data()]
    expected = hessian(Objective(model, nn.CrossEntropyLoss(), data)).weight_decay({"2": 0.05})
    # The model's own parameters are substituted wherever the loss looks at them.
    torch.testing.assert_close(hessian(Objective(model, penalised, data)).dense(), expected.dense())


def test_an_operator_without_names_joins_a_sum(operator):
    matrix = torch.diag(torch.arange(139, dtype=torch.float64))
    both = DenseOperator(matrix) + operator
    assert both.layout == operator.layout
    rows = both.restrict("4").cut(torch.arange(139))
    expected = (matrix + operator.dense())[rows][:, rows]
    torch.testing.assert_close(both.restrict("4").dense(), expected)


def test_refusals(operator):
    unnamed = Diagonal(torch.ones(3))
    with pytest.raises(ValueError, match=r"does not know the names of its parameters"):
        unnamed.restrict("0")
    with pytest.raises(ValueError, match=r"shapes \(139, 139\) and \(3, 3\).*restrict both"):
        operator + unnamed
    with pytest.raises(ValueError, match=r"over different parameters"):
        operator.restrict("0.bias") + operator.restrict("2.bias")
    with pytest.raises(ValueError, match=r"float64 on cpu and in torch.float32 on cpu cannot be added"):
        operator + Diagonal(torch.ones(139))
    with pytest.raises(ValueError, match=r"'head' matches no trainable parameter; there are 0.weight, 0.bias"):
        operator.restrict("head")
    with pytest.raises(ValueError, match=r"no parameter names were given"):
        operator.restrict([])
    with pytest.raises(ValueError, match=r"weight decay of 0.bias is given twice"):
        operator.weight_decay({"0": 0.1, "*.bias": 0.0})
    with pytest.raises(TypeError):
        operator + 1.0
    with pytest.raises(TypeError):
        operator * operator


def test_names_of_compiled_modules(cases):
    model = torch.compile(cases.mlp().double(), backend="eager")
    operator = hessian(Objective(model, nn.CrossEntropyLoss(), [cases.data()]))
    assert operator.restrict("2").layout.names == ("_orig_mod.2.weight", "_orig_mod.2.bias")
    assert operator.restrict("_orig_mod.2.bias").shape == (8, 8)
