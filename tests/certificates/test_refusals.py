"""What may not be certified is refused, with the reason."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from landscape._errors import MeasurementError
from landscape.certificates import SubspaceCode, certify, train_subspace


class Counting(nn.Module):
    """Has a buffer of whole numbers that its answers depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 3)
        self.register_buffer("shift", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.shift


class Noisy(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + torch.randn(3)


def tokens() -> list:
    x = torch.randn(6, 5, 16, generator=torch.Generator().manual_seed(0))
    return [(x, x[..., 0].gt(0).long())]


def across_tokens(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(scores.flatten(0, 1), target.flatten())


def test_unbounded_losses_and_answers_that_are_not_one_an_example(perceptron_case):
    batches = perceptron_case.batches
    squared = [(x, F.one_hot(y, 3).float()) for x, y in batches]
    with pytest.raises(MeasurementError, match=r"without an upper end.*bounded_loss_bound"):
        certify(perceptron_case.trained, squared, loss_fn=nn.MSELoss)
    with pytest.raises(MeasurementError, match="30 counted targets for 6 examples"):
        certify(nn.Linear(16, 3), tokens(), loss_fn=across_tokens)
    ignored = [(x, torch.where(y == 0, -100, y)) for x, y in batches]
    with pytest.raises(MeasurementError, match="ignored targets"):
        certify(perceptron_case.trained, ignored)


def test_networks_that_are_no_function_of_one_example(perceptron_case):
    batches = perceptron_case.batches
    network = nn.Sequential(nn.Linear(16, 3), nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(MeasurementError, match="batch normalisation '1' keeps no running statistics"):
        certify(network, batches)
    with pytest.raises(MeasurementError, match="differ|random|determin"):
        certify(Noisy(16, 3), batches)


def test_whole_numbers_that_are_not_as_constructed(perceptron_case):
    network = Counting()
    certify(network, perceptron_case.batches, architecture=Counting)
    network.shift += 2
    with pytest.raises(MeasurementError, match="'shift' holds whole numbers that are not as constructed"):
        certify(network, perceptron_case.batches, architecture=Counting)


def test_weights_without_a_value(perceptron_case):
    network = copy.deepcopy(perceptron_case.trained)
    network[0].weight.data[0, 0] = float("nan")
    with pytest.raises(MeasurementError, match=r"NaN|finite"):
        certify(network, perceptron_case.batches)


def test_another_network_than_the_architecture_builds(perceptron_case):
    def relu() -> nn.Module:
        return nn.Sequential(nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3))

    with pytest.raises(MeasurementError, match=r"1: Tanh\(\) where this one has 1: ReLU\(\)"):
        certify(perceptron_case.trained, perceptron_case.batches, architecture=relu)
    with pytest.raises(MeasurementError, match="gave list when called"):
        train_subspace(list, perceptron_case.batches)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"delta": 0}, "delta is 0"),
        ({"delta": 1.0}, "delta is 1.0"),
        ({"delta": float("nan")}, "delta is nan"),
        ({"method": "best"}, "method is 'best'"),
        ({"choices": {"lr": 0}}, "choices\\['lr'\\] has 0"),
        ({"choices": {"lr": 2.5}}, "must be a whole number"),
        ({"family": "zip"}, "no family 'zip'"),
    ],
)
def test_arguments_out_of_range(perceptron_case, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        certify(perceptron_case.trained, perceptron_case.batches, **arguments)


@pytest.mark.parametrize("batches", [[], [(torch.zeros(0, 16), torch.zeros(0, dtype=torch.int64))]])
def test_no_examples(perceptron_case, batches):
    with pytest.raises(MeasurementError, match="at least one batch of examples"):
        certify(perceptron_case.trained, batches)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"levels": 4}, ValueError, "levels is 4"),
        ({"levels": 19}, ValueError, "levels is 19"),
        ({"epochs": 0}, ValueError, "epochs=0"),
        ({"batch_size": 0, "dimension": 10}, ValueError, "batch_size is 0"),
        ({"dimension": 124}, MeasurementError, "from 1 to 123"),
        ({"dimension": 10, "taps": 11}, MeasurementError, "taps is 11"),
        ({"start": "trained"}, MeasurementError, "start is 'trained'"),
        ({"learning_rate": float("inf")}, ValueError, "learning_rate=inf"),
        ({"dimension": 10, "delta": 2.0}, ValueError, "delta is 2.0"),
    ],
)
def test_trainings_out_of_range(perceptron_case, arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        train_subspace(perceptron_case.architecture, perceptron_case.batches, progress=False, **arguments)


def test_a_loss_that_is_not_finite_stops_the_training(perceptron_case):
    batches = [(x * 1e38, y) for x, y in perceptron_case.batches]
    with pytest.raises(MeasurementError, match="lower learning_rate"):
        train_subspace(perceptron_case.architecture, batches, dimension=10, progress=False, loss_fn=_diverging)


def _diverging(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(scores * 1e38, target)


def test_a_subspace_needs_its_architecture(perceptron_case):
    code = SubspaceCode("zero", 0, None, None, 1, 0, torch.zeros(123, dtype=torch.int64).numpy())
    with pytest.raises(ValueError, match="give architecture="):
        certify(code, perceptron_case.batches)


def test_a_loader_that_leaves_out_examples(perceptron_case):
    x, y = (torch.cat(parts) for parts in zip(*perceptron_case.batches, strict=True))
    data = TensorDataset(x, y)
    dropping = DataLoader(data, batch_size=7, drop_last=True)
    words = rf"leaves out {len(x) % 7} of {len(x)} examples.*drop_last=False"
    with pytest.raises(MeasurementError, match=words):
        certify(perceptron_case.trained, dropping)
    with pytest.raises(MeasurementError, match=words):
        train_subspace(perceptron_case.architecture, dropping, dimension=5)
    with pytest.raises(TypeError, match="data set TensorDataset"):
        certify(perceptron_case.trained, data)
