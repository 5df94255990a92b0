"""`landscape measure` gives what the callbacks give, for saved weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from click.testing import CliRunner

from landscape import Objective, open_run
from landscape.callbacks import Compressibility, SWATrajectory
from landscape.cli import main
from landscape.compression import bits
from landscape.curvature import hessian, top_eigenpairs

CODE = """
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn


class Lit(pl.LightningModule):
    def __init__(self, width: int = 3):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Linear(width, 3))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def net():
    return Lit(5).net


def batches():
    x = torch.randn(48, 4, generator=torch.Generator().manual_seed(0))
    return list(zip(x.split(16), x[:, :3].argmax(1).split(16)))


def held_out():
    return batches()[:1]


def narrow():
    return [(x[:, :2], y) for x, y in batches()]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's code, with a training of three epochs: a run file, two checkpoints and a state dict."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "net.py").write_text(CODE)
    names: dict = {"__name__": "measured_net"}
    exec(compile(CODE, "measured_net", "exec"), names)
    torch.manual_seed(1)
    module = names["Lit"](5)
    trajectory = SWATrajectory(start=0.0, path=folder / "run.h5", batches=names["batches"](), every_n_epochs=1)
    recorded = Compressibility(path=folder / "run.h5", batches=names["batches"]())
    trainer = pl.Trainer(
        max_epochs=3,
        callbacks=[trajectory, recorded],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = torch.utils.data.DataLoader([pair for x, y in names["batches"]() for pair in zip(x, y, strict=True)], 16)
    trainer.fit(module, loader)
    trainer.save_checkpoint(folder / "last.ckpt")
    torch.save(module.net.state_dict(), folder / "plain.pt")
    return folder


def run(runner: CliRunner, folder: Path, *arguments: str, model: str = "Lit"):
    where = ["--model", f"{folder}/net.py:{model}", "--data", f"{folder}/net.py:batches"]
    return runner.invoke(main, ["measure", *arguments, *where])


def test_a_checkpoint_gives_what_the_functions_give(runner, folder, tmp_path):
    out = tmp_path / "out.h5"
    result = run(runner, folder, str(folder / "last.ckpt"), "--out", str(out), "--set", "spectrum.k=2")
    assert result.exit_code == 0, result.output
    assert result.output.strip().endswith(str(out))
    module, objective = rebuilt(folder)
    table = open_run(out).table()
    assert len(table) == 1
    assert table["step"].item() == 9
    assert table["train_loss"].item() == pytest.approx(float(objective.loss()), rel=1e-6)
    spectrum = open_run(out).dataset("hessian_spectrum")
    exact = top_eigenpairs(hessian(objective), 2).values
    np.testing.assert_allclose(spectrum["eigenvalues_top"].values[0], exact, rtol=1e-5)
    length = open_run(out).dataset("compressibility")["bits"].values[0]
    np.testing.assert_array_equal(length, bits(objective).bits)
    assert open_run(out).dataset("sharpness")["status"].values.tolist() == ["ok"]


def rebuilt(folder: Path) -> tuple[pl.LightningModule, Objective]:
    names: dict = {"__name__": "measured_net"}
    exec(compile(CODE, "measured_net", "exec"), names)
    module = names["Lit"](5)
    module.load_state_dict(torch.load(folder / "last.ckpt", weights_only=True)["state_dict"])
    return module, Objective.from_lightning(module, names["batches"]())


def test_every_snapshot_of_a_run_gives_what_its_callback_recorded(runner, folder, tmp_path):
    out = tmp_path / "out.h5"
    arguments = ["--measure", "bits", "--held-out", f"{folder}/net.py:held_out", "--out", str(out)]
    result = run(runner, folder, str(folder / "run.h5"), *arguments)
    assert result.exit_code == 0, result.output
    measured, recorded = (open_run(path).dataset("compressibility") for path in (out, folder / "run.h5"))
    assert measured["step"].values.tolist() == recorded["step"].values.tolist() == [3, 6, 9]
    np.testing.assert_array_equal(measured["bits"].values, recorded["bits"].values)
    np.testing.assert_allclose(measured["train_loss"].values, recorded["train_loss"].values, rtol=1e-6)
    assert np.isfinite(measured["held_out_loss"].values).all()


def test_a_run_that_is_named_twice_is_measured_twice(runner, folder, tmp_path):
    out = tmp_path / "out.h5"
    result = run(runner, folder, *[str(folder / "run.h5")] * 2, "--measure", "sharpness", "--out", str(out))
    assert result.exit_code == 0, result.output
    data = open_run(out).dataset("sharpness")
    assert data["step"].values.tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_array_equal(data["average_case"].values[:3], data["average_case"].values[3:])
    assert len(set(data["average_case"].values)) == 3


def test_data_that_do_not_fit_the_model_are_a_sentence(runner, folder, tmp_path):
    out = ["--out", str(tmp_path / "out.h5")]
    where = ["--model", f"{folder}/net.py:Lit", "--data", f"{folder}/net.py:narrow"]
    result = runner.invoke(main, ["measure", str(folder / "last.ckpt"), *where, *out])
    assert result.exit_code == 1
    assert "Lit cannot be evaluated on these examples (RuntimeError" in result.output
    assert "Traceback" not in result.output


def test_plain_state_dicts_are_numbered(runner, folder, tmp_path):
    out = tmp_path / "out.h5"
    both = [str(folder / "plain.pt")] * 2
    result = run(runner, folder, *both, "--measure", "sharpness", "--out", str(out), model="net")
    assert result.exit_code == 0, result.output
    data = open_run(out).dataset("sharpness")
    assert data["step"].values.tolist() == [0, 1]
    assert data["average_case"].values[0] == data["average_case"].values[1]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["missing.ckpt", "--out", "out.h5"], 1, "does not exist"),
        (["plain.pt", "--out", "out.h5"], 1, "of another architecture"),
        (["last.ckpt", "--out", "run.h5"], 1, "exists already"),
        (["last.ckpt", "--out", "out.h5", "--set", "bits"], 2, "MEASURE.NAME=VALUE"),
        (["last.ckpt", "--out", "out.h5", "--set", "bits.k=3"], 2, "bits has no setting 'k'"),
        (["last.ckpt", "--out", "out.h5", "--set", "spectrum.k=0"], 2, "k"),
        (["last.ckpt", "--out", "out.h5", "--set", "spectrum.overhead=0.1"], 2, "no setting 'overhead'"),
        (["last.ckpt", "--out", "out.h5", "--measure", "bits", "--set", "spectrum.k=1"], 2, "not among"),
    ],
)
def test_what_does_not_fit_is_a_sentence(runner, folder, tmp_path, monkeypatch, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    named = [
        str(folder / word) if word in ("plain.pt", "last.ckpt", "run.h5", "missing.ckpt") else word
        for word in arguments
    ]
    result = run(runner, folder, *named)
    assert result.exit_code == code, result.output
    assert said in result.output
    assert "Traceback" not in result.output


def test_a_measure_that_fails_in_part_is_a_row_in_part(runner, folder, tmp_path):
    out = tmp_path / "out.h5"
    result = run(
        runner, folder, str(folder / "last.ckpt"), "--measure", "spectrum", "--out", str(out), "--set", "spectrum.k=999"
    )
    assert result.exit_code == 0
    assert "Measured in part: hessian_spectrum" in result.output
    row = open_run(out).dataset("hessian_spectrum")
    assert row["status"].values.tolist() == ["partial"]
    assert np.isnan(row["lambda_max"].values).all()
    assert np.isfinite(row["trace"].values).all()
