"""The budget's decisions, over trainings whose seconds the test counts itself."""

from __future__ import annotations

import itertools
import math

import pytest

from landscape.callbacks._effort import Effort
from landscape.callbacks._pot import LEAST, Choice, Member, Now, Pot

FORMS = ({}, {"probes": 2}, {"probes": 1})


def member(seconds: float, name: str = "spectrum", epochs: float = 100, **given) -> Member:
    """A callback whose forms cost 1, .5 and .1 times some seconds over 1,024 examples."""
    scale = dict(zip((4, 2, 1), (1.0, 0.5, 0.1), strict=True))

    def cost(form, examples):
        return seconds * scale[form.get("probes", 4)] * (examples or 1024) / 1024

    given = {"examples": 1024, "events": epochs, "cadence": (1, None, "iterate")} | given
    return Member(name, FORMS, cost, **given)


def train(share: float, seconds: float, members: list[Member], epochs: int = 100, truth: float = 1.0, stop: int = 0):
    """Train for some seconds without measurements; every event takes `truth` times what is expected of it."""
    pot = Pot(share)
    pot.members = members
    events: dict[str, list[tuple[int, Effort]]] = {each.name: [] for each in members}
    for epoch in range(1, epochs + 1):
        trained = seconds * epoch / epochs
        now = Now(trained, seconds, epoch / epochs, epoch)
        ends = epoch == (stop or epochs)
        for each in members:
            if each.at_the_end and not ends:
                continue
            effort = pot.decide(each, now, final=ends)
            if effort is None:
                each.left_out += 1
                continue
            each.closed = ends
            raw = each.lean_seconds if effort.lean else each.seconds(effort.changes, effort.examples)
            pot.charge(each, truth * raw, effort, trained)
            events[each.name].append((epoch, effort))
        if ends:
            break
    return pot, events


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.2, 0.5])
@pytest.mark.parametrize("truth", [0.6, 1.0, 1.7])
def test_the_share_is_kept_and_used(share, truth) -> None:
    pot, events = train(share, 1000.0, [member(8.0), member(3.0, "sharpness")], truth=truth)
    assert 0.8 * share <= pot.spent / 1000 <= 1.1 * share
    for taken in events.values():
        assert (taken[0][0], taken[-1][0]) == (1, 100)
    assert [epoch for epoch, _ in events["spectrum"]] == [epoch for epoch, _ in events["sharpness"]]


def test_what_fits_is_measured_as_asked() -> None:
    pot, events = train(0.1, 1000.0, [member(0.9)])
    assert [epoch for epoch, _ in events["spectrum"]] == list(range(1, 101))
    assert all(effort.words() == "" for _, effort in events["spectrum"])
    assert pot.spent == pytest.approx(90)


def test_things_are_given_up_in_the_documented_order() -> None:
    def choice(seconds: float) -> Choice:
        pot = Pot(0.1)
        pot.members = [member(seconds)]
        return pot.choose(Now(10.0, 1000.0, 0.01, 1))

    found = [choice(seconds) for seconds in (1.0, 2.0, 10.0, 40.0, 160.0, 700.0, 1000.0)]
    assert found[0] == Choice(0, 0, 100)  # 100 s for 100 events of a second
    assert found[1] == Choice(1, 0, 100)  # probes first
    assert found[2] == Choice(1, 0, 10)  # then events
    assert found[3] == Choice(1, 1, 10)  # then examples
    assert found[4] == Choice(1, 3, 10)
    assert found[5] == Choice(1, 3, 2)  # then all events but the first and the last
    assert found[6].form == LEAST.form


def test_the_choice_holds_so_that_rows_compare() -> None:
    _, events = train(0.1, 1000.0, [member(40.0)], truth=1.3)
    words = {effort.words() for epoch, effort in events["spectrum"] if epoch < 100}
    assert words == {"probes=2, examples=512"}


def test_events_stand_evenly_over_the_training() -> None:
    _, events = train(0.1, 1000.0, [member(10.0)], epochs=100)
    epochs = [epoch for epoch, _ in events["spectrum"]]
    gaps = [after - before for before, after in itertools.pairwise(epochs)]
    assert len(epochs) >= 10
    assert max(gaps) <= 1.5 * min(gaps) + 1


def test_a_short_fit_is_measured_at_its_ends_in_the_smallest_form() -> None:
    pot, events = train(0.1, 1.0, [member(60.0)], epochs=10)
    assert [epoch for epoch, _ in events["spectrum"]] == [1, 10]
    assert {effort.words() for _, effort in events["spectrum"]} == {"probes=1, examples=128"}
    assert pot.spent == pytest.approx(2 * 60 * 0.1 / 8)


def test_the_examples_of_the_smallest_form_are_fewer_where_it_takes_long() -> None:
    for share, seconds, examples in [(0.1, 400.0, 128), (0.1, 700.0, 64), (0.1, 2000.0, 32), (1e-6, 60.0, 128)]:
        _, events = train(share, 100.0, [member(seconds)], epochs=10)
        assert {effort.words() for _, effort in events["spectrum"]} == {f"probes=1, examples={examples}"}


def test_one_epoch_is_measured_once() -> None:
    _, events = train(0.1, 1000.0, [member(20.0, epochs=1)], epochs=1)
    assert [epoch for epoch, _ in events["spectrum"]] == [1]


def test_what_is_left_at_the_end_goes_into_a_thorough_last_measure() -> None:
    def last(seconds: float) -> str:
        end = member(seconds, "connectivity", cadence=None, events=1)
        _, events = train(0.1, 1000.0, [member(0.5), end])
        ((_, effort),) = events["connectivity"]
        return effort.words()

    assert [last(seconds) for seconds in (40.0, 90.0, 5000.0)] == ["", "probes=2", "probes=1, examples=128"]


def test_lean_events_keep_what_cannot_be_measured_later() -> None:
    weights = member(5.0, "swa", lean={"evaluate": False}, cadence=(1, None, "swa"))
    weights.lean_seconds = 0.1
    _, events = train(0.1, 1000.0, [member(20.0), weights])
    taken = [epoch for epoch, _ in events["swa"]]
    assert taken == list(range(1, 101))  # the weights of every epoch
    assert not events["swa"][0][1].lean
    assert not events["swa"][-1][1].lean
    assert sum(effort.lean for _, effort in events["swa"]) > 40


def test_before_the_pace_is_known_the_smallest_form_is_taken() -> None:
    pot, one = Pot(0.1), member(0.1)
    pot.members = [one]
    first = pot.decide(one, Now(1.0, 1000.0, 0.001, 1, batches=1), final=False)
    assert first is not None
    assert first.words() == "probes=1, examples=128"
    pot.charge(one, 0.01, first)
    later = pot.decide(one, Now(5.0, 500.0, 0.1, 5, batches=5), final=False)
    assert later is not None
    assert later.words() == ""


@pytest.mark.parametrize("epochs", [3, 6, 12, 40])
@pytest.mark.parametrize("seconds", [5.0, 20.0, 80.0])
def test_few_events_use_the_share_too(epochs, seconds) -> None:
    pot, events = train(0.1, 1000.0, [member(seconds, epochs=epochs)], epochs=epochs)
    asked = epochs * seconds
    assert pot.spent <= 110
    assert pot.spent >= min(asked, 70)
    assert (events["spectrum"][0][0], events["spectrum"][-1][0]) == (1, epochs)


def test_without_a_known_end_only_the_time_so_far_counts() -> None:
    pot, one = Pot(0.1), member(1.0, epochs=math.inf)
    pot.members = [one]
    spent = 0.0
    for step in range(1, 1001):
        effort = pot.decide(one, Now(float(step), float(step), math.nan, step), final=False)
        if effort is not None:
            took = one.seconds(effort.changes, effort.examples)
            pot.charge(one, took, effort)
            spent += took
            assert spent <= 0.1 * step or one.measured == 1
    assert spent >= 0.08 * 1000
