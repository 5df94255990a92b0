"""Decide for all callbacks of a run which events are measured and how thoroughly, and keep account of the time."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from landscape._batches import n_examples
from landscape.callbacks import _notes
from landscape.callbacks._clock import TrainingClock
from landscape.callbacks._effort import LEAST_EXAMPLES, ROW, Effort, Prices, changed
from landscape.callbacks._fit_length import Fit, fit_of
from landscape.callbacks._pot import Member, Now, Pot
from landscape.callbacks._prices import packable, prices_of, settle
from landscape.callbacks._progress import waiting
from landscape.callbacks._sampling import length_of
from landscape.objective import Objective

if TYPE_CHECKING:
    from landscape.callbacks._base import LandscapeCallback


class Scheduler:
    """The time of one fit: what its measurements may take, are expected to take, and took.

    Callbacks with the same `overhead=` share one pot. Those with None are measured at the cadence that was asked for.
    In several processes the first decides, since clocks differ.

    Attributes:
        now: Where the time comes from, a function of the class.
        begun: Whether the prices were measured.
    """

    now = staticmethod(time.perf_counter)

    def __init__(self) -> None:
        self.clock = TrainingClock(self.now)
        self._pots: dict[float, Pot] = {}
        self._members: dict[int, tuple[LandscapeCallback, Member]] = {}
        self._prices: Prices | None = None
        self._expected: dict[tuple[int, int, int | None], float] = {}
        self._packs: dict[Any, bool] = {}  # whether the smallest set of examples makes one batch
        self.begun = False
        self._ticker: int | None = None
        self._over = False
        self._start = 0.0  # share of the fit that an earlier training has done

    # ------------------------------------------------------------------ a fit begins and ends

    def join(self, callback: LandscapeCallback, trainer: Any, seconds: float) -> None:
        """Take part in a fit.

        Args:
            callback: The callback, whose group is declared.
            trainer: Its Trainer.
            seconds: What its preparations took.
        """
        if self._over:
            self.__init__()  # type: ignore[misc]
        if not self._members:
            done = fit_of(trainer, epoch_begun=False).done if trainer.global_step else 0.0
            self._start = 0.0 if math.isnan(done) else done
        member = Member(
            name=callback._group,
            forms=callback.forms(),
            seconds=lambda form, examples: self._seconds(callback, form, examples),
            examples=callback.measured.examples,
            cadence=callback.cadence,
            lean=callback.lean(),
        )
        self._members[id(callback)] = callback, member
        if callback.share is not None:
            pot = self._pots.setdefault(callback.share, Pot(callback.share))
            pot.members.append(member)
            pot.charge(None, seconds)
        self.clock.spent += seconds

    def begin(self, trainer: Any, module: Any) -> None:
        """Measure the prices and tell what will be measured; does nothing after the first call."""
        if self.begun:
            return
        self.begun = True
        first = next((callback for callback, _ in self._members.values()), None)
        if first is None or first._session is None:
            return
        # Loggers are silent in all processes but the first, whose word counts: the prices are a meeting of all.
        heard = first._session.processes.first(_notes.heard(trainer))
        if self._pots or heard:
            self._price(trainer, module)
        fit = fit_of(trainer, epoch_begun=False)
        for callback, member in self._members.values():
            member.events = callback.expected_events(fit)
        _notes.tell(trainer, _notes.start_line([(c.share, m) for c, m in self._members.values()]))

    def tick(self, callback: LandscapeCallback) -> None:
        """Note the end of a training batch; the first callback notes it for all."""
        if self._ticker is None:
            self._ticker = id(callback)
        if self._ticker == id(callback):
            self.clock.tick()

    def finish(self, trainer: Any) -> None:
        """Tell what was measured and what it cost; does nothing after the first call."""
        if not self._over and self.begun:
            members = [(callback.share, member) for callback, member in self._members.values()]
            _notes.tell(trainer, _notes.end_line(members, self.clock.measured, self.clock.trained))
        self._over = True

    def release(self) -> None:
        """Let go of the callbacks, which lead to the Trainer; the next fit begins anew."""
        self._over = True
        self._members.clear()
        self._pots.clear()

    # ------------------------------------------------------------------ events

    def owes(self, callback: LandscapeCallback) -> bool:
        """Return whether the last event that was due has been left out."""
        known = self._members.get(id(callback))
        return known is not None and known[1].left_out > 0

    @contextlib.contextmanager
    def event(
        self, callback: LandscapeCallback, trainer: Any, module: Any, *, epoch_over: bool, last: bool
    ) -> Iterator[Effort | None]:
        """Decide on an event that is due, and count the time within as its measurement.

        Args:
            callback: Whose event.
            trainer: Its Trainer.
            module: The module.
            epoch_over: Whether the present epoch is over.
            last: Whether the fit is over.

        Yields:
            How thoroughly to measure; None where the event is left out.
        """
        if id(callback) not in self._members:
            yield Effort()
            return
        member = self._members[id(callback)][1]
        pot = None if callback.share is None else self._pots[callback.share]
        effort: Effort | None = Effort(seconds=member.cost(member.forms[0], None) or math.nan)
        if pot is not None:
            with callback._failures.passing("plan the event"):
                effort = self._decided(callback, member, pot, trainer, module, epoch_over, last)
        if effort is None:
            member.left_out += 1
            yield None
            return
        if pot is not None:
            settle(module.device)
        if pot is not None and not effort.lean:
            effort = self._prepared(pot, callback, effort, trainer, module)

        def charge(seconds: float) -> None:
            if pot is not None:
                pot.charge(member, seconds, effort, self.clock.trained)
            else:
                member.spent, member.measured = member.spent + seconds, member.measured + 1

        with changed(callback, {**effort.changes, "_effort": effort}), self.clock.measuring(charge):
            with waiting(trainer, callback._group, effort.seconds):
                yield effort
            if pot is not None:
                settle(module.device)

    def columns(self, callback: LandscapeCallback) -> dict[str, Any]:
        """Return the columns of a row that tell what was done to keep the overhead, by variable name."""
        known = self._members.get(id(callback))
        if known is None or callback.share is None:
            return {"left_out": 0}
        trained = self.clock.trained
        spent = self._pots[callback.share].spent + self.clock.measured - self.clock.spent  # with this event
        reduced = callback._effort.words()[:128]
        return {
            "overhead": spent / trained if trained > 0 else math.nan,
            "reduced": reduced,
            "left_out": known[1].left_out,
        }

    # ------------------------------------------------------------------ inside

    def _decided(
        self, callback: Any, member: Member, pot: Pot, trainer: Any, module: Any, epoch_over: bool, last: bool
    ) -> Effort | None:
        if self._prices is None:
            self._price(trainer, module)
        fit = fit_of(trainer, epoch_over)
        final = last or fit.final(callback.every_n_epochs, callback.every_n_steps)
        now = self._now(fit, last)
        effort = callback._session.processes.first(pot.decide(member, now, final))
        member.closed = final and effort is not None
        return effort

    def _now(self, fit: Fit, last: bool) -> Now:
        done = 1.0 if last else (fit.done - self._start) / max(1.0 - self._start, 1e-9)
        return Now(self.clock.trained, self.clock.expected(done), done, fit.step, self.clock.batches)

    def _prepared(self, pot: Pot, callback: Any, effort: Effort, trainer: Any, module: Any) -> Effort:
        """Draw the data and take the first look before the event, whose cost is then that of the next ones."""
        session = callback._session

        def look(packed: bool) -> Objective:
            with changed(callback, {"_effort": dataclasses.replace(effort, packed=packed)}):
                found: Objective = session.shared(trainer, module, *callback.measured_data())[0]
            return found

        packs = False
        with self.clock.measuring(lambda seconds: pot.charge(None, seconds)), contextlib.suppress(Exception):
            with session.processes.together():
                objective = look(packed=False)
            small = effort.examples is not None and effort.examples <= LEAST_EXAMPLES and callback.batches is None
            # Steps of chains and curves take one batch each, and would take all examples.
            if small and session.processes.size == 1 and not callback.work().batch_gradients:
                if callback.measured not in self._packs:
                    self._packs[callback.measured] = False
                    self._packs[callback.measured] = packable(objective, lambda: look(packed=True))
                packs = self._packs[callback.measured]
        return dataclasses.replace(effort, packed=packs)

    def _price(self, trainer: Any, module: Any) -> None:
        """Measure the prices over the smallest set of examples, once; where that fails, events will say why."""
        callback, _ = next(iter(self._members.values()))
        callback = next((each for each, _ in self._members.values() if each.share is not None), callback)
        session = callback._session
        assert session is not None
        least = Effort(examples=callback.least_examples())
        pot = None if callback.share is None else self._pots[callback.share]

        def charge(seconds: float) -> None:
            if pot is not None:
                pot.charge(None, seconds)

        found: Prices | None = None
        with self.clock.measuring(charge), contextlib.suppress(Exception):
            with changed(callback, {"_effort": least} if callback.share is not None else {}):
                objectives = session.objectives(trainer, module, *callback.measured_data())
            works = [each.work() for each, _ in self._members.values()]
            products, codes = (any(getattr(work, name) for work in works) for name in ("products", "codings"))
            found = prices_of(*objectives, products=products, now=self.now, codes=codes)
        gathered = session.processes.gather(found)
        if found is None or any(each is None for each in gathered):
            return
        self._prices = session.processes.first(dataclasses.replace(found, processes=session.processes.size))
        for each, member in self._members.values():
            member.examples = _available(each, trainer, objectives[0].n_examples)
        self._expected.clear()

    def _seconds(self, callback: LandscapeCallback, form: Mapping[str, Any], examples: int | None) -> float:
        """Return the expected seconds of one event, NaN while nothing is known of prices."""
        if self._prices is None:
            return math.nan
        key = id(callback), id(form), examples  # a member holds its forms
        if key not in self._expected:
            count = examples or self._members[id(callback)][1].examples or LEAST_EXAMPLES
            with changed(callback, form):
                self._expected[key] = self._prices.seconds(callback.work() + ROW, count)
        return self._expected[key]


def _available(callback: LandscapeCallback, trainer: Any, looked: int) -> int | None:
    """Return how many examples a callback measures as asked; None where all are measured and not yet counted.

    Args:
        callback: The callback.
        trainer: Its Trainer.
        looked: Examples in the smallest set that was drawn.
    """
    asked, least = callback.measured.examples, callback.least_examples()
    if callback.batches is not None:
        known: int | None = sum(map(n_examples, callback.batches))
        return known
    if callback.share is not None and least is not None and looked < least:
        return looked  # there are no more
    held = length_of(getattr(trainer.train_dataloader, "dataset", None))
    return min((count for count in (asked, held) if count is not None), default=None)
