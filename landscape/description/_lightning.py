"""The same agreement for LightningModules: their own optimizers and schedules, in Lightning's own Trainer."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader

from landscape import _batches
from landscape._errors import MeasurementError
from landscape.description._examples import on_device_of, split_tail, take
from landscape.description._labels import step_loss
from landscape.description._training import FEWEST, BestWeights, RandomBatches, check_settings

_NAMESPACES = ("pytorch_lightning", "lightning.pytorch")
_LOGGERS = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric")


@dataclasses.dataclass(frozen=True)
class LightningTraining:
    """Train a LightningModule by its own `configure_optimizers` in a Trainer, and stop by the held-out tail.

    What happens is what `AdamTraining` does, but that steps, optimizers, schedules and hooks are the module's own; the
    held-out loss is that of its training step in eval mode. Nothing is validated, logged or saved.

    Attributes:
        batch_size: Examples a step, drawn in random order by torch's global generator.
        steps: The most optimizer steps.
        every: Steps from look to look.
        patience: Looks without a lower loss after which it stops.
        held_out: Fraction of the examples sent that is held out, at least one example.
        trainer: Further arguments of the Trainer, such as {"accelerator": "gpu", "gradient_clip_val": 1.0}.
    """

    batch_size: int = 32
    steps: int = 2000
    every: int = 10
    patience: int = 20
    held_out: float = 0.1
    trainer: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_settings(self.batch_size, self.steps, self.every, self.patience, self.held_out)

    def __call__(self, module: Any, examples: Any) -> None:
        """Train a module in place.

        Args:
            module: The LightningModule.
            examples: A batch as its training step takes it, the order of sending along the first dimension.

        Raises:
            MeasurementError: It is no LightningModule.
        """
        name = lightning_namespace(module)
        if name is None:
            raise MeasurementError(
                f"{type(module).__name__} is no LightningModule; give AdamTraining() or a training function of your own"
            )
        if _batches.n_examples(examples) < FEWEST:
            return
        lightning = importlib.import_module(name)
        past, held = split_tail(examples, self.held_out)
        best = BestWeights(module, lambda: step_loss(module, on_device_of(held, module)), self.patience)
        loader: Any = DataLoader(
            range(_batches.n_examples(past)),  # type: ignore[arg-type]  # a sequence is a dataset
            batch_sampler=RandomBatches(_batches.n_examples(past), self.batch_size),
            collate_fn=lambda indices: take(past, indices),
        )
        settings: dict[str, Any] = {
            "max_steps": self.steps,
            "max_epochs": -1,
            "callbacks": [_stopping(lightning.Callback, best, self.every)],
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "limit_val_batches": 0,
            "devices": 1,
        }
        with _quiet(), torch.enable_grad():
            lightning.Trainer(**(settings | dict(self.trainer))).fit(module, loader)
        best.restore()


def lightning_namespace(module: Any) -> str | None:
    """Return the name of the Lightning package that a module is of, or None: the two do not know each other's."""
    for base in type(module).__mro__:
        for name in _NAMESPACES:
            if base.__name__ == "LightningModule" and base.__module__.startswith(f"{name}."):
                return name
    return None


def _stopping(base: type, best: BestWeights, every: int) -> Any:
    """Make a callback of the Trainer's own namespace that looks at the held-out loss and stops the fit."""

    class HeldOutLoss(base):
        last = 0

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            best.look()

        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            step = trainer.global_step
            # While gradients accumulate, or with several optimizers, a step's number stays or leaps.
            if step // every > self.last // every or step >= trainer.max_steps > self.last:
                self.last = step
                trainer.should_stop = best.look() or trainer.should_stop

    return HeldOutLoss()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's advice about loggers, workers, devices and short epochs: many small trainings are meant."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    try:
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning|lightning_fabric)\.")
            warnings.filterwarnings("ignore", message=r".*LeafSpec", category=FutureWarning)
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
