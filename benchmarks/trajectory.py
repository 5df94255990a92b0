"""What recording a trajectory costs: `python benchmarks/trajectory.py`.

Two tables. The throughput of appending a large snapshot to a run file, beside that of writing the same bytes to a plain
file, in turn and best of the rounds; `--sync` has both reach the device. And the share of a training's time that
SWATrajectory takes at one snapshot an epoch, on the CNN of these comparisons, with and without measuring the mean.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from _networks import cnn
from torch.utils.data import DataLoader, TensorDataset

from landscape._layout import ParameterLayout
from landscape.callbacks import SWATrajectory
from landscape.record import Coordinate, GroupSchema, Recorder, Variable


class Training(pl.LightningModule):
    """The CNN with SGD; counts the seconds that its callbacks take."""

    def __init__(self, net: torch.nn.Module, loss: Any):
        super().__init__()
        self.net, self.loss = net, loss

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch."""
        return self.loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD with momentum."""
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


class Timed(SWATrajectory):
    """Sums the CPU seconds from a hook's start to its end, apart for the beginning of a training and its epochs."""

    spent: dict[str, float] = {}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Take the snapshot, and the time."""
        start = time.process_time()
        super().on_train_epoch_end(trainer, pl_module)
        self.spent["epochs"] += time.process_time() - start

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Prepare, and take the time."""
        start = time.process_time()
        super().on_train_start(trainer, pl_module)
        self.spent["start"] += time.process_time() - start


def share(folder: Path, epochs: int, **settings: Any) -> dict[str, float]:
    """Return the CPU seconds of a training, and those of them spent on its trajectory."""
    model, loss, batches = cnn(6)
    x, y = (torch.cat(part) for part in zip(*batches, strict=True))
    loader = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)
    Timed.spent = {"start": 0.0, "epochs": 0.0}
    trainer = pl.Trainer(
        max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
        enable_model_summary=False, default_root_dir=folder, callbacks=[Timed(path=folder / "run.h5", **settings)],
    )  # fmt: skip
    start = time.process_time()
    trainer.fit(Training(model, loss), loader)
    return Timed.spent | {"training": time.process_time() - start}


def throughput(folder: Path, megabytes: int, rounds: int, sync: bool) -> dict[str, float]:
    """Return the best MB/s of each way to write a snapshot."""
    size = megabytes * 10**6 // 4
    snapshot = np.random.default_rng(0).normal(size=size).astype(np.float32)
    recorders = {}
    for name, storage in (("run file", None), ("run file, bfloat16", "bfloat16")):
        recorder = Recorder.create(folder / f"{name}.h5", {}, ParameterLayout(("w",), ((size,),)))
        weights = Variable("weights", ("parameter",), "f4", storage=storage)
        recorder.declare(GroupSchema("swa_trajectory", "weights", [weights], [Coordinate("parameter", size)]))
        recorders[name] = recorder
    # Without the device a write is a copy into the page cache: CPU time, which the load of the machine does not blur.
    clock = time.perf_counter if sync else time.process_time
    best = dict.fromkeys(("plain file", *recorders), float("inf"))
    for step in range(rounds):
        for name in best:
            start = clock()
            if name == "plain file":
                with open(folder / f"plain{step}", "wb", buffering=0) as file:
                    file.write(memoryview(snapshot).cast("B"))
            else:
                recorders[name].append("swa_trajectory", {"step": step, "weights": snapshot})
            if sync:
                os.sync()
            best[name] = min(best[name], clock() - start)
    return {name: megabytes / seconds for name, seconds in best.items()}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sync", action="store_true")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder by default")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        speeds = throughput(Path(name), options.megabytes, options.rounds, options.sync)
    for name, speed in speeds.items():
        print(f"{name:20} {speed:7.0f} MB/s  {speed / speeds['plain file']:5.2f} of a plain file's")
    for name, settings in (
        ("weights alone", {"evaluate": False}),
        ("weights and 8 components", {"evaluate": False, "components": 8}),
        ("with the mean's loss, 1,024 examples", {}),
    ):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            spent = share(Path(folder), options.epochs, **settings)
        rest = spent["training"] - spent["epochs"] - spent["start"]
        each = spent["epochs"] / options.epochs
        print(
            f"{name:38} {each * 1e3:6.1f} ms an epoch of {rest / options.epochs * 1e3:6.1f}: "
            f"{spent['epochs'] / rest:6.2%}; "
            f"and {spent['start'] * 1e3:.0f} ms at the start"
        )


if __name__ == "__main__":
    main()
