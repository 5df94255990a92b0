"""Training regimes: what the Trainer, the callbacks and the module are given in each."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Regime:
    """One way to train.

    Attributes:
        name: Its name on the page.
        about: One line for the page.
        trainer: Options of the Trainer.
        common: Arguments of every callback.
        resumes: Whether the training stops after its first epoch and goes on from a checkpoint.
        compiled: Whether the module goes through `torch.compile`.
        only: Names of the only kinds that are tried, where that takes long.
    """

    name: str
    about: str
    trainer: dict[str, Any] = dataclasses.field(default_factory=dict)
    common: dict[str, Any] = dataclasses.field(default_factory=dict)
    resumes: bool = False
    compiled: bool = False
    only: tuple[str, ...] = ()


_COMPILED = ("classifier", "sum over n", "BatchNorm", "dropout", "LoRA", "attention", "checkpointing")

REGIMES = [
    Regime("eval", "float32, measured in eval mode: the default"),
    Regime("train mode", 'measured with `mode="train"`, one draw of the noise', common={"mode": "train"}),
    Regime("accumulation", "`accumulate_grad_batches=2`", {"accumulate_grad_batches": 2}),
    Regime("bf16-mixed", '`precision="bf16-mixed"` on the CPU; measured in float32', {"precision": "bf16-mixed"}),
    Regime("float64", '`precision="64-true"`', {"precision": "64-true"}),
    Regime("clipping", "`gradient_clip_val=0.05`", {"gradient_clip_val": 0.05}),
    Regime("resume", "stopped after one epoch, resumed from a checkpoint", resumes=True),
    Regime("compiled", '`torch.compile(module, backend="eager")`', compiled=True, only=_COMPILED),
]
