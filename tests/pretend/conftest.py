"""The pretend accelerator as a fixture, and small networks with their data on it and on the CPU.

The files check_*.py run in processes of their own (see test_pretend.py): torch keeps the device until a process ends.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective
from landscape._layout import ParameterLayout
from landscape.record import Coordinate, GroupSchema, Recorder, Variable

# Before 2.10 torch has no slot for a device that is written in Python.
TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])


def _load(folder: str, name: str) -> ModuleType:
    # pytest's importlib mode puts no folder on sys.path, so the module is registered under its own name here.
    full = f"landscape_test_{name}"
    if full not in sys.modules:
        path = Path(__file__).parents[1] / folder / f"{name}.py"
        spec = importlib.util.spec_from_file_location(full, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[full] = module
        spec.loader.exec_module(module)
    return sys.modules[full]


@pytest.fixture(scope="session")
def accelerator() -> ModuleType:
    """The module tests/pretend/accelerator.py, whose device is registered before anything is differentiated."""
    if TORCH < (2, 10):
        pytest.skip("a device written in Python needs torch 2.10")
    module = _load("pretend", "accelerator")
    module.register()
    return module


@pytest.fixture(scope="session")
def pretend(accelerator: ModuleType) -> torch.device:
    """The device."""
    return accelerator.register()


@pytest.fixture(scope="session")
def elsewhere(pretend: torch.device) -> torch.device:
    """The device that numbers are compared on: of the variable LANDSCAPE_TEST_DEVICE, else the pretend one."""
    return torch.device(os.environ.get("LANDSCAPE_TEST_DEVICE", pretend))


@pytest.fixture(scope="session")
def trainings() -> ModuleType:
    """The module tests/callbacks/trainings.py."""
    return _load("callbacks", "trainings")


@dataclasses.dataclass(frozen=True)
class Place:
    """Networks and data on one device.

    Attributes:
        device: The device.
        batches: Two uneven batches of inputs and labels.
        model: A tanh network of 55 parameters, trained for a moment.
        other: The same network, trained from another start.
        objective: The loss of `model`, in float64.
        small: The loss of a linear model of 15 parameters, for measures that take many gradients.
        conv: A convolutional network with batch normalisation.
        images: The loss of `conv`.
        run: A run file with weights of `model`'s shape.
    """

    device: torch.device
    batches: list[Any]
    model: nn.Module
    other: nn.Module
    objective: Objective
    small: Objective
    conv: nn.Module
    images: Objective
    run: Path

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy a tensor to the device, in float64."""
        return tensor.to(self.device, torch.float64)


@pytest.fixture(scope="session")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run file of eight rows of 55 weights."""
    path = tmp_path_factory.mktemp("run") / "run.h5"
    layout = ParameterLayout(
        ("0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"), ((4, 4), (4,), (4, 4), (4,), (3, 4), (3,))
    )
    recorder = Recorder.create(path, {}, layout)
    variables = [Variable("weights", ("parameter",), "f8"), Variable("buffers", ("buffer",))]
    axes = [Coordinate("parameter", layout.total), Coordinate("buffer", 0)]
    recorder.declare(GroupSchema("swa_trajectory", "weights", variables, axes))
    rows = np.random.default_rng(0).normal(size=(8, layout.total)) * 0.3
    for index, row in enumerate(rows):
        values = {"step": index, "weights": row, "train_loss": float(index), "buffers": np.zeros(0)}
        assert recorder.append("swa_trajectory", values)
    recorder.close()
    return path


def place(cases: ModuleType, device: torch.device, run: Path) -> Place:
    """Make the same networks and data on any device."""
    x, y = cases.data(60)
    batches = [(x[:40], y[:40]), (x[40:], y[40:])]
    models = [cases.trained(cases.mlp(width=4, seed=seed), nn.CrossEntropyLoss(), batches, steps=40) for seed in (0, 1)]
    torch.manual_seed(0)
    conv, seen = cases.ConvNet().double().eval(), torch.randn(20, 1, 5, 5, dtype=torch.float64)
    conv.norm.running_mean.normal_(0.0, 0.1)
    put = [(a.to(device, torch.float64), b.to(device)) for a, b in batches]
    pictures = [(seen[:12].to(device), y[:12].to(device)), (seen[12:].to(device), y[12:20].to(device))]
    linear = cases.trained(nn.Linear(4, 3), nn.CrossEntropyLoss(), batches, steps=40)
    model, other, linear, conv = (network.to(device) for network in (*models, linear, conv))
    whole, small, images = (
        Objective(network, nn.CrossEntropyLoss(), data)
        for network, data in ((model, put), (linear, put), (conv, pictures))
    )
    return Place(device, put, model, other, whole, small, conv, images, run)


@pytest.fixture(scope="session")
def cpu(accelerator: ModuleType, cases: ModuleType, run_file: Path) -> Place:
    """Networks and data on the CPU."""
    return place(cases, torch.device("cpu"), run_file)


@pytest.fixture(scope="session")
def there(cases: ModuleType, elsewhere: torch.device, run_file: Path) -> Place:
    """The same on another device."""
    return place(cases, elsewhere, run_file)
