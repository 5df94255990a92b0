"""A training that goes on from a checkpoint goes on in its run file, as if it had never stopped."""

from __future__ import annotations

import gc
import shutil
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from landscape_test_trainings import (
    BUSY,
    Plain,
    assert_identical,
    everything,
    flat,
    held_out,
    loader,
    make_trainer,
    run_of,
    seed_all,
    warned,
)
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import Checkpoint

from landscape import open_run
from landscape.callbacks import Compressibility, HessianSpectrum, ModeConnectivity, Sharpness, SWATrajectory


class Still(BUSY["pytorch_lightning"]):
    """Batch normalisation and a scheduler, and nothing random: a resumed training equals an uninterrupted one."""

    def __init__(self):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__()
        self.net[3].p = 0.0


class Saves(Checkpoint):
    """Saves after every epoch, as ModelCheckpoint does, without a state of its own in the checkpoint."""

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.save_checkpoint(Path(trainer.default_root_dir) / f"{trainer.current_epoch + 1}.ckpt")


def data():
    return loader(shuffle=False, generator=None)


def train(folder, epochs, callbacks, ckpt=None, **options):
    seed_all()
    trainer = make_trainer(folder, callbacks, max_epochs=epochs, **options)
    trainer.fit(Still(), data(), held_out(), ckpt_path=ckpt)
    return trainer


def interrupted(folder, callbacks, epochs=2, saved_after=2):
    """Train, and return the Trainer with the checkpoint of when `saved_after` epochs were done."""
    trainer = train(folder, epochs, [Saves(), *callbacks], enable_checkpointing=True)
    return trainer, folder / f"{saved_after}.ckpt"


def same_rows(one, other, skip=("wall_seconds",)):
    """Compare two run files number by number."""
    assert one.groups == other.groups
    for group in one.groups:
        a, b = one.dataset(group), other.dataset(group)
        assert a["step"].values.tolist() == b["step"].values.tolist(), group
        assert a.attrs == b.attrs, group
        for name in set(a.data_vars) - set(skip):
            np.testing.assert_array_equal(a[name].values, b[name].values, err_msg=f"{group}/{name}")


@pytest.mark.parametrize("where", ["default", pytest.param("explicit", marks=pytest.mark.slow)])
def test_resuming_equals_not_stopping(tmp_path, where):
    def callbacks(folder):
        path = None if where == "default" else tmp_path / folder / "explicit.h5"
        return everything(path=path, every_n_steps=4)

    whole = train(tmp_path / "whole", 4, callbacks("whole"))
    # The first part goes on past its checkpoint, so there are rows to drop.
    first, checkpoint = interrupted(tmp_path / "parts", callbacks("parts"), epochs=3)
    second = train(tmp_path / "parts", 4, callbacks("parts"), checkpoint)
    assert first.log_dir != second.log_dir
    file = Path(first.log_dir) / "landscape.h5" if where == "default" else tmp_path / "parts" / "explicit.h5"
    assert sorted(tmp_path.joinpath("parts").rglob("*.h5")) == [file]
    reference = run_of(whole) if where == "default" else open_run(tmp_path / "whole" / "explicit.h5")
    # The connectivity of the first part was measured at its own end, past the checkpoint.
    same_rows(reference, open_run(file))
    assert_identical(whole.lightning_module.state_dict(), second.lightning_module.state_dict())
    assert second.callbacks[0].average[0].equal(whole.callbacks[0].average[0])


def test_rows_past_the_checkpoint_are_dropped_at_once(tmp_path):
    first, checkpoint = interrupted(tmp_path, [Sharpness(draws=2, steps=2)], epochs=4, saved_after=2)
    run = run_of(first)
    assert run.dataset("sharpness")["step"].values.tolist() == [3, 6, 9, 12]

    class Looks(Callback):
        def on_train_start(self, trainer, pl_module):
            seen.append(run.dataset("sharpness")["step"].values.tolist())

    seen = []
    train(tmp_path, 3, [Sharpness(draws=2, steps=2), Looks()], checkpoint)
    assert seen == [[3, 6]]
    assert run.dataset("sharpness")["step"].values.tolist() == [3, 6, 9]


def test_the_running_mean_goes_on_exactly(tmp_path):
    whole = train(tmp_path / "whole", 4, [SWATrajectory(start=1, examples=24)])
    _, checkpoint = interrupted(tmp_path / "parts", [SWATrajectory(start=1, examples=24)], epochs=3)
    resumed = train(tmp_path / "parts", 4, [SWATrajectory(start=1, examples=24)], checkpoint)
    (mean, fresh), (expected, expected_fresh) = resumed.callbacks[0].average, whole.callbacks[0].average
    assert mean.equal(expected)
    assert_identical(fresh, expected_fresh)


def test_the_mean_of_a_resumed_run_is_measured_with_its_own_statistics(tmp_path):
    def callbacks():
        return [SWATrajectory(examples=24), Sharpness(draws=2, steps=2, examples=24, weights="swa", every_n_steps=1)]

    whole = train(tmp_path / "whole", 3, callbacks())
    _, checkpoint = interrupted(tmp_path / "parts", callbacks(), epochs=2)
    first = open_run(next((tmp_path / "parts").rglob("*.h5")))
    train(tmp_path / "parts", 3, callbacks(), checkpoint)
    same_rows(run_of(whole), first)


def test_the_anchor_of_the_connectivity_survives(tmp_path):
    settings = {"since": 1, "curve_steps": 3, "points": 3, "progress": False, "examples": 24}
    whole = train(tmp_path / "whole", 3, [ModeConnectivity(**settings)])
    first, checkpoint = interrupted(tmp_path / "parts", [ModeConnectivity(**settings)])
    train(tmp_path / "parts", 3, [ModeConnectivity(**settings)], checkpoint)
    measured = run_of(first).dataset("mode_connectivity").sel(step=9)
    expected = run_of(whole).dataset("mode_connectivity").sel(step=9)
    np.testing.assert_array_equal(measured["end_a"], expected["end_a"])
    np.testing.assert_array_equal(measured["curve_train_loss"], expected["curve_train_loss"])


def test_an_anchor_does_not_outlive_its_training(tmp_path):
    callback = ModeConnectivity(curve_steps=3, points=3, progress=False)
    for seed in (0, 1):
        module = Plain(seed=seed)
        trainer = make_trainer(tmp_path, [callback])
        trainer.fit(module, data())
    end = open_run(Path(trainer.log_dir) / "landscape.h5").dataset("mode_connectivity")["end_a"].values[0]
    alone = ModeConnectivity(curve_steps=3, points=3, progress=False)
    trainer = make_trainer(tmp_path, [alone])
    trainer.fit(Plain(seed=1), data())
    np.testing.assert_array_equal(end, run_of(trainer).dataset("mode_connectivity")["end_a"].values[0])


def test_a_callback_added_after_the_checkpoint_joins_the_file(tmp_path):
    first, checkpoint = interrupted(tmp_path, [Sharpness(draws=2, steps=2)])
    added = [Compressibility(tolerances=(0.1,)), Sharpness(draws=2, steps=2)]
    train(tmp_path, 3, added, checkpoint)
    run = run_of(first)
    assert run.dataset("sharpness")["step"].values.tolist() == [3, 6, 9]
    assert run.dataset("compressibility")["step"].values.tolist() == [9]
    assert list(tmp_path.rglob("*.h5")) == [run.path]


def test_other_settings_after_the_checkpoint_are_refused(tmp_path):
    first, checkpoint = interrupted(tmp_path, [Sharpness(draws=2, steps=2), HessianSpectrum(k=1)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(tmp_path, 3, [Sharpness(draws=2, steps=2), HessianSpectrum(k=2)], checkpoint)
    (message,) = warned(caught)
    assert "go on with the settings that the run began with" in message
    assert run_of(first).dataset("hessian_spectrum")["step"].values.tolist() == [3, 6]
    assert run_of(first).dataset("sharpness")["step"].values.tolist() == [3, 6, 9]


def test_a_new_training_keeps_the_old_file(tmp_path):
    path = tmp_path / "run.h5"
    for epochs in (1, 2, 3):
        train(tmp_path, epochs, [Sharpness(draws=2, steps=2, path=path)])
    steps = {file.name: open_run(file).table()["step"].tolist() for file in tmp_path.glob("*.h5")}
    assert steps == {"run.1.h5": [3], "run.2.h5": [3, 6], "run.h5": [3, 6, 9]}


def test_two_fits_of_one_trainer_go_on(tmp_path):
    trainer, module = make_trainer(tmp_path, [SWATrajectory(), Sharpness(draws=2, steps=2)], max_epochs=2), Still()
    trainer.fit(module, data(), held_out())
    trainer.fit_loop.max_epochs = 3
    trainer.fit(module, data(), held_out())
    run = run_of(trainer)
    assert run.dataset("sharpness")["step"].values.tolist() == [3, 6, 9]
    assert run.dataset("swa_trajectory")["n_averaged"].values.tolist() == [1, 2, 3]
    weights = run.dataset("swa_trajectory")["weights"].values.astype(float)
    np.testing.assert_allclose(trainer.callbacks[0].average[0].numpy(), weights.mean(axis=0), rtol=0, atol=1e-15)


def test_one_trainer_that_goes_back_to_a_checkpoint(tmp_path):
    module = Still()
    callbacks = [Sharpness(draws=2, steps=2), SWATrajectory()]
    seed_all()
    trainer = make_trainer(tmp_path / "one", callbacks, max_epochs=2)
    trainer.fit(module, data(), held_out())
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    for epochs in (4, 3):
        trainer.fit_loop.max_epochs = epochs
        trainer.fit(module, data(), held_out(), ckpt_path=tmp_path / "two.ckpt")
    whole = train(tmp_path / "whole", 3, [Sharpness(draws=2, steps=2), SWATrajectory()])
    same_rows(run_of(whole), run_of(trainer))


def test_a_trainer_that_measures_is_not_kept_alive(tmp_path):
    def train_and_forget():
        trainer = make_trainer(tmp_path, [Sharpness(draws=2, steps=2)])
        trainer.fit(Plain(), data())
        return weakref.ref(trainer)

    alive = train_and_forget()
    gc.collect()
    assert alive() is None


def test_the_checkpoint_loads_with_weights_only(tmp_path):
    _, checkpoint = interrupted(tmp_path, everything())
    states = torch.load(checkpoint, weights_only=True)["callbacks"]
    assert len(states) == 5
    file = next(tmp_path.rglob("*.h5")).relative_to(tmp_path).as_posix()
    assert {(state["path"], state["asked"]) for state in states.values()} == {(file, file)}


def test_a_checkpoint_of_one_namespace_goes_on_in_the_other(tmp_path):
    def fit(namespace, epochs, ckpt=None):
        seed_all()
        trainer = make_trainer(tmp_path, [SWATrajectory(examples=24)], namespace, max_epochs=epochs)
        trainer.fit(BUSY[namespace](), data(), held_out(), ckpt_path=ckpt)
        return trainer

    first = fit("pytorch_lightning", 2)
    first.save_checkpoint(tmp_path / "last.ckpt")
    fit("lightning.pytorch", 3, tmp_path / "last.ckpt")
    run = run_of(first)
    assert run.dataset("swa_trajectory")["n_averaged"].values.tolist() == [1, 2, 3]


def test_a_checkpoint_in_the_middle_of_an_epoch(tmp_path):
    class SavesAt4(Checkpoint):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 4:
                trainer.save_checkpoint(tmp_path / "whole" / "middle.ckpt")

    def callbacks():
        return [SWATrajectory(every_n_epochs=None, every_n_steps=2), Sharpness(draws=2, steps=2)]

    whole = train(tmp_path / "whole", 3, [*callbacks(), SavesAt4()], enable_checkpointing=True)
    with pytest.warns(UserWarning, match="your dataloader is not resumable") as caught:
        resumed = train(tmp_path / "whole", 3, callbacks(), tmp_path / "whole" / "middle.ckpt")
    assert warned(caught) == []
    run = run_of(whole)  # it goes on there, as the checkpoint says
    assert len(list(tmp_path.rglob("*.h5"))) == 1
    assert run.dataset("swa_trajectory")["step"].values.tolist() == [2, 4, 6, 8]
    assert run.dataset("swa_trajectory")["n_averaged"].values.tolist() == [1, 2, 3, 4]
    assert run.dataset("sharpness")["step"].values.tolist() == [3, 6, 9]
    assert resumed.global_step == 9


def test_the_file_of_a_resumed_run_was_lost(tmp_path):
    first, checkpoint = interrupted(tmp_path, [Sharpness(draws=2, steps=2)])
    run_of(first).path.unlink()
    train(tmp_path, 3, [Sharpness(draws=2, steps=2)], checkpoint)
    run = run_of(first)
    assert run.dataset("sharpness")["step"].values.tolist() == [9]
    assert run.attributes["run_id"] == torch.load(checkpoint)["callbacks"].popitem()[1]["run_id"]


def test_a_folder_that_moved_goes_on_where_it_is(tmp_path):
    first, checkpoint = interrupted(tmp_path / "a", [Sharpness(draws=2, steps=2)])
    before = run_of(first).path.read_bytes()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    train(tmp_path / "b", 3, [Sharpness(draws=2, steps=2)], tmp_path / "b" / checkpoint.name)
    assert run_of(first).path.read_bytes() == before
    moved = tmp_path / "b" / run_of(first).path.relative_to(tmp_path / "a")
    assert open_run(moved).dataset("sharpness")["step"].values.tolist() == [3, 6, 9]
    # Only the checkpoint says where its folder is, as another one is given to the Trainer.
    train(tmp_path / "c", 4, [Sharpness(draws=2, steps=2)], tmp_path / "b" / checkpoint.name)
    assert open_run(moved).dataset("sharpness")["step"].values.tolist() == [3, 6, 9, 12]
    assert not list((tmp_path / "c").rglob("*.h5"))


def test_another_folder_gets_a_file_of_its_own(tmp_path):
    first, checkpoint = interrupted(tmp_path / "a", [Sharpness(draws=2, steps=2)])
    before = run_of(first).path.read_bytes()
    shutil.copy(checkpoint, tmp_path / "alone.ckpt")
    train(tmp_path / "b", 3, [Sharpness(draws=2, steps=2)], tmp_path / "alone.ckpt")
    assert run_of(first).path.read_bytes() == before
    (own,) = (tmp_path / "b").rglob("*.h5")
    run = open_run(own)
    assert run.dataset("sharpness")["step"].values.tolist() == [9]
    name = run_of(first).path.name
    assert run.attributes["continues"] == {"run_id": run_of(first).attributes["run_id"], "file": name, "step": 6}


def test_another_run_at_the_same_place_is_left_alone(tmp_path):
    """Both trainings have a lightning_logs/version_0/landscape.h5; the checkpoint is of the first."""
    first, checkpoint = interrupted(tmp_path / "a", [Sharpness(draws=2, steps=2)])
    shutil.copy(checkpoint, tmp_path / "alone.ckpt")
    other = train(tmp_path / "b", 4, [Sharpness(draws=2, steps=2)])
    before = run_of(other).path.read_bytes()
    train(tmp_path / "b", 3, [Sharpness(draws=2, steps=2)], tmp_path / "alone.ckpt")
    assert run_of(other).path.read_bytes() == before
    assert len(list((tmp_path / "b").rglob("*.h5"))) == 2


def test_a_training_with_random_augmentation_measures_the_same_examples_again(tmp_path):
    def noisy(items):
        x, y = torch.utils.data.default_collate(items)
        return x + torch.randn(x.shape), y

    def fit(epochs, seed, ckpt=None):
        seed_all(seed)
        trainer = make_trainer(tmp_path, [Sharpness(draws=2, steps=2, on_error="raise")], max_epochs=epochs)
        trainer.fit(Plain(), loader(collate_fn=noisy), ckpt_path=ckpt)
        return trainer

    first = fit(1, 0)
    first.save_checkpoint(tmp_path / "last.ckpt")
    fit(2, 1, tmp_path / "last.ckpt")
    assert run_of(first).dataset("sharpness")["step"].values.tolist() == [3, 6]


def test_weights_are_those_of_the_step(tmp_path):
    first, checkpoint = interrupted(tmp_path, [SWATrajectory()])
    resumed = train(tmp_path, 3, [SWATrajectory()], checkpoint)
    np.testing.assert_array_equal(run_of(first).weights(9), flat(resumed.lightning_module))
