"""What tracing finds are symmetries: in float64 no permutation of them changes the function."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from landscape_test_networks import NETWORKS, make
from pytorch_lightning import LightningModule
from torch import nn

from landscape import MeasurementError
from landscape.connectivity import PermutationSpec, trace_permutations
from landscape.connectivity.alignment import Part


def outputs(model, x):
    with torch.no_grad():
        return copy.deepcopy(model).eval()(x)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("with_shapes", [False, True])
def test_no_permutation_of_what_is_found_changes_the_function(name, with_shapes):
    model, x = make(name)
    spec = trace_permutations(model, [(x, x)] if with_shapes else None)
    moved = copy.deepcopy(model)
    spec.apply(moved, spec.random(1))
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), moved.parameters(), strict=True))
    torch.testing.assert_close(outputs(moved, x), outputs(model, x), rtol=1e-10, atol=1e-10)
    if with_shapes:
        assert spec.sizes == NETWORKS[name][2]
    else:
        assert set(spec.sizes) <= set(NETWORKS[name][2])


def test_within_heads_queries_go_with_keys_and_values_with_outputs():
    model, x = make("pre-norm transformer")
    spec = trace_permutations(model)
    assert spec.families["layers.layers.0.self_attn.heads"] == {"qk": 4, "vo": 4}
    permutations = spec.identity()
    heads = permutations["layers.layers.0.self_attn.heads"]
    heads.inner["qk"][1] = [3, 1, 0, 2]
    moved = copy.deepcopy(model)
    spec.apply(moved, permutations)
    before, after = (each.layers.layers[0].self_attn for each in (model, moved))
    rows = np.arange(24)
    rows[4:8], rows[12:16] = [7, 5, 4, 6], [15, 13, 12, 14]
    assert torch.equal(after.in_proj_weight, before.in_proj_weight[rows])
    assert torch.equal(after.out_proj.weight, before.out_proj.weight)
    torch.testing.assert_close(outputs(moved, x), outputs(model, x), rtol=1e-10, atol=1e-10)


def test_a_mask_for_each_head_keeps_the_heads_in_place():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.head = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
            self.register_buffer("mask", torch.randn(2 * 3, 5, 5))

        def forward(self, x):
            return self.head(self.attention(x, x, x, attn_mask=self.mask)[0])

    spec = trace_permutations(Masked())
    assert set(spec.groups) == {"attention", "head.0"}
    assert "mask" in spec.pinned["attention.heads"]


class Odd(nn.Module):
    """Does with its hidden units what no rule knows, or what lets them not move."""

    def __init__(self, how):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        self.register_buffer("fixed", torch.randn(6))
        self.how = how

    def forward(self, x):
        x = torch.relu(self.one(x))
        x = {
            "sorted": lambda: torch.cumsum(x, 1),
            "buffer": lambda: x * self.fixed,
            "picked": lambda: x + x[:, :1],
            "rolled": lambda: x.roll(1, 1),
            "input": lambda: x + torch.arange(6.0),
            "multiplied": lambda: x @ self.two.weight,
            "reshaped": lambda: x.view(-1, 3).relu().view(-1, 6),
        }[self.how]()
        return self.three(torch.relu(self.two(x)))


@pytest.mark.parametrize("how", ["sorted", "buffer", "picked", "rolled", "input", "multiplied", "reshaped"])
def test_what_is_not_known_keeps_its_units_in_place(how):
    model, x = Odd(how).double(), torch.randn(9, 4, dtype=torch.float64)
    if how == "multiplied":  # the second layer's units meet the first's
        with pytest.raises(MeasurementError, match="no permutation symmetry was found in Odd"):
            trace_permutations(model)
        return
    spec = trace_permutations(model, [x])
    assert spec.groups == ("two",)
    assert "one" in spec.pinned
    moved = copy.deepcopy(model)
    spec.apply(moved, spec.random(1))
    torch.testing.assert_close(outputs(moved, x), outputs(model, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("how", [nn.utils.parametrizations.weight_norm, nn.utils.spectral_norm])
def test_weights_that_are_computed_stay(how):
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    how(model[2])
    with pytest.raises(MeasurementError, match="no permutation symmetry"):
        trace_permutations(model)


def test_a_tied_weight_ties_its_groups():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.hidden, self.last = nn.Linear(3, 5), nn.Linear(5, 5), nn.Linear(5, 2)

        def forward(self, x):
            x = torch.tanh(self.hidden(torch.tanh(self.first(x))))
            return self.last(F.linear(torch.tanh(self.hidden(x)), self.hidden.weight))

    model, x = Tied().double(), torch.randn(7, 3, dtype=torch.float64)
    spec = trace_permutations(model)
    assert spec.sizes == {"first": 5}
    moved = copy.deepcopy(model)
    spec.apply(moved, spec.random(2))
    torch.testing.assert_close(outputs(moved, x), outputs(model, x), rtol=1e-12, atol=1e-12)


def test_tracing_leaves_the_model_as_it_is():
    model, x = make("resnet")
    model.train()
    kept, attributes = copy.deepcopy(model.state_dict()), set(vars(model))
    trace_permutations(model, [(x, x)])
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert all(part.training for part in model.modules())
    assert set(vars(model)) == attributes


def test_a_lightning_module_is_traced_through_its_forward():
    class Lit(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = make("mlp")[0]

        def forward(self, x):
            return self.net(x)

    assert trace_permutations(Lit()).sizes == {"net.0": 8, "net.3": 8}


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.two(torch.relu(self.one(x))) if x.sum() > 0 else self.two(self.one(x))


def test_a_model_that_cannot_be_traced_is_told_the_way_out():
    with pytest.raises(MeasurementError, match=r"Branching cannot be traced .*spec=PermutationSpec"):
        trace_permutations(Branching())


def test_a_spec_by_hand_is_checked_against_the_model():
    model = Branching()
    axes = {"one.weight": ("h", None), "one.bias": ("h",), "two.weight": (None, "h")}
    spec = PermutationSpec(axes).fitted(model)
    assert spec.sizes == {"h": 6}
    spec.apply(model, spec.random(0))
    for wrong, sentence in (
        ({"three.weight": ("h", None)}, "names a tensor 'three.weight'"),
        ({"one.weight": ("h",)}, r"gives 'one.weight' 1 axes; it has shape \(6, 4\)"),
        ({"one.weight": ("h", "h")}, "axis 1 of 'one.weight' has 4 entries .* elsewhere the group has 6 units"),
        ({"one.weight": ((Part("h", 2), Part(None, 3)), None)}, "must add up to 6"),
    ):
        with pytest.raises(ValueError, match=sentence):
            PermutationSpec(wrong).fitted(model)
