"""Share a budget of time among the callbacks of a training: what is measured when, and how thoroughly."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from landscape.callbacks._effort import LEAST_EXAMPLES, Effort

_CURVE = 10  # events that a curve over the training needs; below that, examples are left out first
_FORMS = ("as asked", "fewer probes and draws", "smallest")
_SOLID = 3  # batches from which the pace of a training is known


@dataclasses.dataclass(frozen=True)
class Now:
    """The moment of a decision.

    Attributes:
        trained: Seconds of training so far, without measurements.
        expected: Expected seconds of the whole training; those so far where its end is not known.
        done: Share of the fit that is over; NaN where its end is not known.
        step: Optimizer steps so far.
        batches: Training batches that the pace is known from.
    """

    trained: float
    expected: float
    done: float
    step: int
    batches: int = _SOLID


@dataclasses.dataclass
class Member:
    """What a budget knows of one callback.

    Attributes:
        name: Its group in the file.
        forms: Settings that each form changes, from as asked to the smallest.
        seconds: Returns the expected seconds of a form over a number of examples, by counts and prices.
        examples: Examples that were asked for; None for all of unknown number.
        events: Events that the fit has at the cadence that was asked for; infinite where it has no known end.
        cadence: Callbacks of equal cadence are measured at the same events.
        lean: Changes that keep what cannot be measured later at next to no cost; None where there are none.
        factor: Measured seconds over expected ones.
        measured: Events measured so far.
        left_out: Events left out since the last one that was measured.
        spent: Seconds of its events.
        closed: Whether its last event is over.
    """

    name: str
    forms: Sequence[Mapping[str, Any]]
    seconds: Callable[[Mapping[str, Any], int | None], float]
    examples: int | None
    events: float = math.inf
    cadence: Any = None
    lean: Mapping[str, Any] | None = None
    factor: float = 1.0
    measured: int = 0
    left_out: int = 0
    spent: float = 0.0
    closed: bool = False
    at: float = 0.0
    lean_seconds: float = 0.0

    @property
    def at_the_end(self) -> bool:
        """Whether it has no cadence and is measured once, when the fit ends."""
        return self.cadence is None

    def form(self, number: int) -> Mapping[str, Any]:
        """Return the form of a choice: 0 as asked, 1 with fewer probes, 2 the smallest."""
        return self.forms[-1 if number >= len(_FORMS) - 1 else min(number, len(self.forms) - 1)]

    def cost(self, form: Mapping[str, Any], examples: int | None) -> float:
        """Return the expected seconds of an event; 0 where no price is known yet."""
        found = self.factor * self.seconds(form, examples)
        return 0.0 if math.isnan(found) else found

    def effort(self, form: Mapping[str, Any], examples: int | None) -> Effort:
        """Return a form over a number of examples as an effort."""
        fewer = examples is not None and (self.examples is None or examples < self.examples)
        return Effort(form, examples if fewer else None, self.factor * self.seconds(form, examples if fewer else None))

    def fewer(self, choice: Choice) -> int | None:
        """Return the examples of a choice; None for all."""
        if not choice.halvings:
            return self.examples
        least = LEAST_EXAMPLES >> choice.scarce
        if self.examples is None:
            return least * 2 ** max(_HALVINGS - choice.halvings, 0)
        return max(min(self.examples, least), self.examples // 2**choice.halvings)


_HALVINGS = 4  # of a number of examples that is not known


@dataclasses.dataclass(frozen=True)
class Choice:
    """What all callbacks of a budget give up, in the documented order.

    Attributes:
        form: 0 as asked, 1 with fewer probes and draws, 2 the smallest form.
        halvings: How often the number of examples is halved, down to 128.
        events: Events that the choice has room for, at least.
        scarce: How often the 128 examples of the smallest form are halved.
    """

    form: int = 0
    halvings: int = 0
    events: float = math.inf
    scarce: int = 0


LEAST = Choice(2, 64, 2)
_SCARCE = 2  # halvings below the examples of the smallest form
_PATIENCE = 2.0  # seconds in all up to which the examples of the smallest form are not halved


class Pot:
    """Seconds that some callbacks may take together: a share of the training's own time.

    Things are given up in this order:

    1. probes and draws;
    2. events, down to ten;
    3. examples, halved down to 128;
    4. events, down to the first and the last;
    5. all but the smallest form of each measure;
    6. examples, halved down to 32, where the smallest forms of the whole fit take more than two seconds.

    The choice is made at the first event and then holds, so that rows of one run compare. Later only events are left
    out, evenly over the training. The last event takes the smallest form where the chosen one does not fit any more.

    Args:
        share: Allowed seconds of measurement for each second of training.

    Attributes:
        spent: Seconds of measurement that count against the share.
    """

    def __init__(self, share: float):
        self.share = share
        self.spent = 0.0
        self.members: list[Member] = []
        self.choice: Choice | None = None
        self._firm = False
        self._line: float | None = None  # seconds spent on the first event
        self._began = math.inf  # share of the fit done at the first event
        self._told: dict[Any, tuple[int, bool]] = {}

    def decide(self, member: Member, now: Now, final: bool) -> Effort | None:
        """Decide on an event that is due.

        Args:
            member: Whose event.
            now: The moment.
            final: Whether it is the member's last event.

        Returns:
            How thoroughly to measure; None to leave the event out.
        """
        if not self._firm:
            self._firm = now.batches >= _SOLID or final
            self.choice = self.choose(now) if self._firm else LEAST
            self._began = min(now.done, self._began)
        assert self.choice is not None
        examples, chosen = member.fewer(self.choice), self.choice.form
        richer = [(member.form(each), examples) for each in range(chosen + 1)]
        if member.at_the_end:
            return self._last(member, now, [(form, examples) for form in member.forms])
        if final:
            return self._last(member, now, richer)
        if not member.measured:
            return self._first(member, now)
        if self._affords(member, now):
            return member.effort(*self._richest(member, now, richer if chosen < LEAST.form else richer[-1:]))
        if member.lean is not None and self._carries(member, now):
            return Effort(member.lean, seconds=member.lean_seconds, lean=True)
        return None

    def choose(self, now: Now) -> Choice:
        """Return the first choice, in the documented order, whose expected seconds fit the share.

        Where the end of the fit is not known, that is fewer probes, and events as far as the time so far allows.
        """
        if math.isnan(now.done):
            return Choice(1, 0, math.inf)
        asked = max((member.events for member in self.members if not member.at_the_end), default=1.0)
        most = max((member.examples or 2**62 for member in self.members), default=1)
        halvings = _HALVINGS if most > 2**60 else max(0, math.ceil(math.log2(max(most / LEAST_EXAMPLES, 1))))
        ladder = [Choice(0, 0, asked), Choice(1, 0, asked), Choice(1, 0, _CURVE)]
        ladder += [Choice(1, halving, _CURVE) for halving in range(1, halvings + 1)]
        scarce = [dataclasses.replace(LEAST, scarce=halving) for halving in range(_SCARCE + 1)]
        ladder += [Choice(1, halvings, 2)]
        allowed = self.share * now.expected - self.spent
        return next(
            (choice for choice in ladder if self.total(choice) <= allowed),
            next((choice for choice in scarce if self.total(choice) <= max(allowed, _PATIENCE)), scarce[-1]),
        )

    def total(self, choice: Choice) -> float:
        """Return the expected seconds of all events of a choice."""
        total = 0.0
        for member in self.members:
            events = self.events(member, choice)
            cost = member.cost(member.form(choice.form), member.fewer(choice))
            total += cost * events if cost else 0.0
        return total

    @staticmethod
    def events(member: Member, choice: Choice) -> float:
        """Return the events that a choice counts on; lean ones cost next to nothing."""
        most = 1.0 if member.at_the_end else choice.events if member.lean is None else 2.0
        return min(member.events, most)

    def charge(self, member: Member | None, seconds: float, effort: Effort | None = None, now: float = 0.0) -> None:
        """Enter what was spent.

        Args:
            member: The callback whose event it was; None for preparations.
            seconds: What it took.
            effort: How thoroughly it was measured.
            now: Seconds of training at the end of the event.
        """
        self.spent += seconds
        if member is None or effort is None:
            return
        member.spent += seconds
        member.at = now
        member.left_out = 0
        if effort.lean:
            member.lean_seconds = max(seconds, 0.5 * member.lean_seconds)
            return
        member.measured += 1
        if effort.seconds > 0:
            # The first event also pays for what is done once: it says most about the last, but not all.
            member.factor *= seconds / effort.seconds

    def _last(self, member: Member, now: Now, wanted: list[tuple[Mapping[str, Any], int | None]]) -> Effort:
        """Return the first of the wanted efforts that what is left can pay, else the smallest."""
        left = self.share * now.expected - self.spent - self._reserve(member)
        found = next((each for each in wanted if member.cost(*each) <= left), None)
        assert self.choice is not None
        least = member.forms[-1], member.fewer(dataclasses.replace(LEAST, scarce=self.choice.scarce))
        if found is not None or member.cost(*wanted[-1]) < member.cost(*least):
            return member.effort(*(found or wanted[-1]))
        return member.effort(*least)

    def _first(self, member: Member, now: Now) -> Effort:
        """Return the first event's effort; where the end is not known, it may have to be the smallest."""
        assert self.choice is not None
        chosen = member.form(self.choice.form), member.fewer(self.choice)
        if math.isnan(now.done) and self.spent + member.cost(*chosen) > self.share * now.trained:
            return member.effort(member.forms[-1], member.fewer(LEAST))
        return member.effort(*chosen)

    def _richest(
        self, member: Member, now: Now, efforts: list[tuple[Mapping[str, Any], int | None]]
    ) -> tuple[Mapping[str, Any], int | None]:
        """Return the first of some efforts that the line has room for, else the last, which has been granted."""
        rest = self._together(member) - member.cost(*efforts[-1])
        granted = (each for each in efforts[:-1] if self._paced(rest + member.cost(*each), now))
        return next(granted, efforts[-1])

    def _affords(self, member: Member, now: Now) -> bool:
        """Return whether an event between the first and the last fits, with those of the same cadence."""
        step, told = self._told.get(member.cadence, (-1, False))
        if step != now.step:
            told = self._paced(self._together(member), now)
            self._told[member.cadence] = now.step, told
        return told

    def _together(self, member: Member) -> float:
        assert self.choice is not None
        cohort = [other for other in self.members if other.cadence == member.cadence and other.measured]
        return sum(other.cost(other.form(self.choice.form), other.fewer(self.choice)) for other in cohort)

    def _paced(self, cost: float, now: Now) -> bool:
        """Return whether the events so far, with this one, lie below a line from the first event to the last."""
        left = self.share * now.expected - self._reserve(None)
        if math.isnan(now.done):
            return self.spent + cost <= left
        if self._line is None:
            self._line = self.spent
        room = left - self._line
        passed = max((now.done - self._began) / max(1.0 - self._began, 1e-9), 0.0)
        return self.spent - self._line + cost <= min((room + cost) * passed, room) * (1 + 1e-9)

    def _carries(self, member: Member, now: Now) -> bool:
        """Return whether half of the share of the time since the last event pays for a lean one."""
        return member.lean_seconds <= 0.5 * self.share * (now.trained - member.at)

    def _reserve(self, but: Member | None) -> float:
        """Return the seconds kept for the last events, without that of one member."""
        assert self.choice is not None
        rest = [member for member in self.members if member is not but and not member.closed]
        costs = []
        for member in rest:
            form = member.forms[-1] if member.at_the_end else member.form(self.choice.form)
            costs.append(member.cost(form, member.fewer(self.choice)))
        return sum(costs)
