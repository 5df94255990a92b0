"""The common ancestor of all callbacks: the Callback bases of every installed Lightning namespace at once.

`pytorch_lightning` and `lightning.pytorch` are two copies of one library whose classes do not recognise each other. A
callback that inherits from both bases works in both Trainers and both LightningCLIs.
"""

from __future__ import annotations

import importlib.util

from pytorch_lightning import Callback as _PytorchLightningCallback

BASES: tuple[type, ...] = (_PytorchLightningCallback,)

if importlib.util.find_spec("lightning") is not None:
    from lightning.pytorch import Callback as _LightningCallback

    # With some versions one namespace re-exports the other's class; a base may stand only once.
    if _LightningCallback is not _PytorchLightningCallback:
        BASES = (_PytorchLightningCallback, _LightningCallback)

CallbackBase = type("CallbackBase", BASES, {"__doc__": "Inherits from the Callback of every installed Lightning."})
