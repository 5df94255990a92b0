"""What has no curvature, or next to none: every operator and every measure says so, or is right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from landscape import MeasurementError, Objective
from landscape.curvature import (
    diagonal,
    effective_dimension,
    fisher,
    ggn,
    hessian,
    layer_curvature,
    negative_share,
    operator_gap,
    pyhessian_spectrum,
    spectral_density,
    spectral_entropy,
    spectrum,
    top_eigenpairs,
    trace,
    track,
)
from landscape.curvature._dense import DenseOperator

OPERATORS = {
    "retained": hessian,
    "rebuilt": lambda o: hessian(o, strategy="rebuilt"),
    "linearized": lambda o: hessian(o, strategy="linearized"),
    "differences": lambda o: hessian(o, strategy="differences"),
    "ggn": ggn,
    "ggn rebuilt": lambda o: ggn(o, memory_budget=0),
    "fisher": fisher,
    "mc fisher": lambda o: fisher(o, "mc", draws=3),
    "empirical fisher": lambda o: fisher(o, "empirical"),
    "pyhessian": pyhessian_spectrum,
}
# Of an operator, the numbers that a multiple c of the identity of one parameter must give, in units of c.
MEASURES = {
    **{
        f"eigenpairs {which} {method}": lambda a, w=which, m=method: top_eigenpairs(a, 1, which=w, method=m).values[0]
        for which in ("LA", "SA", "LM", "BE")
        for method in ("lanczos", "dense")
    },
    "low memory": lambda a: top_eigenpairs(a, 1, method="lanczos", memory="low").values[0],
    "spectrum, top": lambda a: spectrum(a, k=1, k_bottom=1).top.values[0],
    "spectrum, bottom": lambda a: spectrum(a, k=1, k_bottom=1).bottom.values[0],
    "density": lambda a: spectral_density(a).moment(1).value,
    "xtrace": lambda a: trace(a, "xtrace").value,
    "hutch++": lambda a: trace(a, "hutch++").value,
    "hutchinson": lambda a: trace(a, "hutchinson").value,
    "xdiag": lambda a: diagonal(a, "xdiag").value[0],
    "bekas": lambda a: diagonal(a, "bekas").value[0],
    "layers, trace": lambda a: layer_curvature({"all": a})[0].trace.value,
    "layers, top": lambda a: layer_curvature({"all": a})[0].lambda_max,
    "track": lambda a: track(a, k=1).pairs.values[0],
}


class One(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.7], dtype=torch.float64))

    def forward(self, x):
        return self.w * x


@pytest.fixture
def one():
    x, y = torch.tensor([[1.0], [2.0], [-1.0]]), torch.tensor([[0.5], [1.0], [2.0]])
    return Objective(One(), nn.MSELoss(), [(x[:2], y[:2]), (x[2:], y[2:])])


@pytest.mark.parametrize("kind", [name for name in OPERATORS if name != "pyhessian"])
def test_one_parameter(one, kind):
    operator = OPERATORS[kind](one)
    exact = float(operator.dense())
    if kind not in ("mc fisher", "empirical fisher"):
        assert exact == pytest.approx(4, rel=1e-8)  # 2 mean x²
    for name, measure in MEASURES.items():
        assert measure(operator) == pytest.approx(exact, rel=1e-6), name
    density = spectral_density(operator)
    assert density.moment(1).stderr == 0
    found = effective_dimension(density, [1.0], one.n_examples)
    assert (found.value[0], found.complement[0]) == pytest.approx((exact / (exact + 1), 1 / (exact + 1)))
    assert (negative_share(density).value, spectral_entropy(density).value) == (0, 0)
    gap = operator_gap(operator, 0.5 * operator)
    assert (gap.frobenius.value, gap.trace.value, gap.cosine) == pytest.approx((0.5, 0.5, 1))


def test_one_parameter_by_pyhessian(one):
    pairs, estimate = pyhessian_spectrum(one)
    assert (pairs.values[0], estimate.value) == pytest.approx((4, 4), rel=1e-5)


@pytest.mark.parametrize("size", [1, 30])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_refuses_a_matrix_that_is_not_finite(name, value, size):
    matrix = torch.eye(size, dtype=torch.float64)
    matrix[-1, -1] = value
    with pytest.raises(MeasurementError, match="product is not finite"):
        MEASURES[name](DenseOperator(matrix))


def test_the_gap_refuses_a_matrix_that_is_not_finite():
    finite, broken = (DenseOperator(torch.full((30, 30), value)) for value in (1.0, np.nan))
    for pair in ((finite, broken), (broken, finite)):
        with pytest.raises(MeasurementError, match="product is not finite"):
            operator_gap(*pair)


class Cusp(nn.Module):
    """Its outputs are finite at w = 0, but their derivatives are 0/0."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2).double()
        self.w = nn.Parameter(torch.zeros(30, dtype=torch.float64))

    def forward(self, x):
        return self.linear(x) * (1 + (self.w**2).sum().sqrt())


# Differences of gradients never meet the cusp itself.
@pytest.mark.parametrize("kind", [name for name in OPERATORS if name != "differences"])
def test_a_curvature_that_is_nan_where_the_loss_is_finite(kind):
    objective = Objective(Cusp(), nn.CrossEntropyLoss(), [(torch.randn(6, 2), torch.arange(6) % 2)])
    assert torch.isfinite(objective.loss())
    with pytest.raises(MeasurementError, match="not finite"):
        OPERATORS[kind](objective).dense()


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("where", ["weights", "data"])
def test_a_loss_that_is_nan(cases, kind, where):
    (x, y), model = cases.data(8), cases.mlp()
    if where == "data":
        x[3, 1] = torch.nan
    else:
        nn.init.constant_(model[0].weight, torch.nan)
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    with pytest.raises(MeasurementError, match="loss on the measured examples is nan"):
        OPERATORS[kind](objective)


@pytest.mark.parametrize("model", [nn.Flatten(), nn.Linear(4, 3).requires_grad_(False)])
def test_no_trainable_parameters(cases, model):
    with pytest.raises(MeasurementError, match="has no trainable parameter"):
        Objective(model, nn.CrossEntropyLoss(), [cases.data()])


@pytest.mark.parametrize("kind", OPERATORS)
def test_a_loss_without_parameters(cases, kind):
    class Detached(nn.Linear):
        def forward(self, x):
            return super().forward(x).detach()

    objective = Objective(Detached(4, 3), nn.CrossEntropyLoss(), [cases.data()])
    with pytest.raises(MeasurementError, match="does not depend on any trainable parameter"):
        OPERATORS[kind](objective)


@pytest.mark.parametrize(
    ("cut", "loss_fn", "message"),
    [
        (None, nn.CrossEntropyLoss(), "there are no batches"),
        (0, nn.CrossEntropyLoss(), "hold no examples"),
        (9, nn.CrossEntropyLoss(ignore_index=1), "every target of the measurement batches is ignored"),
        (9, nn.CrossEntropyLoss(torch.zeros(3)), "every target of the measurement batches is ignored"),
    ],
)
def test_no_examples(cases, cut, loss_fn, message):
    x, y = cases.data()[0], torch.ones(40, dtype=torch.int64)
    batches = [] if cut is None else [(x[:cut], y[:cut])]
    with pytest.raises(MeasurementError, match=message):
        Objective(cases.mlp(), loss_fn, batches)


@pytest.mark.parametrize("kind", [name for name in OPERATORS if name != "pyhessian"])
def test_a_batch_without_examples_changes_nothing(cases, kind):
    x, y = cases.data(8)
    model = nn.Linear(4, 3).double()
    without, beside = (
        OPERATORS[kind](Objective(model, nn.CrossEntropyLoss(), batches)).dense()
        for batches in ([(x, y)], [(x, y), (x[:0], y[:0])])
    )
    torch.testing.assert_close(beside, without, rtol=1e-8, atol=1e-11)


def test_a_batch_without_examples_by_pyhessian(cases):
    x, y = cases.data(8)
    model = nn.Linear(4, 3).double()
    beside, without = (
        pyhessian_spectrum(Objective(model, nn.CrossEntropyLoss(), batches))
        for batches in ([(x[:0], y[:0]), (x, y)], [(x, y)])
    )
    assert beside[0].values[0] == pytest.approx(without[0].values[0], rel=1e-6)
    assert beside[1].value == pytest.approx(without[1].value, rel=1e-6)


@pytest.mark.parametrize("size", [1, 30])
@pytest.mark.parametrize("name", MEASURES)
def test_a_matrix_of_zeros(name, size):
    assert MEASURES[name](DenseOperator(torch.zeros(size, size))) == 0


@pytest.mark.parametrize("size", [1, 30])
def test_shares_of_a_matrix_of_zeros_are_not_known(size):
    zeros = DenseOperator(torch.zeros(size, size))
    density = spectral_density(zeros)
    assert np.isnan([negative_share(density).value, spectral_entropy(density).value]).all()
    assert effective_dimension(density, [1.0], 5).value[0] == 0
    gap = operator_gap(zeros, zeros)
    for number in (gap.frobenius, gap.trace):
        assert np.isnan([number.value, number.stderr]).all()
    assert np.isnan(gap.cosine)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_squared_errors_are_traced(reduction, weighted):
    """Torch's own squared error kills the process when its derivative is traced."""
    x, y = torch.randn(7, 4).double(), torch.randn(7, 3).double()
    weight = torch.rand(7, 3).double() if weighted else None

    def loss_fn(outputs, target):
        return nn.functional.mse_loss(outputs, target, reduction=reduction, weight=weight).mean()

    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    objective = Objective(model, loss_fn, [(x, y)], batch_weight=len)  # the weights fit to the whole batch alone
    expected = hessian(objective).dense()
    torch.testing.assert_close(hessian(objective, strategy="linearized").dense(), expected)


@pytest.mark.parametrize("kind", [name for name in OPERATORS if name != "pyhessian"])
def test_a_parameter_without_dimensions(one, kind):
    x, y = one.batches[0]
    model = One()
    expected = OPERATORS[kind](Objective(model, nn.MSELoss(), [(x, y)])).dense()
    model.w = nn.Parameter(model.w.detach()[0])
    operator = OPERATORS[kind](Objective(model, nn.MSELoss(), [(x, y)]))
    torch.testing.assert_close(operator.dense(), expected)
    torch.testing.assert_close(operator @ torch.ones(1).double(), expected[0])
