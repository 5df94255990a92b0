"""What the callbacks of one Trainer share."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from landscape_test_trainings import Plain, assert_identical, fit, loader, make_trainer, run_of

from landscape import FileError, open_run
from landscape.callbacks import Sharpness
from landscape.callbacks._session import Measured, Session, _sums, session_of

MEASURED = Measured(examples=20, batch_size=None, mode="eval", noise_seed=None, seed=0)


class Borrowed(Sharpness):
    """Gives the test its session while the training runs."""

    def on_training_start(self, session, trainer, module):
        self.found = session.objectives(trainer, module, MEASURED)
        assert session.objectives(trainer, module, MEASURED) is self.found
        other = Measured(examples=20, batch_size=None, mode="eval", noise_seed=None, seed=1)
        self.other = session.objectives(trainer, module, other)
        self.evaluations = [session.evaluations(trainer, module, MEASURED) for _ in range(2)]


def test_objectives_and_evaluations_are_shared(tmp_path):
    callback = Borrowed(draws=2, steps=1, on_error="raise")
    fit(tmp_path, callback)
    train, held_out = callback.found
    assert train.n_examples == 20
    assert held_out is None
    assert train.fingerprint != callback.other[0].fingerprint
    (first, nothing), (second, _) = callback.evaluations
    assert first is second
    assert np.isnan(nothing.loss)


def test_one_session_for_a_trainer_and_a_path(tmp_path):
    trainer, other = make_trainer(tmp_path), make_trainer(tmp_path)
    session = session_of(trainer, tmp_path / "a.h5")
    assert session_of(trainer, tmp_path / "x" / ".." / "a.h5") is session
    assert session_of(trainer, tmp_path / "a.h5", session.run_id) is session
    assert session_of(trainer, tmp_path / "b.h5") is not session
    assert session_of(other, tmp_path / "a.h5") is not session
    assert session_of(trainer, tmp_path / "a.h5", "another run").run_id == "another run"


def test_groups_are_claimed_by_one_callback(tmp_path):
    session = Session(tmp_path / "run.h5")
    one, other = object(), object()
    assert [session.claim("group", owner) for owner in (one, other, one, other)] == [
        "group",
        "group_2",
        "group",
        "group_2",
    ]


def test_the_batches_outlive_the_objectives(tmp_path):
    callback = Sharpness(draws=2, steps=1, on_error="raise")
    trainer = make_trainer(tmp_path, [callback], max_epochs=1)
    module = Plain()
    noisy = loader(noise=0.5)  # from the dataset's own generator: drawn anew, it would be others
    trainer.fit(module, noisy)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, noisy)
    assert run_of(trainer).dataset("sharpness")["step"].values.tolist() == [3, 6]


def test_the_file_of_another_run_is_not_continued(tmp_path):
    trainer = fit(tmp_path / "one", Sharpness(draws=2, steps=1, path=tmp_path / "run.h5"))
    session = Session(tmp_path / "run.h5", "another run")
    with pytest.raises(FileError, match="belongs to the run"):
        session.open(trainer, trainer.lightning_module, resumed=True)
    assert open_run(tmp_path / "run.h5").dataset("sharpness")["step"].values.tolist() == [3, 6]


def test_only_rank_zero_writes(tmp_path):
    class SecondRank:
        is_global_zero = False
        global_step = 0

    session = Session(tmp_path / "run.h5")
    session.open(SecondRank(), Plain(), resumed=False)
    session.append("group", {"step": 1})
    session.close()
    assert list(tmp_path.iterdir()) == []


def test_drawn_batches_know_how_to_be_made(tmp_path):
    class Doubles(Plain):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            x, y = batch
            return 2 * x, y

    class Looks(Sharpness):
        def on_training_start(self, session, trainer, module):
            self.data = session.data
            train, _ = session.data.batches(trainer, None, self.measured)
            self.items = train.items
            self.made = train.collate(train.samples[0])
            self.drawn = list(train)

    callback = Looks(draws=2, steps=1, examples=20, on_error="raise")
    trainer = fit(tmp_path, callback, module=Doubles())
    assert callback.items == [16, 4]
    assert_identical(callback.made, callback.drawn[0])
    held, _ = next(iter(callback.data._held.values()))
    assert held.collate is None  # nothing leads to the module or the Trainer any more
    assert run_of(trainer).dataset("sharpness").attrs["measured"]["n_examples"] == 20
    trainer.fit_loop.max_epochs = 3
    trainer.fit(trainer.lightning_module, loader())
    assert_identical(callback.made, callback.drawn[0])


def test_a_trainer_is_forgotten_with_its_session(tmp_path):
    trainer = fit(tmp_path, Sharpness(draws=2, steps=1, examples=20, on_error="raise"))
    reference = weakref.ref(trainer)
    del trainer
    gc.collect()
    assert reference() is None


def test_states_with_equal_sums_are_told_apart():
    """A step on a cross-entropy leaves the sum over the classes of a last layer as it was."""
    module = torch.nn.Linear(2, 2, bias=False).double()
    module.weight.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    before = _sums(module)
    module.weight.data += torch.tensor([[0.5, 0.0], [-0.5, 0.0]], dtype=torch.float64)
    assert _sums(module) != before
