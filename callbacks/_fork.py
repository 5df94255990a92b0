"""Keep a training at an epoch, so that others can go on from there: its checkpoint, with the random generators."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from landscape._errors import MeasurementError
from landscape._private import pytree, restart_batches

_KEY = "landscape_fork"


def fork_path(run: Path, epoch: int) -> Path:
    """Return the path of the checkpoint that belongs to a run file and an epoch."""
    return run.with_name(f"{run.stem}-fork-epoch{epoch}.ckpt")


def save_fork(trainer: Any, path: Path) -> None:
    """Save a checkpoint of the training; every rank takes part, as Lightning asks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    trainer.save_checkpoint(path)


def generator_states(trainer: Any) -> dict[str, Any]:
    """Return the states of all random generators that a training draws from, of types that checkpoints may hold."""
    state: Any = np.random.get_state()
    name, keys, position, has_gauss, cached = state
    return {
        "torch": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else [],
        "numpy": (str(name), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)),
        "python": random.getstate(),
        "loader": [generator.get_state() for generator in _loader_generators(trainer)],
    }


def restore_generators(trainer: Any, states: dict[str, Any]) -> None:
    """Put the generators into the given states.

    Args:
        trainer: The Trainer, whose training loader is set up.
        states: What `generator_states` returned.

    Raises:
        MeasurementError: The training loader has other generators.
    """
    own = _loader_generators(trainer)
    if len(own) != len(states["loader"]):
        raise MeasurementError(
            f"the training to be replayed had {len(states['loader'])} generators in its training loader, this one has "
            f"{len(own)}; give both the same loader, or replay=False"
        )
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    for generator, state in zip(own, states["loader"], strict=True):
        generator.set_state(state)
    # Of a resumed training Lightning has begun to iterate before any hook, with numbers drawn and workers seeded from
    # the generators as they were: begin again, as the first training did after the kept epoch.
    restart_batches(trainer)


def stored_states(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the generators' states that a checkpoint holds.

    Raises:
        MeasurementError: It holds none.
    """
    if _KEY not in checkpoint:
        raise MeasurementError(
            "replay=True needs a checkpoint that ModeConnectivity(fork_at=...) has kept, and this one holds no random "
            "generators; start from such a checkpoint, or leave replay out"
        )
    states: dict[str, Any] = checkpoint[_KEY]
    return states


def _loader_generators(trainer: Any) -> list[torch.Generator]:
    found: dict[int, torch.Generator] = {}
    for loader in pytree.tree_leaves(trainer.train_dataloader):
        batch_sampler = getattr(loader, "batch_sampler", None)
        holders = (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
        for holder in holders:
            generator = getattr(holder, "generator", None)
            if isinstance(generator, torch.Generator):
                found[id(generator)] = generator
    return list(found.values())
