"""Overhead of `SharpnessMonitor` at every tenth step of a training: `python benchmarks/monitor.py`.

The network is that of the edge-of-stability test: 3,466 parameters, 100 digits, full-batch gradient descent. Trainings
take turns, on one thread; the minimum of the CPU time from the 20th step on counts. A training with an empty callback
shows what Lightning itself takes for any callback.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from landscape import open_run
from landscape.callbacks import SharpnessMonitor

_EVERY, _BEGIN, _EXAMPLES = 10, 20, 100


class Descent(pl.LightningModule):
    """A tanh network and the squared distance from one-hot labels, by plain gradient descent."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the loss."""
        x, y = batch
        return ((self.net(x) - y) ** 2).sum(dim=1).mean()

    def configure_optimizers(self) -> Any:
        """Return gradient descent."""
        return torch.optim.SGD(self.parameters(), lr=0.4)


class Clock(pl.Callback):
    """Notes the CPU time of the steps after the first ones."""

    seconds = 0.0

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Read the clock."""
        if trainer.global_step == _BEGIN:
            self._began = time.process_time()
        elif trainer.global_step > _BEGIN:
            self.seconds = time.process_time() - self._began


def digits() -> DataLoader:
    """Return a hundred digits as one batch."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images[:_EXAMPLES] / 16, dtype=torch.float32)
    y = nn.functional.one_hot(torch.tensor(labels[:_EXAMPLES]), 10).float()
    return DataLoader(TensorDataset(x - x.mean(dim=0), y), batch_size=_EXAMPLES)


def train(callbacks: list[pl.Callback], steps: int, folder: Path) -> float:
    """Return the CPU seconds of a training; a monitor's counts are printed by `main`."""
    torch.manual_seed(0)
    clock = Clock()
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_steps=steps,
        max_epochs=-1,
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[*callbacks, clock],
    )
    trainer.fit(Descent(), digits())
    return clock.seconds


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=420)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    kinds: dict[str, Callable[[], list[pl.Callback]]] = {
        "no callback": list,
        "an empty callback": lambda: [pl.Callback()],
        "monitor, no event": lambda: [SharpnessMonitor(every_n_steps=10**9, path=file)],
        "critical_sharpness": lambda: [SharpnessMonitor(["critical_sharpness"], every_n_steps=_EVERY, path=file)],
        "lambda_max": lambda: [SharpnessMonitor(["lambda_max"], every_n_steps=_EVERY, path=file)],
        "default": lambda: [SharpnessMonitor(every_n_steps=_EVERY, path=file)],
    }
    best: dict[str, float] = {}
    counts: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "landscape.h5"
        train([], 50, Path(folder))
        for _ in range(options.rounds):
            for name, make in kinds.items():
                best[name] = min(best.get(name, float("inf")), train(make(), options.steps, Path(folder)))
                if name in ("critical_sharpness", "lambda_max", "default"):
                    rows = open_run(file).dataset("sharpness_monitor").isel(step=slice(2, None))
                    passes = f"{float(rows['n_evaluations'].mean()):.1f}" if "n_evaluations" in rows else "–"
                    counts[name] = f"{float(rows['n_matvecs'].mean()):.1f} | {passes}"
    plain, events = best["no callback"], (options.steps - _BEGIN) // _EVERY
    print("| callback | overhead | ms an event | products an event | forward passes an event |\n|---|---|---|---|---|")
    for name, seconds in best.items():
        each = f"{(seconds - best['monitor, no event']) / events * 1e3:.1f}" if name in counts else "–"
        print(f"| {name} | {seconds / plain - 1:.0%} | {each} | {counts.get(name, '– | –')} |")
    print(f"\nA step without callbacks takes {plain / (options.steps - _BEGIN) * 1e3:.2f} ms.")


if __name__ == "__main__":
    main()
