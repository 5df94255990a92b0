"""What `default_callbacks(overhead=...)` takes of a training's time: `python benchmarks/overhead.py`.

Everything is counted in the processor's time: the training's own, the measurements', and that of the hooks between
events. A fit is as long as `--seconds` says, found by a short one before.
"""

from __future__ import annotations

import argparse
import functools
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from landscape import open_run
from landscape.callbacks import LandscapeCallback, default_callbacks
from landscape.callbacks._scheduler import Scheduler

HOOKS = ("on_train_batch_start", "on_before_optimizer_step", "on_train_batch_end", "on_train_epoch_end")
Data = tuple[DataLoader, DataLoader]


class Classifier(pl.LightningModule):
    """Any network with a cross-entropy."""

    def __init__(self, network: nn.Module, lr: float = 0.02):
        super().__init__()
        self.network, self.lr = network, lr

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the loss."""
        x, y = batch
        return nn.functional.cross_entropy(self.network(x).flatten(0, -2), y.flatten())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD."""
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


class Recurrent(nn.Module):
    """An LSTM over texts of 64 symbols; 5,186 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.symbols, self.lstm, self.scores = nn.Embedding(69, 16), nn.LSTM(16, 24, batch_first=True), nn.Linear(24, 2)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Return the scores of two classes."""
        return self.scores(self.lstm(self.symbols(text))[0][:, -1])


class Causal(nn.Module):
    """A GPT-2-shaped model of 30 thousand parameters over 64 symbols."""

    def __init__(self) -> None:
        super().__init__()
        self.symbols, self.places = nn.Embedding(64, 32), nn.Parameter(0.02 * torch.randn(32, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 128, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers, self.scores = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(32, 64)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Return the scores of the next symbol."""
        mask = nn.Transformer.generate_square_subsequent_mask(text.shape[1])
        return self.scores(self.layers(self.symbols(text) + self.places, mask=mask))


class Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.short = nn.Identity() if before == width else nn.Conv2d(before, width, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the rectified sum."""
        return nn.functional.relu(self.body(x) + self.short(x))


def residual(width: int = 8) -> nn.Module:
    """Make a network of ResNet-18's shape, an eighth as wide."""
    blocks: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    before = width
    for stage in range(4):
        for stride in ((1 if stage == 0 else 2), 1):
            blocks.append(Block(before, width * 2**stage, stride))
            before = width * 2**stage
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


def convolutional() -> nn.Module:
    """Make a small CNN of images of 8 by 8."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


def _loaders(x: torch.Tensor, y: torch.Tensor, size: int) -> Data:
    split = len(x) * 4 // 5
    train = DataLoader(TensorDataset(x[:split], y[:split]), batch_size=size, shuffle=True)
    return train, DataLoader(TensorDataset(x[split:], y[split:]), batch_size=size)


def texts() -> Data:
    """1,504 texts whose class is the parity of a count."""
    text = torch.randint(69, (1880, 64))
    return _loaders(text, ((text < 20).sum(1) > 18).long(), 32)


def symbols() -> Data:
    """Texts of a random walk over 64 symbols."""
    text = (torch.randint(64, (1280, 1)) + torch.randint(-2, 3, (1280, 33)).cumsum(1)) % 64
    return _loaders(text[:, :-1], text[:, 1:], 16)


def images(channels: int, side: int, count: int) -> Data:
    """Random images whose class is that of the nearest of ten random ones."""
    centers = torch.randn(10, channels, side, side)
    y = torch.randint(10, (count,))
    return _loaders(centers[y] + torch.randn(count, channels, side, side), y, 64)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Data]]] = {
    "LSTM": (Recurrent, texts),
    "GPT-2 shape": (Causal, symbols),
    "CNN": (convolutional, functools.partial(images, 1, 8, 1800)),
    "ResNet-18 shape": (residual, functools.partial(images, 3, 32, 1280)),
}


def fit(name: str, epochs: int, folder: str, overhead: Any, callbacks: bool = True) -> tuple[pl.Trainer, list[Any]]:
    """Train, and return the Trainer and its callbacks."""
    torch.manual_seed(0)
    make, data = NETWORKS[name]
    chosen = default_callbacks(overhead=overhead) if callbacks else []
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        default_root_dir=folder, max_epochs=epochs, accelerator="cpu", enable_model_summary=False, callbacks=chosen,
        num_sanity_val_steps=0, **quiet,
    )  # fmt: skip
    train, held_out = data()
    trainer.fit(Classifier(make()), train, held_out if hasattr(Classifier, "validation_step") else None)
    return trainer, chosen


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=list(NETWORKS), action="append")
    parser.add_argument("--overhead", action="append")
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--rows", action="store_true", help="print the rows of all groups too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    between, schedulers = [0.0], []
    _watch(between, schedulers)
    print("| | overhead | training (s) | measured | between events | events | rows ok | first and last |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.network or NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            fit(name, 2, folder, None, callbacks=False)
            epochs = max(2, round(2 * options.seconds / (time.process_time() - began)))
        for overhead in options.overhead or ["10%", "5%"]:
            between[0] = 0.0
            schedulers.clear()
            with tempfile.TemporaryDirectory() as folder:
                trainer, callbacks = fit(name, epochs, folder, overhead)
                clock = schedulers[0].clock
                trained, spent = clock.trained_at_end, clock.spent
                run = open_run(Path(folder) / "landscape.h5")
                rows = {group: run.dataset(group) for group in run.groups}
                ok = all((data.status == "ok").all() for data in rows.values())
                steps = {group: data.step.values.tolist() for group, data in rows.items()}
                last = trainer.global_step
                ends = all(step[-1] == last for step in steps.values())
                first = steps["hessian_spectrum"][0] == last // epochs
                events = ", ".join(f"{group} {len(step)}" for group, step in steps.items())
                share = f"{spent / trained:.1%}"
                hooks = f"{between[0] / trained:.2%}"
                print(
                    f"| {name} | {overhead} | {trained:.0f} | {share} | {hooks} | {events} of {epochs} | "
                    f"{ok} | {first and ends} |",
                    flush=True,
                )
                if options.rows:
                    _print(rows)


def _watch(between: list[float], schedulers: list[Scheduler]) -> None:
    """Count the processor's time in hooks, less that of measurements, and let schedulers count it too."""
    original = Scheduler.__init__

    def init(self: Scheduler) -> None:
        original(self)
        if self not in schedulers:
            schedulers.append(self)

    def finish(self: Scheduler, trainer: Any) -> None:
        if not hasattr(self.clock, "trained_at_end"):
            self.clock.trained_at_end = self.clock.trained  # type: ignore[attr-defined]
        done(self, trainer)

    done = Scheduler.finish
    Scheduler.now = staticmethod(time.process_time)
    Scheduler.__init__, Scheduler.finish = init, finish  # type: ignore[method-assign]

    def counting(method: Any) -> Any:
        def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
            clock = self._session.scheduler.clock if self._session is not None else None
            began, spent = time.process_time(), clock.spent if clock else 0.0
            found = method(self, *args, **kwargs)
            between[0] += time.process_time() - began - ((clock.spent if clock else 0.0) - spent)
            # Looking at the clock costs as much as the hook; what it costs around nothing is taken off.
            began, spent = time.process_time(), clock.spent if clock else 0.0
            between[0] -= time.process_time() - began - ((clock.spent if clock else 0.0) - spent)
            return found

        return timed

    for hook in HOOKS:
        setattr(LandscapeCallback, hook, counting(getattr(LandscapeCallback, hook)))


def _print(rows: dict[str, Any]) -> None:
    for group, data in rows.items():
        print(group)
        for index in range(len(data.step)):
            row = data.isel(step=index)
            print(
                f"  {int(row.step)} {float(row.wall_seconds):.2f}s {float(row.overhead):.3f} "
                f"{int(row.measured_examples)} [{row.reduced.item()}] {row.reason.item()}"
            )


if __name__ == "__main__":
    main()
