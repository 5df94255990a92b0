from __future__ import annotations

import re
from types import SimpleNamespace

import lightning
import pytest
import pytorch_lightning as pl
from torch import nn

from landscape import _private
from landscape._errors import MeasurementError


class Loop:
    """A Trainer, its loop, and everything below them, without what Lightning keeps there."""

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return self


USES = [
    _private.validation_source,
    _private.reads_sequentially,
    _private.restart_batches,
    lambda trainer: _private.before_transfer(trainer, None),
]


@pytest.mark.parametrize("use", USES)
def test_what_lightning_has_renamed_is_refused_by_a_sentence(use):
    with pytest.raises(MeasurementError, match=r"no longer .*, which landscape relies on; install an earlier"):
        use(Loop())


def test_the_trainer_of_a_module_that_is_not_attached(cases):
    assert _private.attached_trainer(nn.Identity()) is None


@pytest.mark.parametrize("namespace", [pl, lightning.pytorch])
def test_monitors_check_their_values_by_these_methods(namespace):
    stops, saves = namespace.callbacks.EarlyStopping("loss"), namespace.callbacks.ModelCheckpoint(monitor="loss")
    assert _private.monitor_checks(stops) == ("_run_early_stopping_check",)
    assert _private.monitor_checks(saves) == ("check_monitor_top_k",)
    assert _private.monitor_checks(namespace.Callback()) == ()
    asked = []
    stops._run_early_stopping_check = asked.append
    stops._check_on_train_epoch_end = False
    trainer = SimpleNamespace(state=SimpleNamespace(fn="fit"), sanity_checking=False)
    stops.on_validation_end(trainer, None)
    assert asked == [trainer]


def test_a_monitor_that_checks_in_another_way_is_refused():
    class EarlyStopping:
        """As a release could be that has the method still, and calls another."""

        __module__ = "pytorch_lightning.callbacks.early_stopping"

        def on_validation_end(self, trainer, module):
            self.check(trainer)

        def _run_early_stopping_check(self, trainer):
            self._run_early_stopping_check(trainer)

        def check(self, trainer):
            pass

    class Own(EarlyStopping):
        def on_validation_end(self, trainer, module):
            self._run_early_stopping_check(trainer)

    expected = f"pytorch_lightning {pl.__version__} no longer checks monitored values by EarlyStopping._run"
    for kind in (EarlyStopping, Own):
        with pytest.raises(MeasurementError, match=re.escape(expected)):
            _private.monitor_checks(kind())


def test_the_users_own_monitors_are_taken_as_they_are():
    class EarlyStopping:
        def check_monitor_top_k(self, trainer, current=None):
            return True

    assert _private.monitor_checks(EarlyStopping()) == ("check_monitor_top_k",)
