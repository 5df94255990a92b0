"""Saved tensors find their places under the names that wrappers give them, or a sentence says what is wrong."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from landscape import FileError
from landscape.cli._targets import build_model


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


@pytest.fixture
def trained():
    torch.manual_seed(0)
    net = Net()
    net.net[1].running_mean.copy_(torch.arange(3.0))
    return net


def same(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def renamed(state, old, new):
    return {name.replace(old, new, 1): tensor for name, tensor in state.items()}


def load(tmp_path, saved, make=Net):
    path = tmp_path / "saved.pt"
    torch.save(saved, path)
    return build_model(make, path)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: renamed(state, "net.", "net._orig_mod."),
        lambda state: renamed(state, "", "_orig_mod."),
        lambda state: renamed(state, "", "module."),
        lambda state: renamed(state, "", "module._orig_mod."),
        lambda state: renamed(state, "", "model."),
        lambda state: {"state_dict": state, "hyper_parameters": {}},
    ],
)
def test_names_that_wrappers_give(tmp_path, trained, wrap):
    assert same(load(tmp_path, wrap(trained.state_dict())), trained)


def test_a_compiled_model_takes_plain_weights(tmp_path, trained):
    found = load(tmp_path, trained.state_dict(), lambda: torch.compile(Net(), backend="eager"))
    assert same(found._orig_mod, trained)


def test_a_part_of_a_lightning_module(tmp_path, trained):
    found = load(tmp_path, trained.state_dict(), lambda: Net().net)
    assert same(found, trained.net)


def test_parts_beside_the_model_are_left_out_and_named(tmp_path, trained, capsys):
    found = load(tmp_path, trained.state_dict() | {"criterion.weight": torch.ones(2)})
    assert same(found, trained)
    assert "also holds criterion.weight, which --model lacks; left out" in capsys.readouterr().err


def test_two_parts_that_fit_are_not_chosen_between(tmp_path, trained):
    other = copy.deepcopy(trained)
    saved = renamed(trained.state_dict(), "", "student.") | renamed(other.state_dict(), "", "teacher.")
    with pytest.raises(FileError, match=r"several parts that fit the model \(student, teacher\)"):
        load(tmp_path, saved)


@pytest.mark.parametrize("missing", ["net.2.bias", "net.1.running_mean"])
def test_what_is_missing_is_never_random(tmp_path, trained, missing):
    state = trained.state_dict()
    del state[missing]
    with pytest.raises(FileError, match=f"holds no tensor '{missing}': it is of another architecture"):
        load(tmp_path, state)


def test_more_layers_are_another_architecture(tmp_path, trained):
    with pytest.raises(FileError, match=r"holds 'net\.3\.weight', which --model lacks"):
        load(tmp_path, trained.state_dict() | {"net.3.weight": torch.ones(2, 2)})


def test_another_shape(tmp_path, trained):
    with pytest.raises(FileError, match=r"holds 'net\.0\.weight' with shape \(1, 1\), --model has \(3, 4\)"):
        load(tmp_path, trained.state_dict() | {"net.0.weight": torch.ones(1, 1)})


def test_pruned_weights(tmp_path, trained):
    prune.l1_unstructured(trained.net[0], "weight", amount=0.5)
    with pytest.raises(FileError, match="the weights are pruned"):
        load(tmp_path, trained.state_dict())


def test_a_pickled_model(tmp_path, trained):
    with pytest.raises(FileError, match=r"a pickled object \(.*Net\), whose code would run. Save model\.state"):
        load(tmp_path, trained)
