"""The sentence that tells how a run stands."""

from __future__ import annotations

import datetime

import pytest

from landscape.analysis._state import run_state

NOW = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)


def told(state, sign, reason=""):
    found = run_state({"state": state, "state_reason": reason, "last_sign_of_life": sign}, NOW)
    assert found is not None
    assert (found["state"], found["reason"], found["last_sign_of_life"]) == (state, reason, sign)
    return found["sentence"]


@pytest.mark.parametrize(
    ("time", "ago"),
    [("2026-01-02T11:59:59+00:00", "1 second ago"), ("2026-01-02T11:30:00+00:00", "30 minutes ago")],
)
def test_a_training_that_runs(time, ago):
    assert told("running", time) == f"running; last sign of life {ago} ({time})"


def test_a_training_that_was_killed():
    time = "2026-01-01T11:00:00+00:00"
    assert told("running", time) == f"running; last sign of life 1 day ago ({time}), so it may have been killed"


def test_a_training_that_failed_says_why():
    time = "2026-01-02T09:00:00+00:00"
    expected = f"failed: ValueError: no data; last sign of life 3 hours ago ({time})"
    assert told("failed", time, "ValueError: no data") == expected


def test_texts_that_are_no_state_and_no_time():
    assert told("asleep", "") == "unknown state 'asleep'; it never gave a sign of life"
    assert told("finished", "noon") == "finished; last sign of life 'noon', which is no time"
    assert told("finished", "2026-01-02T09:00:00").endswith("which is no time")
    assert "has not reached" in told("finished", "2026-01-03T09:00:00+00:00")


def test_a_file_of_an_older_version():
    assert run_state({}) is None
