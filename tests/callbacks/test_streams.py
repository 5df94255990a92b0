"""Data that can be read only once: a copy of the stream is measured, or the first batches of the training itself."""

from __future__ import annotations

import itertools
import sqlite3
import warnings
import weakref
from collections import deque

import numpy as np
import pytest
import torch
from landscape_test_trainings import (
    BATCH,
    N_TRAIN,
    Blobs,
    Plain,
    assert_identical,
    left_behind,
    make_trainer,
    run_of,
    seed_all,
    warned,
)
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data.datapipes.iter import IterableWrapper

from landscape import MeasurementError
from landscape._batches import fingerprint
from landscape.callbacks import ModeConnectivity, Sharpness, SWATrajectory
from landscape.callbacks._data import draw
from landscape.callbacks._sampling import Unreadable

CHEAP = {"draws": 2, "steps": 1}


class Stream(IterableDataset):
    """The items of `Blobs` in order, with a counter, noise and a window of their own."""

    def __init__(self, noise=0.0):
        self.noise = noise
        self.generator = np.random.default_rng(4)
        self.recent = deque(maxlen=3)
        self.labels = {0, 1, 2}
        self.reads = 0

    def __iter__(self):
        blobs = Blobs()
        self.recent.extend(range(3))
        for x, y in zip(blobs.x, blobs.y, strict=True):
            self.reads += 1
            yield x + self.noise * torch.from_numpy(self.generator.normal(size=4)).float(), y


class Walks(Stream):
    """Iterates over its own containers while it yields: they must not be touched."""

    def __init__(self):
        super().__init__()
        self.recent = deque(range(N_TRAIN))
        self.table = {index: index for index in range(N_TRAIN)}

    def __iter__(self):
        blobs = Blobs()
        for one, _ in zip(self.recent, self.table, strict=True):
            yield blobs.x[one], blobs.y[one]


class Once(Stream):
    """Reads from an open iterator, which no copy can have for itself."""

    def __init__(self, epochs=8):
        super().__init__()
        self.source = itertools.chain.from_iterable(super(Once, self).__iter__() for _ in range(epochs))

    def __iter__(self):
        return itertools.islice(self.source, N_TRAIN)


ITERATOR = None


class Global(Once):
    """The same, through a global name."""

    def __init__(self):
        super().__init__()
        global ITERATOR
        ITERATOR, self.source = self.source, None

    def __iter__(self):
        return _head()


def _head():
    return itertools.islice(ITERATOR, N_TRAIN)


class Closed(Once):
    """The same, in a closure."""

    def __init__(self):
        super().__init__()
        source, self.source = self.source, None
        self.read = lambda: itertools.islice(source, N_TRAIN)

    def __iter__(self):
        return self.read()


class OfTheClass(Once):
    """The same, as an attribute of the class."""

    held = None

    def __init__(self):
        super().__init__()
        type(self).held, self.source = self.source, None

    def __iter__(self):
        return itertools.islice(self.held, N_TRAIN)


def database(owner):
    """An open database that is closed with its owner, as Python 3.13 warns of others."""
    # The collector may close it in any thread.
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    weakref.finalize(owner, connection.close)
    return connection


class Connected(Stream):
    """Holds a database connection."""

    def __init__(self):
        super().__init__()
        self.connection = database(self)


class Sharded(Stream):
    """Can be read in a worker process only."""

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        return itertools.islice(super().__iter__(), worker.id, None, worker.num_workers)


class Opened(Blobs):
    """Items by index, but from a file that only worker processes open."""

    def __getitem__(self, index):
        if torch.utils.data.get_worker_info() is None:
            raise OSError("no file is open")
        return super().__getitem__(index)


class Batches:
    """No data loader at all: yields batches."""

    def __iter__(self):
        return iter(DataLoader(Stream(), batch_size=BATCH))


def stream(dataset=Stream, batch_size=BATCH, **options):
    return DataLoader(dataset(), batch_size=batch_size, **options)


ONCE = [
    lambda: stream(Once),
    lambda: stream(Global),
    lambda: stream(Closed),
    lambda: stream(OfTheClass),
    lambda: stream(Connected),
    lambda: stream(Sharded, num_workers=1),
    lambda: stream(Opened, num_workers=1),
    Batches,
]


# ------------------------------------------------------------------ a copy of the stream


def test_the_first_examples_of_a_copy():
    mine = stream()
    drawn = draw(mine, 24, None, seed=0)
    assert (drawn.items, drawn.source) == ([16, 8], "iterator copy")
    assert torch.equal(torch.cat([x for x, _ in drawn]), Blobs().x[:24])
    assert_identical(drawn.collate(drawn.samples[1]), drawn[1])
    assert mine.dataset.reads == 0
    assert draw(mine, 24, 10, seed=0).items == [10, 10, 4]
    assert draw(mine, 1_000, None, seed=0).items == [16, 16, 16]


def test_a_stream_of_whole_batches():
    class Whole(Stream):
        def __iter__(self):
            yield from DataLoader(Blobs(), batch_size=10)

    drawn = draw(stream(Whole, batch_size=None), 20, None, seed=0)
    assert (len(drawn), drawn.items, drawn.samples) == (2, None, [])
    assert torch.equal(drawn[1][0], Blobs().x[10:20])


def test_noise_of_the_stream_is_repeatable_and_its_generator_stays():
    mine = DataLoader(Stream(noise=0.5), batch_size=8)
    first, second = (draw(mine, 24, None, seed=0) for _ in range(2))
    assert fingerprint(first) == fingerprint(second)
    assert mine.dataset.generator.bit_generator.state == np.random.default_rng(4).bit_generator.state


def test_all_examples_of_a_stream():
    class Sized(Stream):
        def __len__(self):
            return N_TRAIN

    assert sum(draw(stream(Sized), None, None, seed=0).items) == N_TRAIN
    with pytest.raises(MeasurementError, match="Stream has no length; give a number of examples"):
        draw(stream(), None, None, seed=0)


def test_a_trainer_that_ends_the_epoch_early():
    assert draw(stream(), 1_000, None, 0, steps=2).items == [16, 16]
    assert draw(stream(), None, 8, 0, steps=2).items == [8] * 4
    assert draw(stream(), 24, None, 0, steps=2).items == [16, 8]


def test_an_empty_stream():
    class Nothing(Stream):
        def __iter__(self):
            return iter(())

    with pytest.raises(MeasurementError, match="Nothing is empty"):
        draw(stream(Nothing), 8, None, seed=0)


@pytest.mark.parametrize("make", ONCE)
def test_streams_that_are_not_read_beside_the_training(make):
    with pytest.raises(Unreadable, match=r"batches=\[\.\.\.\]"):
        draw(make(), 8, None, seed=0)


def train(folder, make, callbacks, **options):
    seed_all()
    trainer, module = make_trainer(folder, callbacks, **options), Plain()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(module, make())
    return trainer, left_behind(trainer, module), warned(caught)


def events(**common):
    return [SWATrajectory(**common), Sharpness(**CHEAP, **common)]


@pytest.mark.parametrize("make", [stream, lambda: stream(Walks), lambda: DataLoader(Stream(0.3), 7), *ONCE])
def test_training_stays_bit_identical(tmp_path, make):
    _, without, _ = train(tmp_path / "without", make, [])
    trainer, with_them, messages = train(tmp_path / "with", make, events(every_n_epochs=1, examples=40))
    assert_identical(without, with_them)
    assert messages == []
    rows = run_of(trainer).dataset("sharpness")
    assert rows["status"].values.tolist() == ["ok", "ok"]


def test_containers_under_iteration_in_the_middle_of_an_epoch(tmp_path):
    class WalksOnce(Walks):
        def __init__(self):
            super().__init__()
            self.connection = database(self)

    _, without, _ = train(tmp_path / "without", lambda: stream(WalksOnce), [])
    trainer, with_them, _ = train(
        tmp_path / "with", lambda: stream(WalksOnce), events(every_n_steps=1, examples=40, on_error="warn")
    )
    assert_identical(without, with_them)
    assert run_of(trainer).dataset("sharpness")["status"].values.tolist() == ["failed"] * 2 + ["ok"] * 4


@pytest.mark.parametrize("workers", [0, 1])
def test_a_pipeline_of_torch(tmp_path, workers):
    def make():
        items = list(zip(Blobs().x, Blobs().y, strict=True))
        return DataLoader(IterableWrapper(items).shuffle(), batch_size=BATCH, num_workers=workers)

    _, without, _ = train(tmp_path / "without", make, [])
    trainer, with_them, messages = train(tmp_path / "with", make, events(every_n_steps=2, examples=24))
    assert_identical(without, with_them)
    assert messages == []
    assert run_of(trainer).dataset("sharpness").attrs["measured"]["source"] == "iterator copy"


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_of_a_stream_in_the_middle_of_an_epoch(tmp_path, workers):
    def make():
        return stream(Sharded, num_workers=workers, persistent_workers=True)

    _, without, _ = train(tmp_path / "without", make, [])
    _, with_them, messages = train(tmp_path / "with", make, events(every_n_steps=2, examples=24))
    assert_identical(without, with_them)
    assert messages == []


# ------------------------------------------------------------------ batches that pass


def test_the_first_batches_of_the_training(tmp_path):
    trainer, _, messages = train(tmp_path, ONCE[0], [Sharpness(**CHEAP, every_n_epochs=1, examples=32)])
    assert messages == []
    rows = run_of(trainer).dataset("sharpness")
    assert rows.attrs["measured"]["source"] == "training batches"
    assert rows.attrs["measured"]["n_examples"] == 32
    assert rows.attrs["held_out"] == "there are no validation data"
    x, y = Blobs().x[:32], Blobs().y[:32]
    with torch.no_grad():
        loss = float(cross_entropy(trainer.lightning_module.net(x), y))
    assert float(rows["train_loss"][-1]) == pytest.approx(loss, rel=1e-6)


def test_events_before_they_have_passed_fail_with_a_sentence(tmp_path):
    trainer, _, messages = train(tmp_path, ONCE[0], [Sharpness(**CHEAP, every_n_steps=1, examples=24)])
    rows = run_of(trainer).dataset("sharpness")
    assert rows["status"].values.tolist() == ["failed", "ok", "ok", "ok", "ok", "ok"]
    reason = str(rows["reason"].values[0])
    assert "the first 24 examples of the training itself are measured, and 16 have passed so far" in reason
    assert messages == [f"Sharpness could not measure at step 1: {reason}"]
    assert rows.attrs["measured"]["n_examples"] == 32  # batches are not cut


def test_an_epoch_with_fewer_examples_than_were_wanted(tmp_path):
    trainer, _, messages = train(tmp_path, ONCE[0], [Sharpness(**CHEAP, every_n_epochs=1, examples=1_000)])
    assert messages == []
    assert run_of(trainer).dataset("sharpness").attrs["measured"]["n_examples"] == N_TRAIN


def test_callbacks_that_want_different_numbers(tmp_path):
    callbacks = [Sharpness(**CHEAP, examples=n, name=f"n{n}") for n in (16, 40)]
    trainer, _, _ = train(tmp_path, ONCE[0], [*callbacks, ModeConnectivity(curve_steps=2, points=3, progress=False)])
    run = run_of(trainer)
    assert [run.dataset(f"n{n}").attrs["measured"]["n_examples"] for n in (16, 40)] == [16, 48]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"examples": None},
            "come from a Batches without a dataset, so their number is not known; give a number of examples",
        ),
        ({"batch_size": 8}, "batch_size=8 cannot be kept, as the training's own loader decides"),
    ],
)
def test_what_passing_batches_cannot_give(tmp_path, options, message):
    trainer, _, messages = train(tmp_path, Batches, [Sharpness(**CHEAP, **options)])
    assert len(messages) == 1
    assert message in messages[0]
    assert run_of(trainer).dataset("sharpness")["status"].values.tolist() == ["failed", "failed"]


def test_the_step_receives_its_batch_as_it_was(tmp_path):
    class InPlace(Plain):
        def training_step(self, batch, batch_idx):
            batch[0].mul_(2.0)
            return super().training_step(batch, batch_idx)

    trainer = make_trainer(tmp_path, [Sharpness(**CHEAP, examples=16, on_error="raise")])
    trainer.fit(InPlace(), ONCE[0]())
    x, y = Blobs().x[:16], Blobs().y[:16]
    with torch.no_grad():
        loss = float(cross_entropy(trainer.lightning_module.net(2 * x), y))
    assert float(run_of(trainer).dataset("sharpness")["train_loss"][-1]) == pytest.approx(loss, rel=1e-6)


def test_validation_streams(tmp_path):
    class Validates(Plain):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", torch.zeros(()))

    for name, data, wanted in (("copy", stream(), 24), ("once", stream(Once), None)):
        trainer = make_trainer(tmp_path / name, [Sharpness(**CHEAP, examples=24, on_error="raise")])
        trainer.fit(Validates(), stream(), data)
        described = run_of(trainer).dataset("sharpness").attrs["held_out"]
        if wanted is None:
            assert described.startswith("validation data cannot be measured: the dataset Once cannot be copied")
        else:
            assert (described["n_examples"], described["source"]) == (wanted, "iterator copy")


def test_given_batches_are_measured_from_the_start(tmp_path):
    batches = [(Blobs().x, Blobs().y)]
    trainer, _, messages = train(tmp_path, ONCE[0], [Sharpness(**CHEAP, every_n_steps=1, batches=batches)])
    rows = run_of(trainer).dataset("sharpness")
    assert messages == []
    assert set(rows["status"].values) == {"ok"}
    assert rows.attrs["measured"]["source"] == "given"


# ------------------------------------------------------------------ resuming


def resumed(folder, make, later):
    """Train two epochs and go on for a third from the checkpoint; return the rows."""
    trainer, _, _ = train(folder, make, [Sharpness(**CHEAP, examples=32)])
    checkpoint = folder / "last.ckpt"
    trainer.save_checkpoint(checkpoint)
    again = make_trainer(folder, [Sharpness(**CHEAP, examples=32)], max_epochs=3)
    again.fit(Plain(), later(), ckpt_path=checkpoint)
    return run_of(trainer).dataset("sharpness")


def test_a_resumed_training_measures_the_same_copy(tmp_path):
    rows = resumed(tmp_path, stream, stream)
    assert rows["step"].values.tolist() == [3, 6, 9]
    assert set(rows["status"].values) == {"ok"}
    assert "former" not in rows.attrs["measured"]


def test_a_resumed_training_says_that_it_measures_other_batches(tmp_path):
    def later():
        data = Once()
        next(data.source)  # the stream goes on elsewhere
        return DataLoader(data, batch_size=BATCH)

    rows = resumed(tmp_path, ONCE[0], later)
    assert rows["step"].values.tolist() == [3, 6, 9]
    assert set(rows["status"].values) == {"ok"}
    (former,) = rows.attrs["measured"]["former"]
    assert former["last_step"] == 6
    assert former["fingerprint"] not in ("", rows.attrs["measured"]["fingerprint"])


def test_a_resumed_training_that_receives_the_same_batches(tmp_path):
    rows = resumed(tmp_path, ONCE[0], ONCE[0])
    assert rows["step"].values.tolist() == [3, 6, 9]
    assert "former" not in rows.attrs["measured"]
