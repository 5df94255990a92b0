"""The parts of a row fail alone, and the row says which failed and why."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from landscape_test_trainings import Plain, assert_identical, fit_warned, loader, make_trainer, run_of, seed_all

from landscape import MeasurementError, sharpness
from landscape._errors import SurrogateError
from landscape.callbacks import Compressibility, LearningCoefficient, Sharpness
from landscape.callbacks._parts import Parts, joined
from landscape.compression._families import FAMILIES


def fails(error):
    raise error


def test_a_row_without_failures_has_no_status():
    parts = Parts()
    assert parts.take("one", lambda: {"a": 1.0})
    assert parts.take("two", lambda: {"b": 2.0})
    assert parts.result() == {"a": 1.0, "b": 2.0}


@pytest.mark.parametrize(("error", "status"), [(MeasurementError, 2), (ValueError, 2), (SurrogateError, 3)])
def test_a_part_fails_alone(error, status):
    parts = Parts(model="Net")
    parts.take("one", lambda: {"a": 1.0})
    assert not parts.take("two", lambda: fails(error("not today")))
    assert not parts.take("three", lambda: fails(error("not today")))
    row = parts.result()
    assert (row["a"], row["status"]) == (1.0, status)
    assert row["reason"].startswith("two, three: ")
    assert "not today" in row["reason"]


def test_a_row_of_failures_alone_raises():
    parts = Parts()
    parts.take("one", lambda: fails(KeyError("x")))
    with pytest.raises(KeyError, match="x"):
        parts.result()
    parts.take("two", lambda: fails(SurrogateError("y")))
    with pytest.raises(SurrogateError, match="one: KeyError: 'x'; two: y"):
        parts.result()


def test_raising_raises_at_once():
    with pytest.raises(ValueError, match="no"):
        Parts(raising=True).take("one", lambda: fails(ValueError("no")))


def test_an_interrupt_is_no_failure_of_a_part():
    with pytest.raises(KeyboardInterrupt):
        Parts().take("one", lambda: fails(KeyboardInterrupt))


def test_long_reasons_share_the_room():
    text = joined({"short": "no", "one": "é" * 400, "two": "word " * 100})
    assert len(text.encode()) <= 512
    short, one, two = text.split("; ")
    assert short == "short: no"
    assert one.startswith("one: éé")
    assert two.startswith("two: word word")
    assert one.endswith("...")
    assert len(two) > 200  # of which the short reason left some


class Regression(Plain):
    """Knows no error rate."""

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.mse_loss(self.net(batch[0])[:, 0], batch[0][:, 0])


def test_a_sharpness_measure_that_cannot_be_taken_leaves_the_others(tmp_path):
    whole = ["gradient_norm", "average_case"]
    trainer, with_it, messages = fit_warned(tmp_path / "one", Regression, [Sharpness(measures=[*whole, "pac_bayes"])])
    other, without, _ = fit_warned(tmp_path / "other", Regression, [Sharpness(measures=whole)])
    assert_identical(with_it, without)
    assert len(messages) == 1
    rows, expected = (run_of(each).dataset("sharpness") for each in (trainer, other))
    assert set(rows["status"].values) == {"partial"}
    assert all(text.startswith("pac_bayes: ") for text in rows["reason"].values)
    assert rows["pac_bayes"].isnull().all()
    for name in (*whole, "average_case_stderr", "train_loss"):
        np.testing.assert_array_equal(rows[name].values, expected[name].values)
    assert set(run_of(trainer).table()["status"]) == {"partial"}


def test_raising_raises_the_failure_of_a_part(tmp_path):
    with pytest.raises(MeasurementError):
        fit_warned(tmp_path, Regression, [Sharpness(measures=["sam", "pac_bayes"], on_error="raise")])


def test_derivatives_that_are_not_the_losss_are_told_apart(tmp_path, monkeypatch):
    for name in ("sam", "gradient_norm"):
        refused = functools.wraps(getattr(sharpness, name))(
            lambda *args, **kwargs: fails(SurrogateError("the gradient is not the loss's"))
        )
        monkeypatch.setattr(sharpness, name, refused)
    callbacks = [Sharpness(measures=["sam", "average_case"]), Sharpness(measures=["gradient_norm"], name="alone")]
    trainer, _, _ = fit_warned(tmp_path, Plain, callbacks)
    rows, alone = (run_of(trainer).dataset(name) for name in ("sharpness", "alone"))
    assert set(rows["status"].values) == set(alone["status"].values) == {"surrogate"}
    assert rows["reason"].values[0] == "sam: the gradient is not the loss's"
    assert rows["average_case"].notnull().all()


def test_a_family_of_codes_fails_alone(tmp_path, monkeypatch):
    first, second = list(FAMILIES)[:2]
    monkeypatch.setattr(FAMILIES[second], "ladder", lambda *args: fails(MeasurementError("no ladder")))
    trainer, _, _ = fit_warned(tmp_path, Plain, [Compressibility((0.1,), [first, second], law=True)])
    rows = run_of(trainer).dataset("compressibility")
    assert set(rows["status"].values) == {"partial"}
    assert rows["reason"].values[0] == f"{second}: no ladder"
    assert rows["bits"].sel(family=first).notnull().all()
    assert rows["bits"].sel(family=second).isnull().all()
    assert (rows["reached"].sel(family=second) == -1).all()
    assert rows["law_curvature"].notnull().all()


def test_a_layer_of_the_learning_coefficient_fails_alone(tmp_path, monkeypatch):
    original = LearningCoefficient._coefficient

    def coefficient(self, objective, parameters=None):
        if parameters and "net.0.weight" in parameters:
            raise MeasurementError("this layer not")
        return original(self, objective, parameters)

    monkeypatch.setattr(LearningCoefficient, "_coefficient", coefficient)
    seed_all()
    callback = LearningCoefficient(chains=1, draws=8, layers=True, every_n_epochs=2)
    trainer = make_trainer(tmp_path, [callback])
    with pytest.warns(UserWarning, match="layer net.0: this layer not"):
        trainer.fit(Plain(), loader())
    rows = run_of(trainer).dataset("learning_coefficient").isel(step=0)
    assert str(rows["status"].values) == "partial"
    layers = rows["layer_learning_coefficient"]
    assert np.isnan(layers.sel(layer="net.0"))
    assert np.isfinite(layers.sel(layer="net.2"))
    assert np.isfinite(rows["learning_coefficient"])
