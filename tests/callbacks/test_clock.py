"""Training and measurement are told apart, with a clock that the test moves."""

from __future__ import annotations

import math

import pytest

from landscape.callbacks._clock import TrainingClock


class Hand:
    """A clock that stands until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hand() -> Hand:
    return Hand()


def test_measurements_are_no_training(hand) -> None:
    clock, told = TrainingClock(hand), []
    hand.now += 5
    with clock.measuring(told.append):
        hand.now += 2
        assert (clock.trained, clock.measured, clock.spent) == (5, 2, 0)
        with clock.measuring(told.append):  # what is nested counts once
            hand.now += 1
    hand.now += 4
    assert (clock.trained, clock.measured, clock.spent) == (9, 3, 3)
    assert told == [1, 3]


def test_a_failed_measurement_counts_too(hand) -> None:
    clock = TrainingClock(hand)

    def fail() -> None:
        with clock.measuring():
            hand.now += 2
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (clock.trained, clock.spent) == (0, 2)


def test_the_whole_training_is_expected_at_the_pace_without_the_first_batch(hand) -> None:
    clock = TrainingClock(hand)
    hand.now += 10  # the first batch compiles
    clock.tick()
    for _ in range(9):
        hand.now += 1
        clock.tick()
        with clock.measuring():
            hand.now += 50
    assert clock.expected(0.1) == pytest.approx(19 + 90)  # 10 of 100 batches; the others take a second each
    assert clock.expected(1.0) == pytest.approx(19)
    assert clock.expected(math.nan) == pytest.approx(19)  # no end is known, so only what has passed counts
