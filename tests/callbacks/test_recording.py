"""A group that cannot be declared leaves a failed row that says why, and lazy modules are measured."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from landscape_test_trainings import NAMESPACES, Plain, Weighs, assert_identical, everything, fit_warned, run_of
from torch import nn

from landscape.callbacks import HessianSpectrum, Sharpness, SWATrajectory


class Lazy(Plain):
    """Learns its shapes from the first batch."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.LazyLinear(6), nn.Tanh(), nn.Linear(6, 3))


@pytest.mark.filterwarnings("ignore:.*UninitializedParameter")
def test_lazy_modules_are_measured(tmp_path):
    callbacks = [HessianSpectrum(k=2, log=True), Sharpness(), SWATrajectory()]
    _, without, _ = fit_warned(tmp_path / "without", Lazy, [])
    trainer, with_them, messages = fit_warned(tmp_path / "with", Lazy, callbacks)
    assert messages == []
    assert_identical(without, with_them)
    run = run_of(trainer)
    assert run.table()["step"].tolist() == [3, 6]
    assert set(run.table()["status"]) == {"ok"}
    assert run.weights(6).shape == (4 * 6 + 6 + 6 * 3 + 3,)
    assert run.attributes["n_parameters"] == 51


class Complex(Plain):
    def __init__(self):
        super().__init__()
        self.turn = nn.Parameter(torch.ones(3, dtype=torch.complex64))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy((self.net(batch[0]) * self.turn).real, batch[1])


def test_what_cannot_be_declared_says_why_in_the_file(tmp_path):
    callbacks = everything()
    _, without, _ = fit_warned(tmp_path / "without", Complex, [])
    trainer, with_them, messages = fit_warned(tmp_path / "with", Complex, callbacks)
    assert_identical(without, with_them)
    assert len(messages) == len(callbacks)
    run = run_of(trainer)
    assert set(run.groups) == {callback.group for callback in callbacks}
    for group in run.groups:
        rows = run.dataset(group)
        assert set(rows["status"].values) == {"failed"}, group
        assert "complex" in rows["reason"].values[0]


class Undeclared(Weighs):
    def schema(self, trainer, module):
        raise RuntimeError("no schema")


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_schema_that_raises_leaves_a_failed_row(tmp_path, namespace):
    make = type("Made", (NAMESPACES[namespace].LightningModule,), dict(vars(Plain)) | {"__init__": _init})
    trainer, _, messages = fit_warned(tmp_path, make, [Undeclared(), Weighs(name="good")], namespace=namespace)
    assert [message for message in messages if "no schema" in message] == messages
    run = run_of(trainer)
    rows = run.dataset("weighs")
    assert (rows["status"].values.tolist(), rows["step"].values.tolist()) == (["failed"], [0])
    assert "no schema" in rows["reason"].values[0]
    assert run.dataset("good")["status"].values.tolist() == ["ok"]


def _init(self):
    super(type(self), self).__init__()
    self.save_hyperparameters({"lr": 0.1})
    self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def test_raising_raises_where_nothing_can_be_declared(tmp_path):
    with pytest.raises(RuntimeError, match="no schema"):
        fit_warned(tmp_path, Plain, [Undeclared(on_error="raise")])
