from __future__ import annotations

import importlib.util
import sys

import pytest
import torch
from torch import nn

from landscape import MeasurementError, Objective
from landscape.curvature import ggn, kfac, layer_curvature, top_eigenpairs, trace


def blocks(operator):
    return torch.block_diag(*[operator.restrict(name).dense() for name in operator.layout.names])


def test_without_curvlinops_the_error_says_how_to_install_it(cases, monkeypatch):
    monkeypatch.setitem(sys.modules, "curvlinops", None)
    with pytest.raises(MeasurementError, match=r"curvlinops, which is not installed.*\[kfac\].*--no-deps"):
        kfac(Objective(cases.mlp(), nn.CrossEntropyLoss(), [cases.data()]))


@pytest.mark.parametrize(
    "loss_fn",
    [
        nn.CrossEntropyLoss(torch.ones(3)),
        nn.CrossEntropyLoss(label_smoothing=0.1),
        nn.CrossEntropyLoss(ignore_index=1),
        nn.CrossEntropyLoss(reduction="sum"),
        nn.functional.cross_entropy,
    ],
)
def test_other_losses_are_refused(cases, loss_fn):
    with pytest.raises(MeasurementError, match=r"plain CrossEntropyLoss.*use ggn\(objective\)"):
        kfac(Objective(cases.mlp(), loss_fn, [cases.data()]))


def test_lightning_modules_are_refused(cases):
    with pytest.raises(MeasurementError, match=r"need Objective\(model, loss_fn, batches\)"):
        kfac(Objective.from_lightning(cases.Eventful(), [cases.data()]))


def test_settings_are_checked(cases):
    objective = Objective(cases.mlp(), nn.CrossEntropyLoss(), [cases.data()])
    with pytest.raises(ValueError, match=r"method is 'full'"):
        kfac(objective, method="full")
    with pytest.raises(ValueError, match=r"approximation is 'shrink'"):
        kfac(objective, approximation="shrink")


# curvlinops is an optional extra; the benchmark environment has it.
if importlib.util.find_spec("curvlinops"):
    pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its own imports

    @pytest.fixture
    def deep_linear():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).double()
        return Objective(model, nn.MSELoss(), [(torch.randn(1, 4), torch.randn(1, 2))])

    @pytest.mark.parametrize("method", ["kfac", "ekfac"])
    def test_exact_for_a_deep_linear_network_on_one_example(deep_linear, method):
        operator = kfac(deep_linear, method)
        torch.testing.assert_close(operator.dense(), blocks(ggn(deep_linear)), rtol=1e-10, atol=1e-13)

    @pytest.mark.parametrize("method", ["kfac", "ekfac"])
    @pytest.mark.parametrize("loss_fn", [nn.MSELoss(), nn.CrossEntropyLoss()])
    def test_exact_for_four_linear_layers_on_one_example(method, loss_fn):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3), nn.Linear(3, 3)).double()
        target = torch.tensor([2]) if isinstance(loss_fn, nn.CrossEntropyLoss) else torch.randn(1, 3)
        objective = Objective(model, loss_fn, [(torch.randn(1, 5), target)])
        operator = kfac(objective, method)
        torch.testing.assert_close(operator.dense(), blocks(ggn(objective)), rtol=1e-9, atol=1e-12)
        for layer in layer_curvature(operator.layers()):
            eigenvalues = torch.linalg.eigvalsh(operator.restrict(layer.name).dense())
            assert layer.lambda_max == pytest.approx(float(eigenvalues[-1]), rel=1e-6)
            assert layer.trace.value == pytest.approx(float(eigenvalues.sum()), rel=1e-6)

    def test_one_parameter():
        model = nn.Linear(1, 1, bias=False).double()
        objective = Objective(model, nn.MSELoss(), [(torch.tensor([[1.0], [2.0], [-1.0]]), torch.zeros(3, 1))])
        operator = kfac(objective)
        assert float(operator.dense()) == pytest.approx(4)  # 2 mean x²
        assert top_eigenpairs(operator, 1).values[0] == pytest.approx(4)
        assert trace(operator).value == pytest.approx(4)

    def test_nan_is_refused(cases):
        model = cases.mlp()
        nn.init.constant_(model[0].weight, torch.nan)
        objective = Objective(model, nn.CrossEntropyLoss(), [cases.data()])
        with pytest.raises(MeasurementError, match=r"nan|not finite"):
            top_eigenpairs(kfac(objective), 1)

    @pytest.mark.parametrize("method", ["kfac", "ekfac"])
    def test_inverse(deep_linear, method):
        operator = kfac(deep_linear, method)
        identity = torch.eye(operator.shape[0], dtype=torch.float64)
        inverse = operator.inverse(0.1)
        torch.testing.assert_close(inverse.dense() @ (operator.dense() + 0.1 * identity), identity)
        assert "inverse, damping=0.1" in repr(inverse)
        with pytest.raises(ValueError, match=r"damping is 0"):
            operator.inverse(0)
        with pytest.raises(ValueError, match=r"an inverse already"):
            inverse.inverse(0.1)

    def test_the_eigenbasis_diagonalises_it(cases):
        data = [(torch.randn(5, 1, 5, 5), torch.arange(5) % 3)]
        operator = kfac(Objective(cases.ConvNet().double(), nn.CrossEntropyLoss(), data))
        values, rotated = operator.eigenbasis()
        dense = operator.dense()
        torch.testing.assert_close(values.sort()[0], torch.linalg.eigvalsh(dense), rtol=1e-8, atol=1e-12)
        vector = torch.randn(len(values), dtype=torch.float64)
        torch.testing.assert_close(rotated(dense @ vector), values * rotated(vector))
        torch.testing.assert_close(rotated(vector).norm(), vector.norm())
        with pytest.raises(ValueError, match=r"eigenvalues are taken of kfac\(objective, 'kfac'\) itself"):
            operator.inverse(0.1).eigenbasis()

    def test_cutting_the_examples_differently_changes_nothing(cases):
        x, y = cases.data(12)
        model = cases.mlp().double()
        whole = kfac(Objective(model, nn.CrossEntropyLoss(), [(x, y)]))
        cut = kfac(Objective(model, nn.CrossEntropyLoss(), [(x[:5], y[:5]), (x[5:], y[5:])]))
        torch.testing.assert_close(cut.dense(), whole.dense())
        exact = ggn(Objective(model, nn.CrossEntropyLoss(), [(x, y)])).restrict("4.bias").dense()
        torch.testing.assert_close(whole.restrict("4.bias").dense(), exact)

    def test_other_layers_are_left_out(cases):
        data = [(torch.randn(5, 1, 5, 5), torch.arange(5) % 3)]
        operator = kfac(Objective(cases.ConvNet().double(), nn.CrossEntropyLoss(), data))
        assert operator.layout.names == ("conv.weight", "conv.bias", "head.weight", "head.bias")

    def test_models_without_such_layers_are_refused():
        model = nn.Sequential(nn.LayerNorm(3))
        with pytest.raises(MeasurementError, match=r"no trainable linear or two-dimensional"):
            kfac(Objective(model, nn.MSELoss(), [(torch.randn(2, 3), torch.randn(2, 3))]))
