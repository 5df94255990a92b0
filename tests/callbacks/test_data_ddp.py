"""Two processes whose loaders give each other data: both measure what rank 0 reads, and train as without callbacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from landscape import open_run
from landscape._batches import fingerprint

SCRIPT = """
import itertools, json, os, sys
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

RANK = int(os.environ.get("LOCAL_RANK", 0))


def blobs():
    x = torch.arange(96.0).reshape(24, 4) / 50
    return x, torch.arange(24) % 3


class Stream(IterableDataset):
    def __init__(self):
        self.source = self.items() if kind == "once" else list(self.items())

    def items(self):
        yield from list(zip(*blobs()))[RANK::2] * 4

    def __iter__(self):
        return itertools.islice(self.source, 12)


class Buckets:
    def __iter__(self):
        yield from [[RANK, RANK + 2, RANK + 4], [RANK + 6, RANK + 8, RANK + 10]]

    def __len__(self):
        return 2


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


if __name__ == "__main__":
    folder, on = sys.argv[1:]
    left = []
    for kind in ("buckets", "copied", "once"):
        callbacks = []
        if on == "on":
            from landscape.callbacks import Sharpness

            callbacks = [Sharpness(draws=2, steps=1, examples=6, path=f"{folder}/{kind}.h5", on_error="raise")]
        pl.seed_everything(1)
        if kind == "buckets":
            loader = DataLoader(TensorDataset(*blobs()), batch_sampler=Buckets())
        else:
            loader = DataLoader(Stream(), batch_size=3)
        module = Module()
        trainer = pl.Trainer(
            max_epochs=2, callbacks=callbacks, accelerator="cpu", devices=2, strategy="ddp", logger=False,
            use_distributed_sampler=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, loader)
        left += [t.tolist() for t in module.state_dict().values()] + [torch.get_rng_state().tolist()]
    with open(f"{folder}/{on}{RANK}.json", "w") as file:
        json.dump(left, file)
"""


@pytest.mark.slow
def test_both_measure_what_rank_zero_reads(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    for on in ("off", "on"):
        command = [sys.executable, str(script), str(tmp_path), on]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(2):
        left = [json.loads((tmp_path / f"{on}{rank}.json").read_text()) for on in ("off", "on")]
        assert left[0] == left[1]
    x, y = torch.arange(96.0).reshape(24, 4) / 50, torch.arange(24) % 3
    chosen = [torch.tensor(part) for part in ([0, 2, 4], [6, 8, 10])]  # of rank 0
    expected = fingerprint([(x[part], y[part]) for part in chosen])
    for kind, source in (("buckets", "batch sampler"), ("copied", "iterator copy"), ("once", "training batches")):
        rows = open_run(tmp_path / f"{kind}.h5").dataset("sharpness")
        assert set(rows["status"].values) == {"ok"}
        assert rows.attrs["measured"]["source"] == source
        assert rows.attrs["measured"]["fingerprint"] == expected
