"""Parameters that a strategy spreads over processes: one failed row a group, and a training that ends as without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from landscape import open_run

SCRIPT = """
import json, os, sys, warnings
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.utils.data import DataLoader, TensorDataset

from landscape import MeasurementError, Objective, callbacks
from landscape.callbacks import default_callbacks

RANK = int(os.environ.get("LOCAL_RANK", 0))


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))

    def configure_model(self):
        if kind == "fsdp2":
            mesh = self.device_mesh["data_parallel"]
            for layer in (self.net[0], self.net[2]):
                fully_shard(layer, mesh=mesh)
            fully_shard(self.net, mesh=mesh)
        else:
            parallelize_module(
                self.net, self.device_mesh["tensor_parallel"], {"0": ColwiseParallel(), "2": RowwiseParallel()}
            )

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def train(chosen, epochs=2, from_checkpoint=None):
    shares = {"data_parallel_size": 2, "tensor_parallel_size": 1}
    if kind != "fsdp2":
        shares = {"data_parallel_size": 1, "tensor_parallel_size": 2}
    pl.seed_everything(1)
    x = torch.randn(96, 4)
    loader = DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=16, shuffle=True)
    module = Module()
    trainer = pl.Trainer(
        max_epochs=epochs, callbacks=chosen, accelerator="cpu", devices=2, logger=False, enable_checkpointing=False,
        strategy=ModelParallelStrategy(process_group_backend="gloo", save_distributed_checkpoint=False, **shares),
        enable_progress_bar=False, enable_model_summary=False,
    )
    trainer.fit(module, loader, ckpt_path=from_checkpoint)
    local = [t.to_local() if hasattr(t, "to_local") else t for t in module.state_dict().values()]
    state = [t.detach().reshape(-1).tolist() for t in local]
    return state, torch.get_rng_state().tolist(), trainer, module, loader


if __name__ == "__main__":
    folder, kind = sys.argv[1:]
    names = ("HessianSpectrum", "Sharpness", "SWATrajectory", "Compressibility", "ModeConnectivity")
    names += ("LearningCoefficient", "LossSurface", "SharpnessMonitor")
    settings = {"ModeConnectivity": {"since": 1}, "SharpnessMonitor": {"every_n_steps": 1}}
    sets = {name: lambda path, name=name: [getattr(callbacks, name)(path=path, **settings.get(name, {}))]
            for name in names}
    sets["default"] = lambda path: default_callbacks(path=path)
    sets["all"] = lambda path: [callback for name in names for callback in sets[name](path)]
    found = {}
    alone, generator, *_ = train([])
    for number in range(2):
        for name, make in sets.items():
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                state, random, trainer, module, loader = train(make(f"{folder}/{kind}-{name}-{number}.h5"))
            said = [str(entry.message) for entry in caught if " could not " in str(entry.message)]
            found[f"{name}-{number}"] = [state == alone and random == generator, said]
    try:
        Objective.from_lightning(module, list(loader))
    except MeasurementError as error:
        found["objective"] = str(error)
    # A checkpoint, and a training that goes on from it: in a new file, as nothing was measured in the first.
    path = f"{folder}/{kind}.ckpt"
    trainer.save_checkpoint(path)
    on = train(default_callbacks(path=f"{folder}/{kind}-default-0.h5"), 3, path)[0]
    found["resumed"] = on == train([], 3, path)[0]
    try:
        train(default_callbacks(path=f"{folder}/{kind}-raised.h5", on_error="raise"))
    except MeasurementError as error:
        found["raised"] = str(error)
    with open(f"{folder}/{kind}{RANK}.json", "w") as file:
        json.dump(found, file)
"""
GROUPS = {
    "compressibility",
    "hessian_spectrum",
    "learning_coefficient",
    "loss_surface",
    "mode_connectivity",
    "sharpness",
    "sharpness_monitor",
    "swa_trajectory",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "resumed", "sentence"),
    [
        (
            "fsdp2",
            6,
            "net of Module is sharded over processes by fully_shard (FSDP2), and sharded parameters are not me",
        ),
        (
            "tensor",
            12,
            "net.0.weight of Module is a DTensor, of which each process holds a part, and sharded parameters ",
        ),
    ],
)
def test_twenty_trainings_end_as_without_callbacks(tmp_path: Path, kind: str, resumed: int, sentence: str) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path), kind]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(2):
        found = json.loads((tmp_path / f"{kind}{rank}.json").read_text())
        assert found.pop("objective").startswith(sentence)
        assert found.pop("raised").startswith(sentence)
        assert found.pop("resumed")
        assert len(found) == 20
        assert [name for name, (identical, _) in found.items() if not identical] == []
        said = {name: len(each) for name, (_, each) in found.items()}
        assert said["all-1"] == len(GROUPS)
        assert {said["HessianSpectrum-1"], said["SharpnessMonitor-1"], said["SWATrajectory-1"]} == {1}
    recorded = open_run(tmp_path / f"{kind}-all-1.h5")
    assert set(recorded.groups) == GROUPS
    for group in GROUPS:
        rows = recorded.dataset(group)
        assert rows["status"].values.tolist() == ["failed"], group
        assert str(rows["reason"].values[0]).startswith(sentence), group
    assert open_run(tmp_path / f"{kind}-default-0.h5").dataset("sharpness")["step"].values.tolist() == [resumed]
    assert open_run(tmp_path / f"{kind}-default-0.1.h5").dataset("sharpness")["step"].values.tolist() == [0]
