"""Values are placed by name on the axes that a group was declared with."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn
from torch.nn.utils import parametrizations, prune

from landscape import MeasurementError
from landscape._layout import ParameterLayout
from landscape.callbacks._axes import layer_labels, on_axis, tensor_labels, without_vectors

LABELS = ("0.weight", "0.bias", "2.weight", "2.bias")


def net():
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))


def test_labels_are_of_all_parameters():
    module = net()
    module[0].requires_grad_(False)
    assert tensor_labels(module) == LABELS
    assert layer_labels(module) == ("0", "2")
    assert layer_labels(nn.Linear(2, 2)) == ("",)


def test_values_are_placed_by_name():
    spread = on_axis([[1.0, 2.0], [3.0, 4.0]], ["2.bias", "0.weight"], LABELS)
    np.testing.assert_array_equal(spread, [[2, np.nan, np.nan, 1], [4, np.nan, np.nan, 3]])
    flags = on_axis(np.array([[1, 0]], dtype=np.int8), ["2"], ("0", "2"), axis=0)
    assert flags.tolist() == [[-1, -1], [1, 0]]
    assert flags.dtype == np.int8


@pytest.mark.parametrize("name", ["_orig_mod.0.weight", "0._orig_mod.weight", "0.weight_orig", "0.weight"])
def test_names_that_wrappers_and_pruning_give(name):
    assert on_axis([7.0], [name], LABELS)[0] == 7.0


def test_pruned_and_parametrized_modules():
    module = net()
    labels, layers = tensor_labels(module), layer_labels(module)
    prune.l1_unstructured(module[0], "weight", amount=0.5)
    parametrizations.orthogonal(module[2])
    names = [name for name, _ in module.named_parameters()]
    found = on_axis(np.arange(4.0), names, labels)
    assert np.isfinite(found).all()
    assert found[labels.index("0.weight")] == names.index("0.weight_orig")
    assert found[labels.index("2.weight")] == names.index("2.parametrizations.weight.original")
    with pytest.raises(MeasurementError, match="take the same place"):
        on_axis([1.0, 2.0], ["2", "2.parametrizations.weight"], layers)


def test_a_tensor_without_a_place():
    with pytest.raises(MeasurementError, match=r"'3\.weight' trains now, and was no part of the module"):
        on_axis([1.0], ["3.weight"], LABELS)


def test_vectors_of_others_are_left_out():
    declared = ParameterLayout(("w",), ((2,),))
    row = {"center": [1, 2], "value": 3.0}
    assert without_vectors(row, ("center",), ParameterLayout(("_orig_mod.w",), ((2,),)), declared) == row
    left = without_vectors(row, ("center",), ParameterLayout(("v",), ((2,),)), declared)
    assert left.pop("reason").startswith("center left out")
    assert left == {"value": 3.0}
