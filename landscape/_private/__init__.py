"""Names that torch and Lightning keep private and this package relies on, each checked at its first use.

A private name can change in any release. So no other package or module uses one (`tests/test_private.py` holds this),
and each stands beside a check that it still does what we rely on. Where a check fails, a `MeasurementError` names the
release and the cure.
"""

from landscape._private._checkpointing import checkpointing_off
from landscape._private._lightning import (
    MACHINE_CLASSES,
    MACHINE_NAMES,
    attached_trainer,
    before_transfer,
    monitor_checks,
    reads_sequentially,
    restart_batches,
    validation_source,
)
from landscape._private._require import refusal, require
from landscape._private._torch import (
    COLLECTIVES,
    REGISTRIES,
    BatchNorm,
    ConvTranspose,
    Dropout,
    InstanceNorm,
    Norm,
    TorchDispatchMode,
    dispatched_arguments,
    eager,
    has_plain_iterator,
    is_flattened,
    persistent_buffers,
    pytree,
    registries,
    saved_tensors,
    weight_norm_function,
)

__all__ = [
    "COLLECTIVES",
    "MACHINE_CLASSES",
    "MACHINE_NAMES",
    "REGISTRIES",
    "BatchNorm",
    "ConvTranspose",
    "Dropout",
    "InstanceNorm",
    "Norm",
    "TorchDispatchMode",
    "attached_trainer",
    "before_transfer",
    "checkpointing_off",
    "dispatched_arguments",
    "eager",
    "has_plain_iterator",
    "is_flattened",
    "monitor_checks",
    "persistent_buffers",
    "pytree",
    "reads_sequentially",
    "refusal",
    "registries",
    "require",
    "restart_batches",
    "saved_tensors",
    "validation_source",
    "weight_norm_function",
]
