"""Send measured scalars to the Trainer's loggers, and keep those present that other callbacks monitor.

A Trainer asks for a monitored value at its own times. `EarlyStopping` ends the training where the value is missing or
not finite, and counts a value that has not changed against its patience. `ModelCheckpoint` may call a checkpoint the
best whose weights nobody measured. So, for the time of a fit, both check a value of ours only after a new measurement.
In between `trainer.callback_metrics` holds the last good value, and before the first the worst one that is finite.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from landscape._private import monitor_checks

_WORST = float(torch.finfo(torch.float32).max)


class ScalarLog:
    """What one callback logs in one fit.

    Args:
        owner: Name of the callback, for its warning.
    """

    def __init__(self, owner: str):
        self._owner = owner
        self._keys: dict[str, str] = {}
        self._gates: list[Gate] = []
        self._warned = False

    def begin(self, trainer: Any, names: Iterable[str], prefix: str = "") -> None:
        """Find who monitors the scalars, and give each monitored one a value that is never the best.

        Args:
            trainer: The Trainer.
            names: The scalars.
            prefix: Stands before each name in its key, `landscape/<prefix><name>`.

        Raises:
            MeasurementError: This Lightning checks monitored values in another way.
        """  # noqa: DOC502 - raised by `monitor_checks`
        self.end()
        self._warned = False
        self._keys = {name: f"landscape/{prefix}{name}" for name in names}
        ours = set(self._keys.values())
        monitors = [callback for callback in trainer.callbacks if getattr(callback, "monitor", None) in ours]
        schedulers = [scheduler for scheduler in _plateau_schedulers(trainer) if scheduler.monitor in ours]
        for monitor in monitors + schedulers:
            if monitor.monitor not in trainer.callback_metrics:
                self._hold(trainer, monitor.monitor, -_WORST if _mode(monitor) == "max" else _WORST)
        for monitor in monitors:
            self._gates += [Gate(monitor, check) for check in monitor_checks(monitor)]

    def send(self, trainer: Any, values: Mapping[str, float], step: int) -> None:
        """Log the values of one measurement.

        Args:
            trainer: The Trainer.
            values: Scalars by name. NaN is not logged, as it stands for what failed or does not exist.
            step: Optimizer step of the measurement.
        """
        named = {self._keys[name]: float(value) for name, value in values.items() if name in self._keys}
        known = {key: value for key, value in named.items() if not math.isnan(value)}
        if known:
            for logger in trainer.loggers:
                logger.log_metrics(metrics=dict(known), step=step)
                logger.save()
        for key, value in known.items():
            if math.isfinite(value):
                self._hold(trainer, key, value)
        for gate in self._gates:
            gate.fresh |= math.isfinite(named.get(gate.monitor.monitor, math.nan))
            if not gate.fresh and not self._warned:
                self._warned = True
                warnings.warn(
                    f"{type(gate.monitor).__name__} monitors {gate.monitor.monitor}, of which {self._owner} has no "
                    f"finite value at step {step}; it acts on the next one",
                    stacklevel=2,
                )

    def end(self) -> None:
        """Let all monitors check as before."""
        for gate in self._gates:
            gate.remove()
        self._gates = []

    def __getstate__(self) -> dict[str, Any]:
        """Leave the Trainer's other callbacks out of pickles and copies."""
        return vars(self) | {"_gates": []}

    @staticmethod
    def _hold(trainer: Any, key: str, value: float) -> None:
        tensor = torch.tensor(value, dtype=torch.get_default_dtype(), device=trainer.strategy.root_device)
        if torch.isfinite(tensor):
            trainer.callback_metrics[key] = tensor


class Gate:
    """Lets a monitoring callback check its value only where there is a new one.

    Args:
        monitor: An EarlyStopping or a ModelCheckpoint.
        check: Name of its method that checks the value.

    Attributes:
        monitor: The same.
        fresh: Whether a measurement came since the last check.
    """

    def __init__(self, monitor: Any, check: str):
        self.monitor = monitor
        self.fresh = False
        self._check = check
        self._original: Callable[..., Any] = getattr(monitor, check)
        # On the instance, above the method of its class. A list `save_top_k=-1` of all checkpoints leaves none out.
        if getattr(monitor, "save_top_k", 1) != -1:
            setattr(monitor, check, self._passing)

    def remove(self) -> None:
        """Give the monitor its own method back."""
        vars(self.monitor).pop(self._check, None)

    def _passing(self, *args: Any, **kwargs: Any) -> Any:
        fresh, self.fresh = self.fresh, False
        return self._original(*args, **kwargs) if fresh else False


def _plateau_schedulers(trainer: Any) -> list[Any]:
    return [config for config in trainer.lr_scheduler_configs if getattr(config, "reduce_on_plateau", False)]


def _mode(monitor: Any) -> str:
    return str(getattr(monitor, "mode", getattr(getattr(monitor, "scheduler", None), "mode", "min")))
