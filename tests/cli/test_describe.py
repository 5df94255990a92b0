"""`landscape describe` gives what the library gives, the same each time, and sentences where something does not fit."""

from __future__ import annotations

import json
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from landscape import Objective
from landscape.cli import main
from landscape.description import AdamTraining, LightningTraining, prequential_orders, two_part

CODE = """
import functools

import pytorch_lightning as pl
import torch
from torch import nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset


class Lit(pl.LightningModule):
    def __init__(self, width: int):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)


def net():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def examples():
    x = torch.randn(48, 4, generator=torch.Generator().manual_seed(0))
    return x, x[:, :3].argmax(1)


def batches():
    return DataLoader(TensorDataset(*examples()), batch_size=16)


def shuffled():
    return DataLoader(TensorDataset(*examples()), batch_size=16, shuffle=True)


def unlabelled():
    return [torch.zeros(4, 4)]


def wide():
    x, y = examples()
    return [(torch.cat([x, x], 1), y)]


@functools.cache
def same():
    return net()
"""


def space() -> types.SimpleNamespace:
    names: dict = {}
    exec(CODE, names)
    return types.SimpleNamespace(**names)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's code, and a checkpoint of each model."""
    where = tmp_path_factory.mktemp("describe")
    (where / "mine.py").write_text(CODE)
    torch.manual_seed(0)
    mine = space()
    module = mine.Lit(6)
    AdamTraining(steps=40, learning_rate=0.05)(module.net, mine.examples())
    saved = {"state_dict": module.state_dict(), "hyper_parameters": {"width": 6}, "pytorch-lightning_version": "2.5.0"}
    torch.save(saved, where / "lit.ckpt")
    torch.save(module.net.state_dict(), where / "net.pt")
    return where


def invoke(runner: CliRunner, folder: Path, *arguments: str):
    given = [str(folder / word) if word.endswith((".ckpt", ".pt")) else word for word in arguments]
    return runner.invoke(main, ["describe", *[word.replace("mine.py", str(folder / "mine.py")) for word in given]])


SHORT = ("--blocks", "3", "--seeds", "2", "--steps", "20", "--batch-size", "8")


def test_json_holds_what_the_library_gives(runner: CliRunner, folder: Path) -> None:
    options = ("--model", "mine.py:net", "--data", "mine.py:batches", *SHORT, "--learning-rate", "0.05", "--json")
    result = invoke(runner, folder, "net.pt", *options, "--smoothing", "0.01")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    mine = space()
    training = AdamTraining(steps=20, batch_size=8, learning_rate=0.05)
    orders = prequential_orders(mine.net, mine.examples(), training, seeds=[0, 1], blocks=3, smoothing=0.01)
    assert found["prequential"]["block_bits"] == orders.block_bits.tolist()
    assert found["prequential"]["bits"] == orders.bits
    assert found["prequential"]["stderr"] == orders.stderr > 0
    model = mine.net()
    model.load_state_dict(torch.load(folder / "net.pt", weights_only=True))
    parts = two_part(Objective(model, nn.functional.cross_entropy, list(mine.batches())))
    np.testing.assert_allclose(found["two_part"]["curve_bits"], parts.curve_bits)
    assert found["two_part"]["ratio"] == pytest.approx(parts.ratio)


def test_a_lightning_module_is_made_by_the_checkpoints_hyper_parameters(runner: CliRunner, folder: Path) -> None:
    options = ("--model", "mine.py:Lit", "--data", "mine.py:batches", *SHORT, "--json")
    result = invoke(runner, folder, "lit.ckpt", *options)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    mine = space()
    training = LightningTraining(steps=20, batch_size=8)
    orders = prequential_orders(lambda: mine.Lit(6), mine.examples(), training, seeds=[0, 1], blocks=3)
    assert found["prequential"]["block_bits"] == orders.block_bits.tolist()
    assert found["two_part"]["n_labels"] == 48
    without = invoke(runner, folder, *options)
    assert without.exit_code == 1
    assert "the model could not be made by Lit: TypeError" in without.stderr


def test_a_loader_that_shuffles_gives_the_same_code_each_time(runner: CliRunner, folder: Path) -> None:
    options = ("--model", "mine.py:net", "--data", "mine.py:shuffled", *SHORT, "--json")
    state = torch.get_rng_state()
    first, second = (invoke(runner, folder, *options) for _ in range(2))
    assert first.exit_code == 0, first.output
    assert first.stdout == second.stdout
    assert json.loads(first.stdout)["two_part"] is None
    assert torch.equal(state, torch.get_rng_state())


def test_the_table_is_for_people(runner: CliRunner, folder: Path) -> None:
    result = invoke(runner, folder, "net.pt", "--model", "mine.py:net", "--data", "mine.py:batches", *SHORT)
    assert result.exit_code == 0, result.output
    for words in (
        "prequential, seed 1",
        "prequential, mean",
        "±",
        "two parts",
        "48 labels of 3 classes",
        "uniform-tensor",
    ):
        assert words in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("none.ckpt",), 1, "none.ckpt does not exist"),
        (("--data", "mine.py:unlabelled"), 1, "no pair of inputs and class indices"),
        (("--data", "mine.py:wide"), 1, "training or evaluating the model failed, RuntimeError"),
        (("--model", "mine.py:same"), 1, "same model twice"),
        (("--model", "mine.py:examples"), 1, "it gave tuple"),
        (("--smoothing", "2"), 1, "smoothing is 2.0"),
        (("--learning-rate", "-1"), 1, "learning_rate is -1.0"),
        (("lit.ckpt", "--model", "mine.py:Lit", "--learning-rate", "1"), 2, "--learning-rate is of Adam"),
        (("--blocks", "0"), 2, "0 is not in the range"),
        (("--model", "mine.py:Absent"), 2, "has no 'Absent'"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    runner: CliRunner, folder: Path, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    result = invoke(runner, folder, "--model", "mine.py:net", "--data", "mine.py:batches", *SHORT, *arguments)
    assert result.exit_code == code, result.output
    assert sentence in " ".join(result.stderr.split()).replace(" │ │ ", " ")
    assert "Traceback" not in result.output
