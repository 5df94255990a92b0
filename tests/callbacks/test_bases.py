"""The callbacks belong to both Lightning namespaces."""

from __future__ import annotations

import lightning.pytorch
import pytest
import pytorch_lightning
from landscape_test_trainings import BUSY, NAMESPACES, held_out, loader, make_trainer, run_of

from landscape.callbacks import Sharpness
from landscape.callbacks._bases import BASES, CallbackBase


def test_instances_of_both():
    callback = Sharpness()
    assert isinstance(callback, pytorch_lightning.Callback)
    assert isinstance(callback, lightning.pytorch.Callback)
    assert CallbackBase.__mro__[1:3] == BASES


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_both_trainers(tmp_path, namespace):
    trainer = make_trainer(tmp_path, [Sharpness(draws=2, steps=1, on_error="raise")], namespace)
    trainer.fit(BUSY[namespace](), loader(), held_out())
    assert run_of(trainer).dataset("sharpness")["step"].values.tolist() == [3, 6]


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_the_loggers_of_both(tmp_path, namespace):
    trainer = make_trainer(tmp_path, [Sharpness(draws=2, steps=1, log=True)], namespace)
    trainer.fit(BUSY[namespace](), loader(), held_out())
    assert "landscape/sam" in trainer.callback_metrics
