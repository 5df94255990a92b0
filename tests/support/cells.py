"""Train a kind in a regime with and without the callbacks, and judge every recorded measure."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import logging
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from landscape_test_support.bare import Bare, own_copy
from landscape_test_support.expected import EXPECTED
from landscape_test_support.kind import Kind
from landscape_test_support.regimes import Regime

from landscape import open_run
from landscape._errors import LandscapeError
from landscape.callbacks import (
    Compressibility,
    HessianSpectrum,
    LearningCoefficient,
    ModeConnectivity,
    Sharpness,
    SWATrajectory,
)

# Every measure of the page: its group in the file, and the variable that must be a number.
MEASURES = {
    "loss": ("hessian_spectrum", "train_loss"),
    "lambda_max": ("hessian_spectrum", "lambda_max"),
    "trace": ("hessian_spectrum", "trace"),
    "average_case": ("sharpness", "average_case"),
    "worst_case": ("sharpness", "worst_case"),
    "sam": ("sharpness", "sam"),
    "bits": ("compressibility", "bits"),
    "connectivity": ("mode_connectivity", "curve_train_loss"),
    "learning_coefficient": ("learning_coefficient", "learning_coefficient"),
    "weights": ("swa_trajectory", "weights"),
}
RIGHT, WRONG, REFUSED, MISSING = "right", "wrong", "refused", "missing"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of one measure.

    Attributes:
        outcome: "right", "wrong", "refused" (no number, but a sentence) or "missing" (neither).
        text: The sentence of a refusal; the two numbers of a wrong one.
    """

    outcome: str
    text: str = ""


@dataclasses.dataclass(frozen=True)
class Cell:
    """A kind in a regime.

    Attributes:
        identical: Whether the training ended bit-identical with and without the callbacks.
        verdicts: By measure.
    """

    identical: bool
    verdicts: dict[str, Verdict]


class Keeps(pl.Callback):
    """Keeps a copy of the module at the end of each epoch: the point that was measured."""

    def __init__(self, kind: Kind):
        self.kind = kind
        self.modules: list[torch.nn.Module] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Keep a copy."""
        self.modules.append(kept(self.kind, pl_module))


def kept(kind: Kind, module: Any) -> torch.nn.Module:
    """Copy a module as it stands."""
    return (kind.copied or own_copy)(module)


def all_callbacks(**common: Any) -> list[Any]:
    """Return all callbacks with small settings, measuring after the second epoch."""
    last = common | {"every_n_epochs": 2}
    return [
        HessianSpectrum(k=1, probes=1, steps=8, trace_tol=1e-4, trace_max_matvecs=300, **last),
        Sharpness(draws=4, steps=3, **last),
        SWATrajectory(**common),
        Compressibility(tolerances=(0.1,), **last),
        LearningCoefficient(chains=2, draws=8, step_size=1e-3, **last),
        ModeConnectivity(curve_steps=2, points=3, progress=False, **common),
    ]


def train(kind: Kind, regime: Regime, folder: Path, measured: list[Any]) -> tuple[Any, Keeps, list[str]]:
    """Train for two epochs and return the module, its copies after each epoch, and the callbacks' warnings."""
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(0)
    module, keeps, caught = kind.module(), Keeps(kind), []
    settings: dict[str, Any] = {"accelerator": "cpu", "logger": False, "default_root_dir": folder}
    settings |= {f"enable_{name}": False for name in ("progress_bar", "model_summary", "checkpointing")}
    settings |= kind.trainer | regime.trainer
    data = kind.loader()
    torch._dynamo.reset() if regime.compiled else None
    given = torch.compile(module, backend="eager") if regime.compiled else module
    with _quiet(caught):
        for epochs in (1, 2) if regime.resumes else (2,):
            trainer = pl.Trainer(**settings, max_epochs=epochs, callbacks=[*kind.callbacks(), *measured, keeps])
            resumed = folder / "last.ckpt" if epochs == 2 and regime.resumes else None
            trainer.fit(given, data, ckpt_path=resumed, **({"weights_only": False} if resumed else {}))
            if regime.resumes and epochs == 1:
                trainer.save_checkpoint(folder / "last.ckpt")
    return trainer, keeps, [str(entry.message) for entry in caught]


@contextlib.contextmanager
def _quiet(caught: list[Any]) -> Iterator[None]:
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = logger.level
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
            caught += [entry for entry in found if " could not " in str(entry.message)]


def fingerprint(kind: Kind, trainer: Any) -> list[Any]:
    """Return all that a training leaves behind, as bytes: weights, optimisers, generators, counters."""
    module = trainer.lightning_module
    tensors = [*module.state_dict().values(), *kind.parameters(module), *[p.grad for p in module.parameters()]]
    left = [None if t is None else (str(t.dtype), t.detach().float().numpy().tobytes()) for t in tensors]
    states = [str(optimizer.state_dict()) for optimizer in trainer.optimizers]
    generators = [torch.get_rng_state().numpy().tobytes(), str(np.random.get_state()), random.getstate()]
    sampler = getattr(trainer.train_dataloader, "generator", None)
    own = None if sampler is None else sampler.get_state().numpy().tobytes()
    return [left, states, generators, own, trainer.global_step, [part.training for part in module.modules()]]


def examine(kind: Kind, regime: Regime, folder: Path, made: Callable[..., list[Any]] = all_callbacks) -> Cell:
    """Train with and without the callbacks, and judge what they recorded.

    Args:
        kind: The module kind.
        regime: The regime.
        folder: An empty folder for both trainings.
        made: Makes the callbacks from the arguments that all of them take.

    Returns:
        The cell of the matrix.
    """
    left, options, path = [], kind.common | regime.common, folder / "landscape.h5"
    for name in (*["warm"] * kind.warms, "without", "with"):
        (folder / name).mkdir()
        measured = made(path=path, **options) if name == "with" else []
        trainer, keeps, warned = train(kind, regime, folder / name, measured)
        left.append(fingerprint(kind, trainer))
    reference = Reference(kind, keeps.modules, options.get("mode") == "train", options.get("noise_seed"))
    groups = {callback.group for callback in measured}
    measures = [measure for measure, (group, _) in MEASURES.items() if group in groups]
    return Cell(left[-2] == left[-1], judge(path, reference, measures, warned))


class Reference:
    """What should have been recorded: the kind's loss at the kept copies of the module."""

    def __init__(self, kind: Kind, modules: list[Any], train: bool, noise_seed: int | None):
        self.kind, self.modules = kind, modules
        seed = 0 if train and noise_seed is None else noise_seed
        loader = kind.loader()
        self.batches = kind.batches(loader)
        self.shares = kind.shares(self.batches)
        self.counts = [kind.count(batch) for batch in self.batches]
        self._settings = (kind.parameters, train, seed)

    @functools.cached_property
    def last(self) -> Bare:
        """The float64 loss after the last epoch."""
        return self.bare()

    def bare(self, epoch: int = -1, dtype: torch.dtype | None = torch.float64) -> Bare:
        """Return the loss after an epoch, by a new copy of the module."""
        module = kept(self.kind, self.modules[epoch])
        return Bare(module, copy.deepcopy(self.batches), self.shares, *self._settings, dtype)


def recorded(run: Any, row: Any, variable: str) -> np.ndarray:
    """Return the values of a variable, NaN where it is not there; weights are there if the file gives a state back."""
    if variable != "weights":
        return np.asarray(row[variable].values if variable in row else np.nan)
    try:
        return np.asarray(float(len(run.state_dict(int(row["step"])))))
    except LandscapeError:
        return np.asarray(np.nan)


def judge(path: Path, reference: Reference, measures: list[str], warned: list[str]) -> dict[str, Verdict]:
    """Judge measures of a run file."""
    if not path.exists():
        return dict.fromkeys(measures, Verdict(MISSING, "; ".join(warned)))
    run, verdicts = open_run(path), {}
    groups = {group: run.dataset(group) for group in run.groups}
    for measure in measures:
        group, variable = MEASURES[measure]
        if group not in groups or not len((rows := groups[group])["step"]):
            verdicts[measure] = Verdict(MISSING, "; ".join(warned))
            continue
        row = rows.isel(step=-1)
        value = recorded(run, row, variable)
        reason = str(row["reason"].values)
        if not np.isfinite(value).all():
            verdicts[measure] = Verdict(REFUSED, reason) if reason else Verdict(MISSING)
            continue
        wrong = EXPECTED[measure](reference, row, run)
        verdicts[measure] = Verdict(WRONG, wrong) if wrong else Verdict(RIGHT)
    return verdicts
