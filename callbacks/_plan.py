"""Say what measurements would cost before they are taken."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from landscape._results import Result
from landscape.callbacks._base import LandscapeCallback
from landscape.callbacks._defaults import default_callbacks
from landscape.callbacks._effort import ROW, changed
from landscape.callbacks._fit_length import Fit
from landscape.callbacks._notes import duration
from landscape.callbacks._overhead import percent
from landscape.callbacks._pot import Member, Now, Pot
from landscape.callbacks._prices import prices_of
from landscape.objective import Objective

_HEAD = ("measure", "events", "products", "gradients", "losses", "an event", "in all", "vectors")


@dataclasses.dataclass(frozen=True)
class PlanRow(Result):
    """The expected cost of one callback.

    Attributes:
        name: Its group in the file.
        events: Events of the fit; infinite where it has no known end.
        products: Hessian-vector products of an event, over the measured examples.
        gradients: Gradients of an event over them; a gradient of one batch counts as its share.
        losses: Losses of an event over them, without gradients.
        seconds: Seconds of an event.
        total: Seconds of all events.
        bytes: Bytes of the flat vectors that it holds at the peak. The graphs of the batches come beside them.
        reduced: What `overhead=` would lower, as settings; "" where nothing.
    """

    name: str
    events: float
    products: float
    gradients: float
    losses: float
    seconds: float
    total: float
    bytes: float
    reduced: str


@dataclasses.dataclass(frozen=True)
class Plan(Result):
    """The expected cost of some callbacks; `print(plan)` shows it as a table.

    Attributes:
        rows: One for each callback.
        training: Expected seconds of the training alone: a gradient for each of its batches.
        n_parameters: Trainable parameters.
        examples: Measured examples.
    """

    rows: tuple[PlanRow, ...]
    training: float
    n_parameters: int
    examples: int

    @property
    def total(self) -> float:
        """Expected seconds of all measurements."""
        return math.fsum(row.total for row in self.rows)

    def __str__(self) -> str:
        table = [_HEAD, *(_cells(row) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) if place == 0 else cell.rjust(width) for place, (cell, width) in enumerate(
                zip(cells, widths, strict=True)))
            for cells in table
        ]  # fmt: skip
        lines += [f"{row.name}: {row.reduced}" for row in self.rows if row.reduced]
        share = f", {percent(self.total / self.training)} of" if self.training > 0 else "; training alone:"
        lines.append(f"{duration(self.total)} in all{share} {duration(self.training)} of training.")
        return "\n".join(lines)


def plan(
    objective: Objective | nn.Module,
    callbacks: Sequence[LandscapeCallback] | None = None,
    *,
    batches: Iterable[Any] | None = None,
    held_out: Iterable[Any] | None = None,
    epochs: int = 1,
    examples_per_epoch: int | None = None,
) -> Plan:
    """Say what callbacks would cost in a training: products, seconds and bytes, for an event and for the whole fit.

    One batch is evaluated, differentiated and multiplied twice each, about 12 gradients in all. The counts of each
    measure are those of usual runs, so that single events may differ from them by half.

    Memory: the graph of the batch, and six flat vectors.

    Args:
        objective: The loss over the measured examples; or a module, whose loss is that of its `training_step`.
        callbacks: What would measure; by default `default_callbacks(overhead=None)`.
        batches: Training batches, needed with a module.
        held_out: Held-out batches that would be measured too.
        epochs: Epochs of the fit.
        examples_per_epoch: Training examples; by default as many as are measured.

    Returns:
        The plan. Callbacks with `overhead=` are planned in the form that would keep it.

    Raises:
        TypeError: A module without batches.

    Example:
        >>> import torch
        >>> from landscape import Objective, plan
        >>> data = [(torch.randn(32, 4), torch.randint(3, (32,))) for _ in range(4)]
        >>> found = plan(Objective(torch.nn.Linear(4, 3), torch.nn.functional.cross_entropy, data), epochs=10)
        >>> [(row.name, row.events) for row in found.rows][:2]
        [('hessian_spectrum', 10.0), ('sharpness', 10.0)]
    """
    if not isinstance(objective, Objective):
        if batches is None:
            raise TypeError("plan(module) needs batches=: training batches as training_step receives them")
        objective = Objective.from_lightning(objective, batches)
    held = None if held_out is None else objective.restrict(held_out)
    chosen = default_callbacks(overhead=None) if callbacks is None else list(callbacks)
    for callback in chosen:
        with contextlib.suppress(Exception):  # layers and tensors are counted; what cannot be, is not
            callback.schema(None, objective.module)
    works = [callback.work() for callback in chosen]
    products, codes = (any(getattr(work, name) for work in works) for name in ("products", "codings"))
    prices = prices_of(objective, held, products=products, codes=codes)
    there = examples_per_epoch or objective.n_examples
    batch = prices.examples
    training = epochs * max(there / batch, 1.0) * prices.gradient
    fit = Fit(0.0, epochs, epochs * max(there // batch, 1), 0, 0)
    size = objective.n_examples

    def member_of(callback: LandscapeCallback) -> Member:
        def seconds(form: Any, examples: int | None) -> float:
            with changed(callback, form):
                return prices.seconds(callback.work() + ROW, examples or size)

        events = callback.expected_events(fit)
        asked = min(callback.measured.examples or size, size)
        return Member(
            callback._wanted_group(), callback.forms(), seconds, asked, events, callback.cadence, callback.lean()
        )

    members = [(callback, member_of(callback)) for callback in chosen]
    pots: dict[float, Pot] = {}
    for callback, member in members:
        if callback.share is not None:
            pots.setdefault(callback.share, Pot(callback.share)).members.append(member)
    now = Now(training, training, 1.0 / epochs, 0)
    for pot in pots.values():
        pot.choice = pot.choose(now)
    itemsize = objective.dtype.itemsize
    batch_count = len(objective.batches)
    rows = [
        _row(callback, member, pots.get(callback.share or 0.0), objective.n_parameters * itemsize, batch_count)
        for callback, member in members
    ]
    return Plan(tuple(rows), training, objective.n_parameters, size)


def _row(callback: LandscapeCallback, member: Member, pot: Pot | None, vector: int, batches: int) -> PlanRow:
    form, examples, events, reduced = member.forms[0], member.examples, member.events, ""
    if pot is not None and pot.choice is not None:
        form, examples = member.form(pot.choice.form), member.fewer(pot.choice)
        events = pot.events(member, pot.choice)
        reduced = member.effort(form, examples).words()
    with changed(callback, form):
        work = callback.work() + ROW
    cost = member.cost(form, examples)
    return PlanRow(
        name=member.name,
        events=float(events),
        products=work.products,
        gradients=work.gradients + work.batch_gradients / batches,
        losses=work.evaluations + work.both,
        seconds=cost,
        total=cost * events,
        bytes=work.vectors * vector,
        reduced=reduced,
    )


def _cells(row: PlanRow) -> tuple[str, ...]:
    counts = [f"{count:.0f}" for count in (row.events, row.products, row.gradients, row.losses)]
    return (row.name, *counts, duration(row.seconds), duration(row.total), _bytes(row.bytes))


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
