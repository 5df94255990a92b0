"""`landscape connect` gives what the library gives, and a sentence where the user's part does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from click.testing import CliRunner
from torch import nn

from landscape.cli import main
from landscape.connectivity import align, barriers, connect, linear_path

CODE = """
import pytorch_lightning as pl
import torch
from torch import nn
import torch.nn.functional as F


class Lit(pl.LightningModule):
    def __init__(self, width: int = 3):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self(x), y)


def net():
    return Lit(6).net


def batches():
    x = torch.randn(48, 4, generator=torch.Generator().manual_seed(0))
    return list(zip(x.split(16), x[:, :3].argmax(1).split(16)))


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return batches()


def held_out():
    return batches()[:1]


def broken():
    raise RuntimeError("no data today")


nothing = []
number = 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's code, with two checkpoints of it."""
    where = tmp_path_factory.mktemp("connect")
    (where / "mine.py").write_text(CODE)
    for seed, name in enumerate(("a", "b")):
        module = _module(where)
        torch.manual_seed(seed)
        for parameter in module.parameters():
            nn.init.normal_(parameter)
        saved = {"state_dict": module.state_dict(), "hyper_parameters": {"width": 6, "_class": "x"}}
        torch.save(saved | {"pytorch-lightning_version": pl.__version__}, where / f"{name}.ckpt")
        torch.save(module.net.state_dict(), where / f"{name}.pt")
    torch.save(nn.Linear(4, 3).state_dict(), where / "other.pt")
    return where


def _module(where: Path) -> pl.LightningModule:
    space: dict = {}
    exec((where / "mine.py").read_text(), space)
    return space["Lit"](6)


def nets(folder: Path) -> tuple[nn.Module, nn.Module, list]:
    found = []
    for name in ("a", "b"):
        module = _module(folder)
        module.load_state_dict(torch.load(folder / f"{name}.ckpt", weights_only=True)["state_dict"])
        found.append(module.net)
    x = torch.randn(48, 4, generator=torch.Generator().manual_seed(0))
    return found[0], found[1], list(zip(x.split(16), x[:, :3].argmax(1).split(16), strict=True))


def invoke(runner: CliRunner, folder: Path, a: str, b: str, *options: str):
    mine = str(folder / "mine.py")
    options = tuple(option.replace("mine.py", mine) for option in options)
    return runner.invoke(main, ["connect", str(folder / a), str(folder / b), *options])


@pytest.mark.parametrize(
    ("files", "model", "data"),
    [
        (("a.ckpt", "b.ckpt"), "mine.py:Lit", "mine.py:Data"),
        (("a.ckpt", "b.ckpt"), "mine.py:net", "mine.py:batches"),
        (("a.pt", "b.pt"), "mine.py:net", "mine.py:batches"),
    ],
)
def test_json_holds_what_the_library_gives(runner, folder, files, model, data):
    options = ("--model", model, "--data", data, "--held-out", "mine.py:held_out", "--align", "weights")
    result = invoke(runner, folder, *files, *options, "--steps", "20", "--refine", "2", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["paths"]
    one, other, batches = nets(folder)
    aligned = align(one, other).model
    loss = nn.CrossEntropyLoss()
    curves = {
        "linear": linear_path(one, other, loss, batches),
        "linear, aligned": linear_path(one, aligned, loss, batches),
        "bezier": connect(one, aligned, loss, batches, steps=20, progress=False),
    }
    assert list(found) == list(curves)
    for name, curve in curves.items():
        for split, measured in (("train", None), ("held_out", batches[:1])):
            profile = curve.evaluate(measured, refine=2)
            np.testing.assert_allclose(found[name][split]["loss"], profile.loss, rtol=1e-6)
            np.testing.assert_allclose(found[name][split]["t"], profile.t)
            for stored, barrier in zip(found[name][split]["barriers"], barriers(profile), strict=True):
                assert stored["value"] == pytest.approx(barrier.value, rel=1e-5, abs=1e-7)
                assert stored["stderr"] == pytest.approx(barrier.stderr, rel=1e-4, abs=1e-7)


def test_the_table_is_for_people(runner, folder):
    options = ("--model", "mine.py:Lit", "--data", "mine.py:Data", "--kind", "chain", "--bends", "2", "--steps", "5")
    result = invoke(runner, folder, "a.ckpt", "b.ckpt", *options)
    assert result.exit_code == 0, result.output
    for word in ("linear", "chain", "interpolated", "worse end", "±"):
        assert word in result.stdout


@pytest.mark.parametrize(
    ("files", "options", "code", "sentence"),
    [
        (("a.ckpt", "none.ckpt"), (), 1, "none.ckpt does not exist"),
        (("a.ckpt", "mine.py"), (), 1, "cannot be read as a checkpoint"),
        (("a.ckpt", "other.pt"), (), 1, "holds no tensor"),
        (("a.ckpt", "b.ckpt"), ("--data", "mine.py:broken"), 1, "the data could not be made by broken: RuntimeError"),
        (("a.ckpt", "b.ckpt"), ("--data", "mine.py:nothing"), 1, "hold no batches"),
        (("a.ckpt", "b.ckpt"), ("--data", "mine.py:number"), 1, "it gave int"),
        (("a.ckpt", "b.ckpt"), ("--model", "mine.py:batches"), 1, "it gave list"),
        (("a.ckpt", "b.ckpt"), ("--learning-rate", "-1"), 1, "positive finite"),
        (("a.ckpt", "b.ckpt"), ("--model", "mine.py:Absent"), 2, "has no 'Absent'"),
        (("a.ckpt", "b.ckpt"), ("--model", "mine"), 2, "not of the form"),
        (("a.ckpt", "b.ckpt"), ("--model", "no.such.module:net"), 2, "cannot be imported"),
        (("a.ckpt", "b.ckpt"), ("--kind", "spline"), 2, "spline"),
    ],
)
def test_what_does_not_fit_is_one_sentence(runner, folder, files, options, code, sentence):
    result = invoke(runner, folder, *files, "--model", "mine.py:Lit", "--data", "mine.py:batches", *options)
    assert result.exit_code == code, result.output
    assert " ".join(sentence.split()) in " ".join(result.stderr.split()).replace(" │ │ ", " ")
    assert "Traceback" not in result.output
