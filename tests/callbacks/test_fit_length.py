"""Where a fit stands, by epochs, steps or time."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from landscape.callbacks._fit_length import Fit, fit_of


def trainer(**given: Any) -> Any:
    """A Trainer's answers after the 5th of 10 batches of its third epoch."""
    known = {
        "num_training_batches": 10,
        "max_epochs": 10,
        "max_steps": -1,
        "current_epoch": 2,
        "global_step": 25,
        "accumulate_grad_batches": 1,
        "should_stop": False,
        "callbacks": [],
        "fit_loop": SimpleNamespace(batch_idx=4),
    }
    return SimpleNamespace(**known | given)


def test_by_epochs() -> None:
    assert fit_of(trainer()) == Fit(0.25, 10, 100, 2, 25)
    assert fit_of(trainer(global_step=20), epoch_begun=False) == Fit(0.2, 10, 100, 2, 20)
    over = fit_of(trainer(global_step=30, fit_loop=SimpleNamespace(batch_idx=9)), epoch_over=True)
    assert over == Fit(0.3, 10, 100, 3, 30)


def test_the_limit_that_ends_the_fit_first_counts() -> None:
    by_steps = fit_of(trainer(max_steps=50))
    assert (by_steps.done, by_steps.epochs, by_steps.steps) == (0.5, 5, 50)
    timer = SimpleNamespace(time_elapsed=lambda: 30.0, time_remaining=lambda: 10.0)
    assert fit_of(trainer(callbacks=[timer])).done == 0.75
    assert (
        fit_of(trainer(callbacks=[SimpleNamespace(time_elapsed=lambda: 3.0, time_remaining=lambda: None)])).done == 0.25
    )


def test_without_an_end() -> None:
    endless = fit_of(trainer(max_epochs=-1))
    assert math.isnan(endless.done)
    assert endless.events(1, None) == math.inf
    assert not endless.final(1, None)


def test_streams_are_known_at_the_ends_of_epochs() -> None:
    stream = trainer(num_training_batches=float("inf"))
    assert fit_of(stream).done == 0.2
    assert fit_of(stream, epoch_over=True).done == pytest.approx(0.3)


def test_events_of_a_cadence_and_the_last_one() -> None:
    fit = Fit(0.5, epochs=10, steps=100, epoch=5, step=50)
    assert (fit.events(3, None), fit.events(None, 30), fit.events(3, 30), fit.events(None, None)) == (3, 3, 6, 1)
    assert not fit.final(3, None)
    assert Fit(0.9, 10, 100, 9, 90).final(3, None)
    assert not Fit(0.9, 10, 100, 9, 90).final(3, 10)
    assert Fit(1.0, 10, 100, 10, 100).final(3, 10)
    assert Fit(0.1, 10, 100, 1, 10, stopping=True).final(1, None)


def test_events_that_begin_later() -> None:
    fit = Fit(0.5, epochs=10, steps=100, epoch=5, step=50)
    assert (fit.events(1, None, 0.75), fit.events(1, None, 4), fit.events(1, None, 20)) == (2, 6, 1)
