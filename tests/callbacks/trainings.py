"""Small trainings that the callback tests share, and everything that a training leaves behind, for comparison."""

from __future__ import annotations

import csv
import random
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch
import numpy as np
import pytorch_lightning
import torch
import torch.nn.functional as F  # noqa: N812
import torchmetrics
from torch import nn
from torch.utils.data import DataLoader, Dataset

from landscape import Objective
from landscape.callbacks import Compressibility, HessianSpectrum, ModeConnectivity, Sharpness, SWATrajectory
from landscape.callbacks._base import LandscapeCallback
from landscape.compression._grid import UniformTensor
from landscape.record import Run, Variable, open_run

NAMESPACES = {"pytorch_lightning": pytorch_lightning, "lightning.pytorch": lightning.pytorch}
N_TRAIN, BATCH = 48, 16


class Blobs(Dataset):
    """Gaussian inputs with labels that depend on them; augmented by noise from a generator of its own."""

    def __init__(self, n: int = N_TRAIN, noise: float = 0.0, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(n, 4, generator=generator)
        directions = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, -0.5], [0.5, -0.5, 1.0], [-1.0, 0.3, 0.2]])
        self.y = (self.x @ directions + 0.5 * torch.randn(n, 3, generator=generator)).argmax(dim=1)
        self.noise = noise
        self.generator = np.random.default_rng(seed)
        self.reads = 0

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.reads += 1
        x = self.x[index]
        if self.noise:
            x = x + self.noise * torch.from_numpy(self.generator.normal(size=4)).float()
        return x, self.y[index]


def loader(n: int = N_TRAIN, noise: float = 0.0, seed: int = 0, **options: Any) -> DataLoader:
    """A training loader whose own generator shuffles."""
    options = {"batch_size": BATCH, "shuffle": True, "generator": torch.Generator().manual_seed(7)} | options
    return DataLoader(Blobs(n, noise, seed), **options)


def held_out(n: int = 24) -> DataLoader:
    """Validation data."""
    return DataLoader(Blobs(n, seed=1), batch_size=12)


class Plain(pytorch_lightning.LightningModule):
    """A tanh network of 67 parameters; SGD with momentum."""

    def __init__(self, lr: float = 0.1, width: int = 8, seed: int = 0):
        super().__init__()
        self.save_hyperparameters()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.net = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"], momentum=0.9)


class Validated(Plain):
    """The same with a validation loss."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("val_loss", F.cross_entropy(self.net(x), y))


class Busy:
    """Everything in a training that a measurement could disturb; mixed into the LightningModule of a namespace."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3))
        self.accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=3)
        self.val_accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=3)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.calls = 0
        self.outputs: list[torch.Tensor] = []
        self.history: dict[str, list[float]] = {"loss": []}
        self.own = np.random.default_rng(5)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, torch.Tensor]:
        x, y = batch
        scores = self.net(x)
        loss = F.cross_entropy(scores, y)
        self.accuracy(scores, y)
        self.calls += 1
        self.seen += len(y)
        self.outputs.append(loss.detach())
        self.history["loss"].append(float(loss.detach()))
        draws = torch.rand(1).item() + np.random.rand() + random.random() + self.own.random()
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        self.log_dict({"accuracy": self.accuracy, "draws": draws}, on_step=True, on_epoch=True)
        return {"loss": loss}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        scores = self.net(x)
        self.val_accuracy(scores, y)
        self.log("val_loss", F.cross_entropy(scores, y))
        self.log("val_accuracy", self.val_accuracy)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


BUSY = {name: type("BusyModule", (Busy, space.LightningModule), {}) for name, space in NAMESPACES.items()}


class Coarser(UniformTensor):
    """A second family of codes: every fourth knob of the uniform grid."""

    name = "coarser"

    def ladder(self, layout: Any) -> np.ndarray:
        """Return the knobs."""
        return super().ladder(layout)[::4]


def everything(**common: Any) -> list[Any]:
    """All five callbacks, cheap; keyword arguments go to each."""
    common = {"examples": 24} | common
    cadence = {key: common.pop(key) for key in ("every_n_epochs", "every_n_steps") if key in common}
    return [
        SWATrajectory(**cadence, **common),
        HessianSpectrum(k=3, probes=2, steps=8, max_matvecs=12, trace_max_matvecs=12, **cadence, **common),
        Sharpness(draws=4, steps=2, **cadence, **common),
        Compressibility(tolerances=(0.03, 0.3), **cadence, **common),
        ModeConnectivity(curve_steps=4, points=5, progress=False, **common),
    ]


def make_trainer(folder: Path, callbacks: Any = (), namespace: str = "pytorch_lightning", **options: Any) -> Any:
    """A silent Trainer that logs to CSV files under a folder."""
    space = NAMESPACES[namespace]
    settings: dict[str, Any] = {
        "default_root_dir": folder,
        "logger": space.loggers.CSVLogger(folder, flush_logs_every_n_steps=1),
        "max_epochs": 2,
        "log_every_n_steps": 1,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    return space.Trainer(**settings | options, callbacks=list(callbacks))


def seed_all(seed: int = 0) -> None:
    """Seed the process-wide generators."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def left_behind(trainer: Any, module: Any, *others: Any) -> dict[str, Any]:
    """Everything that a training leaves: state, metrics, counters, random generators, and its log file."""
    counters = ("calls", "outputs", "history", "own", "seen")
    return {
        "weights": dict(module.state_dict()),
        "gradients": [p.grad for p in module.parameters()],
        "modes": [part.training for part in module.modules()],
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "generators": (torch.get_rng_state(), np.random.get_state(), random.getstate()),
        "metrics": {k: v for k, v in trainer.callback_metrics.items() if not k.startswith("landscape/")},
        "own": {name: getattr(module, name) for name in counters if hasattr(module, name)},
        "others": others,
        "steps": (trainer.global_step, trainer.current_epoch),
        "log": csv_rows(trainer),
    }


def csv_rows(trainer: Any) -> list[dict[str, str]]:
    """Rows of the CSV log without the landscape's own columns."""
    path = Path(trainer.log_dir) / "metrics.csv"
    if not path.exists():
        return []
    with path.open() as file:
        rows = [{k: v for k, v in row.items() if not k.startswith("landscape/")} for row in csv.DictReader(file)]
    return [row for row in rows if any(v for k, v in row.items() if k not in ("step", "epoch"))]


def assert_identical(one: Any, other: Any, where: str = "") -> None:
    """Compare nested structures bit by bit; NaN equals NaN."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, where
        assert one.shape == other.shape, where
        assert one.detach().cpu().numpy().tobytes() == other.detach().cpu().numpy().tobytes(), where
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype, where
        assert one.tobytes() == other.tobytes(), where
    elif isinstance(one, torch.Generator):
        assert_identical(one.get_state(), other.get_state(), where)
    elif isinstance(one, np.random.Generator):
        assert one.bit_generator.state == other.bit_generator.state, where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_identical(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_identical(a, b, f"{where}/{index}")
    elif isinstance(one, Dataset):
        assert_identical(vars(one), vars(other), f"{where}/dataset")
    else:
        assert one == other or (one != one and other != other), f"{where}: {one} and {other}"


def warned(caught: Any) -> list[str]:
    """The callbacks' own among caught warnings."""
    return [str(entry.message) for entry in caught if " could not " in str(entry.message)]


def run_of(trainer: Any) -> Run:
    """The run file of a Trainer at its default place."""
    return open_run(Path(trainer.log_dir) / "landscape.h5")


def flat(module: nn.Module) -> np.ndarray:
    """The trainable parameters as one vector."""
    return torch.cat([p.detach().reshape(-1) for p in module.parameters() if p.requires_grad]).numpy()


def objective_of(module: Any, examples: int | None = None) -> Objective:
    """The objective that a callback measures after `fit_plain`, built by hand: batches of 16 in the dataset's order."""
    blobs = Blobs()
    chosen = np.arange(N_TRAIN)
    if examples is not None:
        chosen = np.sort(np.random.default_rng(0).permutation(N_TRAIN)[:examples])
    batches = [(blobs.x[chosen[i : i + BATCH]], blobs.y[chosen[i : i + BATCH]]) for i in range(0, len(chosen), BATCH)]
    return Objective.from_lightning(module, batches)


def fit(folder: Path, *callbacks: Any, module: Any = None, **options: Any) -> Any:
    """Train on the training loader without augmentation, two epochs by default, and return the Trainer."""
    seed_all()
    trainer = make_trainer(folder, callbacks, **options)
    trainer.fit(module or Plain(), loader())
    return trainer


class Weighs(LandscapeCallback):
    """A callback of the user: records a checksum of the weights, as cheap as a measure can be."""

    group = "weighs"
    description = "sum of the weights"

    def schema(self, trainer, module):
        return {"variables": [Variable("total")]}

    def measure(self, objective, held_out, trainer):
        return {"total": float(objective.vector().double().sum())}

    def scalar_names(self):
        return ("total",)


def fit_warned(
    folder: Path, make_module: Any, callbacks: Any, data: Any = loader, **options: Any
) -> tuple[Any, dict[str, Any], list[str]]:
    """Train on any data, and return the Trainer, what is left behind, and the callbacks' warnings."""
    seed_all()
    trainer, module = make_trainer(folder, callbacks, **options), make_module()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(module, data())
    return trainer, left_behind(trainer, module), warned(caught)
