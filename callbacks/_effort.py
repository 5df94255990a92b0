"""Count what a measurement does, and turn the counts into seconds by measured prices."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

LEAST_EXAMPLES = 128  # the smallest form of a measurement looks at so many, where there are as many


@dataclasses.dataclass(frozen=True)
class Work:
    """Expected work of one measurement.

    Attributes:
        products: Hessian-vector products over the measured examples.
        gradients: Gradients over them.
        evaluations: Losses over them, without gradients.
        both: Losses over the measured training and held-out examples.
        batch_gradients: Gradients of a single batch.
        codings: Codes of all weights.
        passes: Passes over flat vectors, each as long as adding two of them.
        vectors: Flat vectors held at the peak, beside the model's own.
    """

    products: float = 0.0
    gradients: float = 0.0
    evaluations: float = 0.0
    both: float = 0.0
    batch_gradients: float = 0.0
    codings: float = 0.0
    passes: float = 0.0
    vectors: float = 0.0

    def __add__(self, other: Work) -> Work:
        """Return both one after the other; vectors of the first are freed before the second begins."""
        names = [field.name for field in dataclasses.fields(Work) if field.name != "vectors"]
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        return Work(**sums, vectors=max(self.vectors, other.vectors))


# Every row has the loss and error on training and held-out examples, within an isolation that copies the weights.
ROW = Work(both=1.0, passes=3.0)


@dataclasses.dataclass(frozen=True)
class Prices:
    """Seconds that one batch takes, measured on it.

    Attributes:
        product: Seconds of a Hessian-vector product on the batch.
        gradient: Seconds of its gradient.
        evaluation: Seconds of its loss.
        examples: Examples in the batch.
        held_out: Held-out examples for each measured training example.
        processes: Processes that share the batches.
        passing: Seconds to add two flat vectors.
        coding: Seconds to quantise all weights and to tell the length of their code.
    """

    product: float
    gradient: float
    evaluation: float
    examples: int
    held_out: float = 0.0
    processes: int = 1
    passing: float = 0.0
    coding: float = 0.0

    def seconds(self, work: Work, examples: int) -> float:
        """Return the expected seconds of some work.

        Args:
            work: The counts.
            examples: Measured training examples.

        Returns:
            Seconds.
        """
        batches = max(examples / self.examples / self.processes, 1.0)
        losses = work.evaluations + work.both * (1 + self.held_out)
        passes = work.products * self.product + work.gradients * self.gradient + losses * self.evaluation
        of_weights = work.codings * self.coding + work.passes * self.passing
        return batches * passes + work.batch_gradients * self.gradient + of_weights


@dataclasses.dataclass(frozen=True)
class Effort:
    """How thoroughly one event is measured.

    Attributes:
        changes: Settings of the callback that are changed for this event, by name.
        examples: Examples measured; None for as many as were asked for.
        seconds: Seconds that the event is expected to take; NaN where nothing is known.
        lean: Whether it only keeps what cannot be measured later.
        packed: Whether the examples make one batch.
    """

    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    examples: int | None = None
    seconds: float = float("nan")
    lean: bool = False
    packed: bool = False

    def words(self) -> str:
        """Return what is reduced, as settings: "probes=2, examples=128"; "" where nothing is."""
        changes = {name: value for name, value in self.changes.items() if not name.startswith("_")}
        if self.examples is not None:
            changes["examples"] = self.examples
        words = [f"{name}={_text(value)}" for name, value in changes.items()]
        return ", ".join(filter(None, [self.changes.get("_words", ""), *words]))


@contextlib.contextmanager
def changed(owner: Any, changes: Mapping[str, Any]) -> Iterator[None]:
    """Give attributes of an object other values for a while.

    Args:
        owner: The object.
        changes: Values by name of the attribute.

    Yields:
        Nothing.
    """
    before = {name: getattr(owner, name) for name in changes}
    vars(owner).update(changes)
    try:
        yield
    finally:
        vars(owner).update(before)


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "(" + ", ".join(map(_text, value)) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value)
