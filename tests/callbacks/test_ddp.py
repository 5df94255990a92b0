"""Two processes: one file, written by rank 0 from what both measured, and a training that ends as without callbacks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from landscape import Objective, open_run
from landscape.compression import bits
from landscape.curvature import hessian, top_eigenpairs
from landscape.record import Run
from landscape.sharpness import average_case, gradient_norm, sam
from landscape.surface import given_directions, loss_surface

SCRIPT = """
import json, os, sys
import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

RANK = int(os.environ.get("LOCAL_RANK", 0))


class Noisy(TensorDataset):
    # A generator of its own, which is another one in every process.
    generator = np.random.default_rng(RANK)
    reads = 0

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return (x + 0.1 * self.generator.normal() if mode == "faulty" else x), y


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))

    def training_step(self, batch, batch_idx):
        x, y = batch
        if mode == "faulty" and not self.training and RANK == 1 and self.trainer.global_step == 3:
            raise KeyError("broken example")
        return nn.functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


if __name__ == "__main__":
    folder, mode = sys.argv[1:]
    callbacks = []
    if mode != "off":
        from landscape.callbacks import HessianSpectrum, LossSurface, Sharpness, SWATrajectory, default_callbacks

        path = f"{folder}/{mode}.h5"
        callbacks = default_callbacks(overhead=None, path=path, on_error="raise" if mode == "on" else "warn", log=True)
        if mode == "on":
            # Nobody knows how many events an overhead allows; that all processes keep to the same is what counts.
            callbacks += [
                HessianSpectrum(k=2, every_n_steps=1, overhead=20.0, path=path, on_error="raise", name="budgeted"),
                HessianSpectrum(k=2, weights="swa", path=path, on_error="raise"),
                HessianSpectrum(k=2, track=True, path=path, on_error="raise", name="tracked"),
            ]
        elif mode == "resumed":
            settings = {"path": path, "on_error": "raise"}
            callbacks = [SWATrajectory(**settings), HessianSpectrum(k=2, weights="swa", **settings)]
        elif mode == "surface":
            # The other process has no such file, as on another machine; a measurement that read one would fail there.
            settings = {"path": f"{folder}/{mode}{RANK}.h5", "on_error": "raise", "points": 3}
            callbacks = [
                SWATrajectory(every_n_steps=1, path=settings["path"], on_error="raise"),
                LossSurface("trajectory", held_out=True, name="trajectory", **settings),
                LossSurface("plane", through=[f"{folder}/{end}{RANK}.pt" for end in "ab"], name="plane", **settings),
            ]
        else:
            callbacks.append(Sharpness(path=f"{path}/a file is no folder.h5", name="nowhere"))
    pl.seed_everything(1)
    x = torch.randn(96, 4)
    loader = DataLoader(Noisy(x, x[:, :3].argmax(1)), batch_size=16, shuffle=True)
    module = Module()
    checkpoint = f"{folder}/one.ckpt"
    there = mode == "resumed" and os.path.exists(checkpoint)
    trainer = pl.Trainer(
        max_epochs=1 if mode == "resumed" and not there else 2,
        callbacks=callbacks, accelerator="cpu", devices=2, strategy="ddp", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )
    trainer.fit(module, loader, ckpt_path=checkpoint if there else None)
    trainer.save_checkpoint(checkpoint)
    left = [t.detach().reshape(-1).double().tolist() for t in module.state_dict().values()]
    left.append(torch.get_rng_state().tolist())
    with open(f"{folder}/{mode}{RANK}.json", "w") as file:
        json.dump(left, file)
"""


def run(folder: Path, mode: str) -> str:
    """Train in two processes and return what they said."""
    script = folder / "train.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(folder), mode]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def one_process(state: dict[str, torch.Tensor]) -> Objective:
    """What one process measures at recorded weights and batch-normalisation statistics, over the same examples."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        x = torch.randn(96, 4)
    y = x[:, :3].argmax(1)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
    net.load_state_dict({name.removeprefix("net."): tensor for name, tensor in state.items()})
    return Objective(net, F.cross_entropy, list(zip(x.split(16), y.split(16), strict=True)))


def check_errors_over_examples(recorded: Run, objective: Objective) -> None:
    """Compare every `*_stderr_sample` at the last step with what one process finds over the same batches."""
    evaluation, top = objective.evaluate(), top_eigenpairs(hessian(objective), 10, method="dense")
    code = bits(objective, tolerances=(0.003, 0.01, 0.03, 0.1, 0.3))
    expected = {
        ("hessian_spectrum", "train_loss"): evaluation.loss_stderr_sample,
        ("hessian_spectrum", "train_error"): evaluation.error_stderr_sample,
        ("hessian_spectrum", "eigenvalues_top"): top.stderr_sample,
        ("sharpness", "gradient_norm"): gradient_norm(objective).stderr_sample,
        ("sharpness", "sam"): sam(objective).stderr_sample,
        ("sharpness", "average_case"): average_case(objective).stderr_sample,
        ("compressibility", "loss_rise"): code.loss_rise_stderr_sample,
    }
    for (group, name), error in expected.items():
        assert np.isfinite(error).all(), name
        found = recorded.dataset(group)[f"{name}_stderr_sample"].values[-1]
        np.testing.assert_allclose(found, error, rtol=2e-3, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_two_processes_record_what_one_would_and_train_as_without(tmp_path: Path) -> None:
    for mode in ("off", "on"):
        run(tmp_path, mode)
    for rank in range(2):
        left = [json.loads((tmp_path / f"{mode}{rank}.json").read_text()) for mode in ("off", "on")]
        assert left[0] == left[1]
    assert [path.name for path in tmp_path.glob("*.h5")] == ["on.h5"]
    recorded = open_run(tmp_path / "on.h5")
    table = recorded.table()
    assert {3, 6} <= set(table["step"])
    assert recorded.dataset("hessian_spectrum")["step"].values.tolist() == [3, 6]
    assert (table["status"] == "ok").all(), table["reason"].tolist()
    for group in ("hessian_spectrum", "hessian_spectrum_swa", "budgeted", "tracked"):
        assert (recorded.dataset(group)["status"] == "ok").all(), group
    objective = one_process(recorded.state_dict(6))
    eigenvalues = np.linalg.eigvalsh(hessian(objective).dense().double().numpy())[::-1]
    within = {"rtol": 0, "atol": 1e-6 * eigenvalues[0]}
    spectrum = recorded.dataset("hessian_spectrum")
    np.testing.assert_allclose(spectrum["eigenvalues_top"].values[1], eigenvalues[:10], **within)
    np.testing.assert_allclose(np.sort(spectrum["eigenvalues_bottom"].values[1]), eigenvalues[-2:][::-1], **within)
    np.testing.assert_allclose(spectrum["train_loss"].values[1], float(objective.loss()), rtol=1e-6)
    check_errors_over_examples(recorded, objective)
    measured = spectrum.attrs["measured"]
    assert objective.fingerprint in str(measured)


@pytest.mark.slow
def test_a_failure_in_one_process_is_a_failed_row_and_no_deadlock(tmp_path: Path) -> None:
    said = run(tmp_path, "faulty")
    assert "could not prepare the recording" in said  # of the callback whose path only rank 0 tries to open
    spectrum = open_run(tmp_path / "faulty.h5").dataset("hessian_spectrum")
    assert spectrum["step"].values.tolist() == [3, 6]
    assert spectrum["status"].values.tolist() == ["failed", "ok"]
    assert str(spectrum["reason"].values[0]).endswith("KeyError: 'broken example' (on process 1 of 2)")
    assert np.isnan(spectrum["eigenvalues_top"].values[0]).all()
    assert np.isfinite(spectrum["eigenvalues_top"].values[1]).all()


@pytest.mark.slow
def test_the_mean_of_a_resumed_training_is_that_of_all_processes(tmp_path: Path) -> None:
    for _ in range(2):  # the second begins from the checkpoint of the first
        run(tmp_path, "resumed")
    recorded = open_run(tmp_path / "resumed.h5")
    assert recorded.dataset("swa_trajectory")["n_averaged"].values.tolist() == [1, 2]
    objective = one_process(recorded.state_dict(6, average="swa"))
    spectrum = recorded.dataset("hessian_spectrum_swa")
    assert spectrum["step"].values.tolist() == [3, 6]
    np.testing.assert_allclose(spectrum["train_loss"].values[1], float(objective.loss()), rtol=1e-6)


@pytest.mark.slow
def test_surfaces_follow_the_files_of_the_first_process(tmp_path: Path) -> None:
    """The second process has neither the run's file nor the checkpoints that a plane passes through."""
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
        torch.save({f"net.{key}": tensor for key, tensor in net.state_dict().items()}, tmp_path / f"{name}0.pt")
    run(tmp_path, "surface")
    recorded = open_run(tmp_path / "surface0.h5")
    objective = one_process(recorded.state_dict(6))
    for group in ("trajectory", "plane"):
        row = recorded.dataset(group).isel(step=-1)
        directions = given_directions(
            torch.from_numpy(row["directions"].values), torch.from_numpy(row["center"].values)
        )
        spans = [[float(row[f"axis_{axis}"][end]) for end in (0, -1)] for axis in range(2)]
        alone = loss_surface(objective, directions, points=3, span=spans)
        np.testing.assert_allclose(row["surface_train_loss"], alone.loss, rtol=1e-5)
        visits = (row["trajectory_step"] >= 0).values
        steps = row["trajectory_step"].values[visits].tolist()
        assert steps == recorded.trajectory().steps.tolist()
        own = [float(one_process(recorded.state_dict(step)).loss()) for step in steps]
        np.testing.assert_allclose(row["trajectory_loss"].values[visits], own, rtol=1e-5)
    assert not list(tmp_path.glob(".*.points"))
    assert not (tmp_path / "surface1.h5").exists()
