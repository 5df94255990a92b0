"""A run file that cannot be written, or not any more: the training goes on, and ends without an error."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from landscape_test_trainings import Plain, assert_identical, everything, fit_warned, loader, make_trainer, warned

from landscape import LandscapeError, open_run
from landscape.callbacks import Sharpness


@pytest.mark.parametrize("log", [False, True])
def test_a_path_that_cannot_be_written(tmp_path, log):
    (tmp_path / "file").write_text("not a folder")
    callbacks = everything(path=tmp_path / "file" / "run.h5", log=log)
    _, without, _ = fit_warned(tmp_path / "without", Plain, [])
    trainer, with_them, messages = fit_warned(tmp_path / "with", Plain, callbacks)
    assert_identical(without, with_them)
    assert sorted(message.partition(" ")[0] for message in messages) == sorted(type(c).__name__ for c in callbacks)
    assert all("run.h5" in message and "The training goes on" in message for message in messages)
    assert not [name for name in trainer.callback_metrics if name.startswith("landscape/")]  # nobody monitors one


def test_a_file_that_disappears_in_the_middle(tmp_path):
    class Removes(Plain):
        def on_train_epoch_start(self):
            if self.current_epoch == 1:
                (tmp_path / "run.h5").unlink()

    said = "landscape: .*run.h5 was deleted or moved away.* 1 row of sharpness .* Later rows are recorded in .*run.h5"
    with pytest.warns(UserWarning, match=said):
        make_trainer(tmp_path, [Sharpness(path=tmp_path / "run.h5")]).fit(Removes(), loader())
    assert open_run(tmp_path / "run.h5").dataset("sharpness")["step"].values.tolist() == [6]


def test_what_is_no_run_at_the_path_is_kept(tmp_path):
    path = tmp_path / "run.h5"
    path.write_text("a thesis")
    _, _, messages = fit_warned(tmp_path, Plain, [Sharpness(path=path)])
    assert messages == []
    assert (tmp_path / "run.1.h5").read_text() == "a thesis"
    assert open_run(path).groups == ["sharpness"]


def test_raising_where_the_path_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(LandscapeError, match="cannot"):
        fit_warned(tmp_path, Plain, [Sharpness(on_error="raise", path=tmp_path / "file" / "run.h5")])


@pytest.mark.parametrize("on_error", ["warn", "raise"])
@pytest.mark.parametrize("strict", [False, True])
def test_nothing_is_raised_while_the_training_ends(tmp_path, on_error, strict):
    class Fails(Plain):
        def on_train_end(self):
            callback = self.trainer.callbacks[0]
            callback._session.recorder.close = self.broken

        @staticmethod
        def broken():
            raise OSError("disk full")

    trainer = make_trainer(tmp_path, [Sharpness(on_error=on_error)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error" if strict else "always", UserWarning)
        trainer.fit(Fails(), loader())
        trainer.callbacks[0].on_exception(trainer, None, KeyboardInterrupt())
        trainer.callbacks[0].teardown(trainer, None, "fit")
    assert warned(caught) == ([] if strict else ["Sharpness could not write the last rows: OSError: disk full"])


def test_a_missing_folder_is_made(tmp_path):
    path = Path("deep") / "down" / "run.h5"
    trainer, _, messages = fit_warned(tmp_path, Plain, [Sharpness(path=path)])
    assert messages == []
    assert open_run(tmp_path / path).groups == ["sharpness"]
    assert trainer.callbacks[0].state_dict()["path"] == path.as_posix()
