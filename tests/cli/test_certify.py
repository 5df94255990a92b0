"""`landscape certify` writes what the library writes, and verifies it in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from landscape.callbacks import SWATrajectory
from landscape.certificates import certify, read
from landscape.cli import main

# Advice of Lightning on what a tiny training does on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning.*")

CODE = """
import pytorch_lightning as pl
import torch
from torch import nn
import torch.nn.functional as F


class Lit(pl.LightningModule):
    def __init__(self, width: int = 3):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Linear(width, 3))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)


class Odd(Lit):
    def __init__(self, width: int = 3, activation=None):
        super().__init__(width)
        self.hparams["activation"] = activation


def net():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def linear():
    return nn.Linear(4, 3, bias=False)


def batches(n=600):
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(0))
    return [(x[:400], x[:400, :3].argmax(1)), (x[400:], x[400:, :3].argmax(1))]


def squared(output, target):
    return F.mse_loss(output, F.one_hot(target, 3).float())


def fewer():
    return batches(500)


def copied():
    return batches() + batches(300)


def narrow():
    return [(x[:, :2], y) for x, y in batches()]


nothing = []
empty = [(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))]
"""


def space(folder: Path) -> dict:
    found: dict = {"__name__": "mine"}
    exec((folder / "mine.py").read_text(), found)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's code, with a checkpoint of it, a run file, a plain state dict, and a certificate."""
    where = tmp_path_factory.mktemp("certify")
    (where / "mine.py").write_text(CODE)
    mine = space(where)
    pl.seed_everything(0, verbose=False)
    module = mine["Lit"](6)
    trainer = pl.Trainer(
        max_epochs=40,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[SWATrajectory(path=where / "run.h5", on_error="raise", every_n_epochs=20, examples=100)],
    )
    x, y = (torch.cat(column) for column in zip(*mine["batches"](), strict=True))
    trainer.fit(module, DataLoader(TensorDataset(x, y), batch_size=100))
    trainer.save_checkpoint(where / "model.ckpt")
    torch.save(mine["net"]().state_dict(), where / "net.pt")
    return where


def invoke(runner, folder: Path, *options: str, data: str = "batches"):
    options = tuple(option.replace("mine.py", str(folder / "mine.py")) for option in options)
    options = tuple(
        str(folder / option) if option.endswith((".ckpt", ".h5", ".pt", ".lsc")) else option for option in options
    )
    return runner.invoke(main, ["certify", *options, "--data", f"{folder / 'mine.py'}:{data}"])


@pytest.mark.parametrize("source", ["model.ckpt", "run.h5"])
def test_from_a_checkpoint_or_a_run(runner, folder, source):
    out = f"{source}.lsc"
    result = invoke(runner, folder, source, "--model", "mine.py:Lit", "--out", out, "--choices", "checkpoint=20,lr=3")
    assert result.exit_code == 0, result.output
    claim = read(folder / out)
    assert claim.statement() in result.stdout
    assert claim.choices == {"checkpoint": 20, "lr": 3}
    assert claim.architecture["settings"] == {"width": 6}
    assert claim.n == 600
    assert claim.bound < 2 / 3
    verified = invoke(runner, folder, "--verify", out, "--model", "mine.py:Lit")
    assert verified.exit_code == 0, verified.output
    assert claim.statement() in verified.stdout
    other = invoke(runner, folder, "--verify", out, "--model", "mine.py:Lit", data="fewer")
    assert other.exit_code == 1
    assert "these are not the examples of the certificate" in other.stdout


@pytest.mark.slow
def test_verification_in_a_fresh_process(runner, folder):
    options = ("--model", "mine.py:Lit", "--out", "fresh.lsc")
    assert invoke(runner, folder, "model.ckpt", *options).exit_code == 0
    code = "from landscape.cli import main; main()"
    arguments = ["certify", "--verify", "fresh.lsc", "--model", "mine.py:Lit", "--data", "mine.py:batches"]
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=folder, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("valid: ")


def test_the_file_is_the_librarys(runner, folder):
    mine = space(folder)
    network = mine["net"]()
    network.load_state_dict(torch.load(folder / "net.pt", weights_only=True))
    expected = certify(network, mine["batches"](), architecture=mine["net"], delta=0.1, method="exact")
    options = ("--model", "mine.py:net", "--delta", "0.1", "--method", "exact", "--out", "net.lsc", "--json")
    result = invoke(runner, folder, "net.pt", *options)
    assert result.exit_code == 0, result.output
    assert (folder / "net.lsc").read_bytes() == expected.to_bytes()
    found = json.loads(result.stdout)
    assert found["bound"] == expected.bound
    assert found["bits"] == expected.bits
    verified = invoke(runner, folder, "--verify", "net.lsc", "--model", "mine.py:net", "--json")
    assert verified.exit_code == 0
    assert json.loads(verified.stdout)["valid"] is True


@pytest.mark.parametrize(
    ("options", "choices"),
    [
        (("--train", "subspace", "--dimension", "5"), {}),
        (("--train", "subspace", "--dimension", "5", "--dimension", "9", "--taps", "3"), {"dimension": 2}),
        (("--train", "grid", "--levels", "5"), {}),
    ],
)
def test_trained_to_take_few_bits(runner, folder, options, choices):
    options += ("--model", "mine.py:net", "--epochs", "5", "--seed", "2", "--out", "few.lsc")
    result = invoke(runner, folder, *options)
    assert result.exit_code == 0, result.output
    assert read(folder / "few.lsc").choices == choices
    verified = invoke(runner, folder, "--verify", "few.lsc", "--model", "mine.py:net")
    assert verified.exit_code == 0, verified.output


def test_training_from_the_hyper_parameters_of_a_checkpoint(runner, folder):
    options = ("--train", "grid", "--model", "mine.py:Lit", "--epochs", "3", "--out", "wide.lsc")
    assert invoke(runner, folder, "model.ckpt", *options).exit_code == 0
    claim = read(folder / "wide.lsc")
    assert claim.architecture["settings"] == {"width": 6}
    assert "width = 6" in claim.statement()
    assert invoke(runner, folder, "--verify", "wide.lsc", "--model", "mine.py:Lit").exit_code == 0


def test_a_certificate_that_does_not_hold_is_one_sentence_and_exit_1(runner, folder):
    written = invoke(runner, folder, "net.pt", "--model", "mine.py:net", "--out", "good.lsc")
    assert written.exit_code == 0, written.output
    other = invoke(runner, folder, "--verify", "good.lsc", "--model", "mine.py:linear")
    assert other.exit_code == 1
    assert "not valid: this is another architecture" in other.stdout
    content = (folder / "good.lsc").read_bytes()
    (folder / "short.lsc").write_bytes(content[:-40])
    (folder / "flipped.lsc").write_bytes(content[:60] + bytes([content[60] ^ 4]) + content[61:])
    for name, sentence in (("short", "is cut short"), ("flipped", "is damaged"), ("none", "does not exist")):
        result = invoke(runner, folder, "--verify", f"{name}.lsc", "--model", "mine.py:net")
        assert result.exit_code == 1
        assert sentence in result.stderr
        assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("options", "data", "code", "sentence"),
    [
        (("--delta", "0"), "batches", 1, "delta is 0.0; it must lie strictly between 0 and 1"),
        (("--delta", "1.5"), "batches", 1, "delta is 1.5"),
        (("--delta", "nan"), "batches", 1, "delta is nan"),
        ((), "nothing", 1, "hold no batches"),
        ((), "empty", 1, "hold no examples"),
        (("--choices", "lr=0"), "batches", 1, "choices['lr'] has 0"),
        (("--family", "zip"), "batches", 1, "no family 'zip'"),
        (("--loss", "mine.py:squared"), "batches", 1, "without an upper end"),
        (("--train", "subspace"), "batches", 1, "from 1 to 51 dimensions"),
        (("--train", "grid", "--levels", "4"), "batches", 1, "levels is 4"),
        ((), "narrow", 1, "cannot be evaluated on these examples"),
        ((), "copied", 1, "examples are equal to an earlier one"),
        (("--train", "grid", "--levels", "4"), "copied", 1, "examples are equal to an earlier one"),  # before training
        (("--out", "nowhere/a.lsc"), "batches", 1, "cannot be written: No such file"),
        (("--dimension", "4"), "batches", 2, "--dimension belongs to --train subspace"),
        (("--seed", str(2**63)), "batches", 2, "--seed"),
        (("--train", "grid", "--dimension", "4"), "batches", 2, "--dimension belongs to --train subspace"),
        (("--choices", "lr"), "batches", 2, "not of the form"),
        (("--choices", "lr=2,lr=3"), "batches", 2, "twice"),
        (("--method", "best"), "batches", 2, "best"),
        (("--verify", "model.lsc"), "batches", 2, "--verify takes"),
        (("--delta", "small"), "batches", 2, "small"),
    ],
)
def test_what_does_not_fit_is_one_sentence(runner, folder, options, data, code, sentence):
    result = invoke(runner, folder, "net.pt", "--model", "mine.py:net", *options, data=data)
    assert result.exit_code == code, result.output
    assert sentence in " ".join(result.stderr.split()).replace(" │ │ ", " ")
    assert "Traceback" not in result.output


@pytest.mark.parametrize("option", [("--delta", "0.05"), ("--choices", "lr=3"), ("--method", "exact"), ("--out", "b")])
def test_verification_takes_no_settings_of_the_claim(runner, folder, option):
    result = runner.invoke(
        main,
        [
            "certify",
            "--verify",
            "a.lsc",
            "--model",
            f"{folder / 'mine.py'}:net",
            "--data",
            f"{folder / 'mine.py'}:batches",
        ]
        + list(option),
    )
    assert result.exit_code == 2
    assert "--verify takes --model, --data, --loss and --json only" in " ".join(result.stderr.split())


def test_examples_that_are_vouched_for(runner, folder):
    options = ("net.pt", "--model", "mine.py:net", "--repeats-are-draws", "--out", "copied.lsc")
    result = invoke(runner, folder, *options, data="copied")
    assert result.exit_code == 0, result.output
    assert "somebody vouches that they were drawn so" in result.stdout
    assert invoke(runner, folder, "--verify", "copied.lsc", "--model", "mine.py:net", data="copied").exit_code == 0


def test_there_must_be_something_to_certify(runner, folder):
    result = invoke(runner, folder, "--model", "mine.py:net")
    assert result.exit_code == 2
    assert "give a CHECKPOINT, or --train, or a certificate to --verify" in " ".join(result.stderr.split())


def test_hyper_parameters_that_no_header_can_hold(runner, folder):
    module = space(folder)["Odd"](6, nn.Tanh)
    saved = {"state_dict": module.state_dict(), "hyper_parameters": {"width": 6, "activation": torch.float32}}
    torch.save(saved, folder / "odd.ckpt")
    result = invoke(runner, folder, "odd.ckpt", "--model", "mine.py:Odd")
    assert result.exit_code == 1
    assert "the hyper-parameter 'activation' is torch.float32, which a certificate cannot hold" in result.stderr
