"""One training writes a file: another one is told, at once on this machine, and after silence on another."""

import os

import pytest

from landscape._errors import OtherWriterError
from landscape.record import GroupSchema, Recorder, Variable, _lease, open_run
from landscape.record._lease import Lease
from landscape.record._life import write_in_place
from landscape.record._numbering import claim, keep_former

GROUP = GroupSchema("g", "a group", [Variable("x")])


def recorded(path, steps):
    recorder = Recorder.create(path, {"model": "Net"})
    recorder.declare(GROUP)
    for step in steps:
        assert recorder.append("g", {"step": step, "x": step})
    return recorder


def steps_of(path):
    return open_run(path).dataset("g")["step"].values.tolist()


def told_in_child(forked, work):
    """Whether another process is told that somebody else writes the file."""

    def attempt():
        try:
            work()
        except OtherWriterError:
            os._exit(7)

    return os.waitstatus_to_exitcode(os.waitpid(forked(attempt), 0)[1]) == 7


def test_another_process_is_told_until_the_file_is_closed(forked, tmp_path):
    path = tmp_path / "run.h5"
    recorder = recorded(path, [1, 2])
    run_id = recorder.run_id
    assert told_in_child(forked, lambda: Recorder.resume(path, run_id, 1))
    assert steps_of(path) == [1, 2]
    recorder.close()
    assert [item.name for item in tmp_path.iterdir()] == ["run.h5"]
    assert not told_in_child(forked, lambda: Recorder.resume(path, run_id, 1))
    assert steps_of(path) == [1]


def test_a_writer_whose_file_was_taken_goes_on_in_a_numbered_one(tmp_path):
    path = tmp_path / "run.h5"
    first = recorded(path, [1, 2])
    second = Recorder.resume(path, first.run_id, 1)
    assert second.append("g", {"step": 5, "x": 5})
    with pytest.warns(UserWarning, match=r"written by another training.* It held 2 rows of g .*run\.1\.h5"):
        assert first.append("g", {"step": 3, "x": 3})
    assert second.append("g", {"step": 6, "x": 6})
    assert (first.path.name, first.moves, second.moves) == ("run.1.h5", 1, 0)
    assert (steps_of(path), steps_of(first.path)) == ([1, 5, 6], [3])


def test_a_file_that_was_exchanged_is_left_alone(tmp_path):
    recorder = recorded(tmp_path / "run.h5", [1])
    recorded(tmp_path / "other.h5", [1]).close()
    os.replace(tmp_path / "other.h5", tmp_path / "run.h5")
    before = (tmp_path / "run.h5").read_bytes()
    with pytest.warns(UserWarning, match="exchanged for another file"):
        recorder.append("g", {"step": 2, "x": 2})
    assert (tmp_path / "run.h5").read_bytes() == before
    assert steps_of(tmp_path / "run.1.h5") == [2]


@pytest.mark.parametrize("sign", [False, True])
def test_a_writer_on_another_machine_is_waited_for(tmp_path, monkeypatch, sign):
    path = tmp_path / "run.h5"
    recorder = recorded(path, [1])
    recorder.close()
    with recorder._file._changed() as file:
        write_in_place(file, {"state": "running", "writer": "f" * 32})
    monkeypatch.setattr(_lease, "_SILENCE", 0.3)
    monkeypatch.setattr(_lease, "_PAUSE", 0.02)

    def beat(seconds):
        if sign:
            with recorder._file._changed() as file:
                write_in_place(file, {"last_sign_of_life": "later"})

    monkeypatch.setattr(_lease.time, "sleep", beat)
    if sign:
        with pytest.raises(OtherWriterError, match="is being written by another training"):
            Lease.take(path)
    else:
        assert Lease.take(path).held


def test_numbered_names(tmp_path):
    path = tmp_path / "run.h5"
    lease = claim(path)
    other = claim(path)
    assert (lease.path.name, other.path.name) == ("run.h5", "run.1.h5")
    lease.release()
    other.release()
    path.write_text("a former run")
    assert claim(path).path.name == "run.1.h5"
    lease = claim(path, replaces=True)
    assert lease.path == path
    keep_former(path)
    assert (tmp_path / "run.1.h5").read_text() == "a former run"


def test_the_state_of_a_run(tmp_path):
    path = tmp_path / "run.h5"
    recorder = recorded(path, [1])
    assert open_run(path).attributes["state"] == "running"
    recorder.ends("failed", "ZeroDivisionError: 1 / 0")
    recorder.close()
    found = open_run(path).attributes
    assert (found["state"], found["state_reason"]) == ("failed", "ZeroDivisionError: 1 / 0")
    recorder.close()
    assert open_run(path).attributes["state"] == "failed"  # the first counts
    recorder.append("g", {"step": 2, "x": 2})
    assert open_run(path).attributes["state"] == "running"
    recorder.close()
    assert open_run(path).attributes["state"] == "finished"
