"""A Lightning training of a GPT-2-shaped model with `default_callbacks()`: `python benchmarks/large_fit.py [names]`.

Each size is trained for a few steps of Adam on 8 texts of 64 tokens, in two processes: without callbacks, and with
them. The table has a row for each measured event: its status, the seconds that were planned and that it took, in the
processor's time, and what was lowered. A line above it tells the peak of the resident set beyond the training's own, in
units of the float32 weights.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from _large_networks import SIZES, TEXTS, TOKENS, Gpt, PlaceLoss
from scale import peak
from torch.utils.data import DataLoader, TensorDataset

from landscape import open_run
from landscape.callbacks import default_callbacks
from landscape.callbacks._pot import Pot
from landscape.callbacks._scheduler import Scheduler

WARM = 4  # steps before the measured training


class LanguageModel(pl.LightningModule):
    """A model of the next token, trained by Adam."""

    def __init__(self, name: str):
        super().__init__()
        self.network, self.loss = Gpt(*SIZES[name]), PlaceLoss()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the loss."""
        (text,) = batch
        return self.loss(self.network(text[:, :-1]), text[:, 1:])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def fit(name: str, steps: int, folder: str, callbacks: list[Any]) -> pl.LightningModule:
    """Train for some steps on one batch, after a few that are not measured."""
    torch.manual_seed(0)
    module = LanguageModel(name)
    text = torch.randint(SIZES[name][0], (TEXTS, TOKENS + 1))
    warm = module.configure_optimizers()
    for _ in range(WARM):
        warm.zero_grad()
        module.training_step((text,), 0).backward()
        warm.step()
    module.zero_grad()
    del warm
    trainer = pl.Trainer(
        default_root_dir=folder, max_epochs=steps, accelerator="cpu", callbacks=callbacks, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(text), batch_size=TEXTS))
    return module


def watched(events: list[tuple[str, float, float, float]]) -> None:
    """Count the processor's time instead of the clock's, and note what events were planned to take and took.

    Args:
        events: Gets name, planned seconds, seconds, and the peak of the resident set since the event before, in bytes.
    """
    Scheduler.now = staticmethod(time.process_time)  # type: ignore[method-assign]
    entered = Pot.charge

    def charge(self: Pot, member: Any, seconds: float, effort: Any = None, now: float = 0.0) -> None:
        name = "preparations" if member is None else member.name + (" (lean)" if effort.lean else "")
        planned = math.nan if effort is None or effort.lean else effort.seconds
        events.append((name, planned, seconds, peak()))
        print(f"  {name}: {planned:.2f} s, {seconds:.2f} s, {events[-1][3] / 1e9:.2f} GB", file=sys.stderr, flush=True)
        entered(self, member, seconds, effort, now)

    Pot.charge = charge  # type: ignore[method-assign]


def child(name: str, steps: int, measured: bool) -> None:
    """Train one size, and print what was seen as JSON."""
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    events: list[tuple[str, float, float, float]] = []
    watched(events)
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        module = fit(name, steps, folder, default_callbacks() if measured else [])
        found: dict[str, Any] = {
            "seconds": time.process_time() - began,
            "peak": max([peak(), *(each[3] for each in events)]),
            "bytes": 4 * sum(parameter.numel() for parameter in module.parameters()),
            "events": events,
            "rows": [],
        }
        if measured:
            run = open_run(Path(folder) / "landscape.h5")
            for group in run.groups:
                data = run.dataset(group)
                for index in range(len(data.step)):
                    row = data.isel(step=index)
                    texts = [str(row[name].item()) for name in ("status", "reason", "reduced")]
                    found["rows"].append([group, int(row.step), float(row.wall_seconds), *texts])
    print(json.dumps(found))


def report(name: str, alone: dict[str, Any], found: dict[str, Any]) -> None:
    """Print what a size took."""
    beyond = (found["peak"] - alone["peak"]) / found["bytes"]
    spent = sum(seconds for _, _, seconds, _ in found["events"])
    print(
        f"\n**{found['bytes'] // 4:,} parameters** ({name}): {alone['seconds']:.0f} s of training reach "
        f"{alone['peak'] / found['bytes']:.1f} times the weights; measurements take {spent:.0f} s and "
        f"{beyond:.1f} times the weights beyond that.\n"
    )
    print("| event | planned (s) | took (s) | ratio | times the weights |")
    print("|---|---|---|---|---|")
    for event, planned, seconds, reached in found["events"]:
        if seconds >= 0.01 * spent or not math.isnan(planned):
            held = (reached - alone["peak"]) / found["bytes"]
            print(f"| {event} | {planned:.2f} | {seconds:.2f} | {seconds / planned:.2f} | {held:.1f} |")
    print("\n| row | step | status | lowered |")
    print("|---|---|---|---|")
    for group, step, _, status, reason, reduced in found["rows"]:
        print(f"| {group} | {step} | {status} {reason} | {reduced} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*SIZES, []])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--child", nargs=2)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], options.steps, options.child[1] == "measured")
        return
    for name in options.names or SIZES:
        command = [sys.executable, __file__, "--steps", str(options.steps), "--child", name]
        alone, found = (
            json.loads(subprocess.check_output([*command, how], text=True).splitlines()[-1])
            for how in ("alone", "measured")
        )
        report(name, alone, found)


if __name__ == "__main__":
    main()
