"""Hold the measurement batches of a run: drawn from its loaders, kept aside as they pass, or given."""

from __future__ import annotations

import dataclasses
import itertools
import pickle
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from landscape import _batches
from landscape._batches import DrawnBatches
from landscape._distributed import ALONE, Processes
from landscape._errors import MeasurementError
from landscape._private import before_transfer
from landscape.callbacks import _data
from landscape.callbacks._drawing import require_no_batch_size
from landscape.callbacks._failing import sentence
from landscape.callbacks._passing import PassingBatches
from landscape.callbacks._sampling import Unreadable

PASSED = "training batches"  # the source of batches that were kept aside as the training received them


class AwaitedError(MeasurementError):
    """Raised where the batches to measure have not all passed through the training yet."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """Which data, mode and part of the model a callback measures; callbacks that agree share one objective."""

    examples: int | None
    batch_size: int | None
    mode: str
    noise_seed: int | None
    seed: int
    parameters: tuple[str, ...] | None = None

    @property
    def data(self) -> Measured:
        """The same without the part of the model: callbacks that measure different parts share the batches."""
        return dataclasses.replace(self, parameters=None)


class MeasuredData:
    """The measurement batches of one run, held from the first request on.

    Where a loader cannot be read beside the training, the first batches of the training itself are measured, by all
    later events: events before they have passed fail. A resumed training keeps other batches then.

    Attributes:
        processes: Those that measure together; all call the methods.
        without_held_out: Why there are no held-out examples, where there are none.
    """

    def __init__(self) -> None:
        self.processes: Processes = ALONE
        self.without_held_out = "there are no validation data"
        self._held: dict[Any, tuple[DrawnBatches, DrawnBatches | None]] = {}
        self._passing = PassingBatches()
        self._unreadable: dict[Measured, str] = {}

    def batches(
        self, trainer: Any, validation: Any, measured: Measured, given: Sequence[Any] | None = None
    ) -> tuple[DrawnBatches, DrawnBatches | None]:
        """Return the training and the held-out batches, drawn at the first call.

        Args:
            trainer: The Trainer, whose training loaders are drawn from.
            validation: The validation loader; None where there is none.
            measured: Which examples.
            given: Training batches that are measured instead of drawn ones.

        Returns:
            The batches, ready for the training step. The second is None where there are no validation data, or none
            that can be drawn.

        Raises:
            AwaitedError: The training batches to measure have not all passed yet.
            MeasurementError: There is nothing to draw from.
        """  # noqa: DOC502 - raised by the helpers
        key = (measured, id(given))
        if key not in self._held:
            train = self._training(trainer, measured) if given is None else DrawnBatches(self._agreed(given))
            self._held[key] = (train, self._held_out(trainer, validation, measured))
        train, held = self._held[key]
        for drawn, source in ((train, trainer.train_dataloader), (held, validation)):
            if drawn is not None and drawn.samples and drawn.collate is None:
                drawn.collate = _prepared(trainer, _data.collation(source))
        return train, held

    def sources(self, measured: Measured, given: Sequence[Any] | None = None) -> tuple[str, str]:
        """Return where the training and the held-out batches come from, once `batches` has returned them."""
        train, held = self._held[measured, id(given)]
        return train.source, "" if held is None else held.source

    def to_read(
        self, trainer: Any, validation: Any, measured: Measured, given: Sequence[Any] | None = None
    ) -> list[Any]:
        """Return the loaders whose datasets or collations `batches` and its result may call."""
        if (measured, id(given)) in self._held:
            pairs = zip((trainer.train_dataloader, validation), self._held[measured, id(given)], strict=True)
            return [loader for loader, drawn in pairs if drawn is not None and drawn.samples]
        if given is not None or measured in self._unreadable:
            return [validation]
        return [trainer.train_dataloader, validation]

    @property
    def waiting(self) -> bool:
        """Whether batches that pass are kept aside now."""
        return self._passing.waiting

    def offer(self, trainer: Any, batch: Any, batch_index: int) -> None:
        """Show a batch that the training step is about to receive."""
        self._passing.offer(batch, (trainer.current_epoch, batch_index))

    def end_epoch(self) -> None:
        """Measure what has passed, where the first epoch had fewer examples than were wanted."""
        self._passing.end()

    def release(self) -> None:
        """Let go of the loaders' collations, which may lead to the module; `batches` takes them up again."""
        for drawn in itertools.chain(*self._held.values()):
            if drawn is not None:
                drawn.collate = None

    def _training(self, trainer: Any, measured: Measured) -> DrawnBatches:
        if measured not in self._unreadable:
            reason, drawn = "", DrawnBatches()
            try:
                drawn = _read(trainer.train_dataloader, measured, **_data.reading_order(trainer))
            except Unreadable as error:
                reason = error.reason
            reasons = self.processes.gather(reason)
            if not any(reasons):
                return self._transferred(trainer, drawn)
            self._unreadable[measured] = next(filter(None, reasons))
        return self._passed(measured, self._unreadable[measured])

    def _passed(self, measured: Measured, reason: str) -> DrawnBatches:
        examples = measured.examples
        if examples is None:
            raise MeasurementError(
                f"examples=None asks for all training examples, but {reason}, so their number is not known; give a "
                "number of examples, or measurement batches as batches=[...]"
            )
        require_no_batch_size(measured.batch_size, "the training's own loader")
        self._passing.want(examples)
        passed = self._passing.first(examples)
        if self.processes.first(passed is None):
            raise AwaitedError(
                f"{reason}, so the first {examples} examples of the training itself are measured, and "
                f"{self._passing.examples} have passed so far; measure later, or fewer examples, or give measurement "
                "batches to the callback as batches=[...]"
            )
        return DrawnBatches(self._agreed(passed or []), source=PASSED)

    def _held_out(self, trainer: Any, validation: Any, measured: Measured) -> DrawnBatches | None:
        # Without validation data that can be drawn and that training_step takes, there is no held-out loss in the
        # training's own terms: the columns stay NaN, and the file says why.
        if validation is None:
            return None
        try:
            return self._transferred(trainer, _read(validation, measured))
        except Exception as error:
            reason = error.reason if isinstance(error, Unreadable) else sentence(error)
            self.without_held_out = f"validation data cannot be measured: {reason}"
            return None

    def _transferred(self, trainer: Any, drawn: DrawnBatches) -> DrawnBatches:
        """Make the batches of all processes equal, and prepare them as the training loop would."""
        agreed = self._agreed(drawn)
        known = (drawn.items, drawn.source, drawn.samples)
        if agreed is not drawn:
            known = self.processes.first(known if _pickles(drawn.samples) else (drawn.items, drawn.source, []))
        return DrawnBatches(map(_prepared(trainer), agreed), *known)

    def _agreed(self, batches: Sequence[Any]) -> list[Any]:
        """Take the first process's batches where a dataset with generators of its own gave others elsewhere."""
        held = batches if isinstance(batches, list) else list(batches)
        if self.processes.size > 1 and len(set(self.processes.gather(_batches.fingerprint(held)))) > 1:
            return self.processes.first(list(held))
        return held


def fewer_batches(batches: Sequence[Any], examples: int) -> list[Any]:
    """Return the first of some batches that hold a number of examples together; all where they are not counted."""
    total, chosen = 0, []
    for batch in batches:
        if total >= examples:
            break
        chosen.append(batch)
        try:
            total += _batches.n_examples(batch)
        except MeasurementError:
            return list(batches)
    return chosen


def _read(loaders: Any, measured: Measured, **order: Any) -> DrawnBatches:
    return _data.draw(loaders, measured.examples, measured.batch_size, measured.seed, **order)


def _prepared(trainer: Any, collate: Callable[[Any], Any] = lambda batch: batch) -> Callable[[Any], Any]:
    """Return a function that prepares batches as the training loop does: precision, the module's hooks, device.

    Args:
        trainer: The Trainer; a weak reference is kept.
        collate: Applied first.

    Returns:
        The function.
    """
    reference = weakref.ref(trainer)

    def prepare(items: Any) -> Any:
        trainer: Any = reference()
        batch = trainer.precision_plugin.convert_input(collate(items))
        batch = before_transfer(trainer, batch)
        return trainer.strategy.batch_to_device(batch, dataloader_idx=0)

    return prepare


def _pickles(samples: Any) -> bool:
    try:
        pickle.dumps(samples)
    except Exception:
        return False
    return True
