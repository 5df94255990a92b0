"""Where the numbers come from stands in the file, as plain values."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from landscape_test_trainings import Plain, fit, make_trainer, objective_of, run_of

from landscape.callbacks import Sharpness
from landscape.callbacks._provenance import hyper_parameters, optimizer, plain, versions


def test_the_root_of_the_file(tmp_path):
    trainer = fit(tmp_path, Sharpness(draws=2, steps=1), module=Plain(lr=0.05), gradient_clip_val=3.0)
    attributes = run_of(trainer).attributes
    assert attributes["model"] == "Plain"
    assert attributes["n_parameters"] == 67
    assert attributes["parameter_dtype"] == "float32"
    assert attributes["hyper_parameters"] == {"lr": 0.05, "width": 8, "seed": 0}
    assert {"name": "SGD", "lr": 0.05, "momentum": 0.9, "count": 1}.items() <= attributes["optimizer"].items()
    assert attributes["trainer"]["max_epochs"] == 2
    assert attributes["trainer"]["gradient_clip_val"] == 3.0
    # With the local part of a build (+cpu, +cu130), which a build's metadata may leave out.
    assert attributes["versions"]["torch"] == torch.__version__
    assert attributes["schema_version"] == 1


def test_what_was_measured_stands_with_each_group(tmp_path):
    trainer = fit(tmp_path, Sharpness(draws=2, steps=1, examples=20))
    measured = run_of(trainer).dataset("sharpness").attrs["measured"]
    assert measured == objective_of(trainer.lightning_module, 20).describe() | {"source": "dataset"}
    assert measured["loss"].startswith("Plain.training_step, mean over all measured examples")


def test_no_optimizer(tmp_path):
    assert optimizer(make_trainer(tmp_path)) == {}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1),
        (True, True),
        (None, None),
        ("text", "text"),
        (math.inf, "inf"),
        (math.nan, "nan"),
        (np.float32(0.5), 0.5),
        (torch.tensor(3), 3),
        (Path("a") / "b", "a/b"),
        ((1, [2.0, {"k": (3,)}]), [1, [2.0, {"k": [3]}]]),
        ({1: Path("a")}, {"1": "a"}),
        (torch.nn.Tanh(), "Tanh()"),
        (np.arange(2), "[0 1]"),
    ],
)
def test_plain(value, expected):
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)
    json.dumps(found, allow_nan=False)


def test_long_texts_are_cut():
    assert len(plain(torch.nn.Sequential(*[torch.nn.Tanh()] * 100))) == 500


def test_versions_name_what_is_installed():
    assert {"python", "torch", "numpy", "h5py"} <= versions().keys()


def test_the_entry_of_lightning_cli_is_no_hyper_parameter():
    module = Plain(lr=0.05)
    module.hparams["_instantiator"] = "lightning.pytorch.cli.instantiate_module"
    assert hyper_parameters(module) == {"lr": 0.05, "width": 8, "seed": 0}
    assert "_instantiator" in module.hparams
