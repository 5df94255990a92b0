"""Two processes: one file, written by rank 0, and a training that ends as without callbacks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from landscape import open_run

SCRIPT = """
import json, sys
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


if __name__ == "__main__":
    folder, recording = sys.argv[1], sys.argv[2] == "on"
    callbacks = []
    if recording:
        from landscape.callbacks import default_callbacks

        callbacks = default_callbacks(path=f"{folder}/run.h5", on_error="raise", log=True)
    pl.seed_everything(1)
    x = torch.randn(96, 4)
    loader = DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=16, shuffle=True)
    module = Module()
    trainer = pl.Trainer(
        max_epochs=2, callbacks=callbacks, accelerator="cpu", devices=2, strategy="ddp", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )
    trainer.fit(module, loader)
    if trainer.is_global_zero:
        weights = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
        with open(f"{folder}/{sys.argv[2]}.json", "w") as file:
            json.dump(weights.tolist(), file)
"""


@pytest.mark.slow
def test_two_processes_record_one_file_and_train_as_without(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for recording in ("off", "on"):
        command = [sys.executable, str(script), str(tmp_path), recording]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "on.json").read_text()) == json.loads((tmp_path / "off.json").read_text())
    table = open_run(tmp_path / "run.h5").table()
    assert table["step"].tolist() == [3, 6]
    assert (table["status"] == "ok").all(), table["reason"].tolist()
    assert [path.name for path in tmp_path.glob("*.h5")] == ["run.h5"]
