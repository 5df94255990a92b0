"""Counts become seconds by prices, and changed settings come back."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from landscape.callbacks._effort import Effort, Prices, Work, changed


def test_seconds_by_hand() -> None:
    prices = Prices(product=3.0, gradient=1.0, evaluation=0.25, examples=32, held_out=0.5, passing=0.01, coding=0.2)
    work = Work(products=2, gradients=1, evaluations=4, both=2, batch_gradients=5, codings=1, passes=3)
    # four batches of 6 + 1 + 1 + 2 · 1.5 · .25 seconds, five gradients of one batch, a code and three passes
    assert prices.seconds(work, 128) == pytest.approx(4 * 8.75 + 5 + 0.2 + 0.03)
    assert prices.seconds(work, 8) == pytest.approx(8.75 + 5 + 0.2 + 0.03)  # a batch is the least


def test_work_adds_up_but_for_vectors_which_are_freed() -> None:
    both = Work(products=2, vectors=7) + Work(products=1, evaluations=3, vectors=4)
    assert both == Work(products=3, evaluations=3, vectors=7)


def test_settings_are_changed_for_a_while() -> None:
    owner = SimpleNamespace(k=10, probes=4)

    def fail() -> None:
        with changed(owner, {"k": 1}):
            assert (owner.k, owner.probes) == (1, 4)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (owner.k, owner.probes) == (10, 4)


def test_words_name_what_is_lower() -> None:
    assert Effort().words() == ""
    effort = Effort({"k": 1, "tolerances": (0.03,), "_words": "average_case.draws=4", "_recorded": []}, 128)
    assert effort.words() == "average_case.draws=4, k=1, tolerances=(0.03), examples=128"
