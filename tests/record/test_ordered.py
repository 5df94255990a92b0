"""A kill after any write of an append: the file is whole each time. All writes are tried, not a sample of them."""

import contextlib
import errno
import io
import re

import h5py
import numpy as np
import pytest

from landscape.record import Coordinate, GroupSchema, Recorder, Variable, open_run
from landscape.record import _append as append_module
from landscape.record import _ordered as ordered_module
from landscape.record._append import append_row
from landscape.record._ordered import ALIGNMENT, OrderedFile
from landscape.record._rows import check_row

PAGE = 4096
N = 1030  # a row of so many is large enough for a chunk of its own
WIDE = GroupSchema(
    "wide",
    "a group whose second variable has a chunk of its own for each row",
    [Variable("x"), Variable("row", ("i",), "f8")],
    [Coordinate("i", N)],
)


class Spy(io.FileIO):
    """A file that notes what is written to it."""

    log: list

    def write(self, data):
        self.log.append((self.tell(), bytes(data)))
        return super().write(data)

    def truncate(self, size=None):
        self.log.append((size, None))
        return super().truncate(size)


def row_at(step):
    return check_row(WIDE, {"step": step, "x": step / 3, "row": np.full(N, float(step))}, None)


def append(path, step):
    append_row(path, "wide", row_at(step))


def fill(path, start, stop):
    """Write rows at once, into the places where as many appends would have put them."""
    rows = [row_at(step) for step in range(start, stop)]
    with h5py.File(path, "r+", **ALIGNMENT) as file:
        for name in rows[0] if rows else ():
            file["wide"][name].resize(stop, axis=0)
            file["wide"][name][start:] = np.stack([row[name] for row in rows])


def watched_append(path, step, monkeypatch):
    """Append a row and return what was written, in order, in pieces that the kernel does not tear."""
    log = []

    @contextlib.contextmanager
    def spied(path, shared):
        with Spy(path, "r+") as file:
            file.log = log
            yield file

    with monkeypatch.context() as patch:
        patch.setattr(append_module, "locked", spied)
        append(path, step)
    pieces = []
    for offset, data in log:
        if data is None:
            pieces.append((offset, None))
            continue
        start = 0
        while start < len(data):
            stop = min(len(data), PAGE * ((offset + start) // PAGE + 1) - offset)
            pieces.append((offset + start, data[start:stop]))
            start = stop
    return pieces


def states(before, pieces):
    """Every state of the file that a kill can leave."""
    image = bytearray(before)
    for offset, data in pieces:
        if data is None:
            image[offset:] = b""
            image.extend(bytes(offset - len(image)))
        else:
            image.extend(bytes(max(0, offset + len(data) - len(image))))
            image[offset : offset + len(data)] = data
        yield bytes(image)


def check(path, rows):
    """All acknowledged rows are there, the rest can be read too, and the next row can be appended."""
    data = open_run(path).dataset("wide")
    found = data.sizes["step"]
    assert found in (rows, rows + 1)
    expected = np.arange(found)
    np.testing.assert_array_equal(data["step"], expected)
    np.testing.assert_array_equal(data["x"], expected / 3)
    np.testing.assert_array_equal(data["row"], np.repeat(expected[:, None], N, axis=1))
    with h5py.File(path, "r") as file:
        for dataset in file["wide"].values():
            dataset[()]
    append(path, found)
    append(path, found + 1)
    last = open_run(path).dataset("wide").isel(step=slice(found - 1, None))
    np.testing.assert_array_equal(last["row"][:, -1], last["step"])
    np.testing.assert_array_equal(last["x"], last["step"] / 3)


@pytest.fixture
def path(tmp_path):
    recorder = Recorder.create(tmp_path / "landscape.h5", {})
    recorder.declare(WIDE)
    return recorder.path


def kill_everywhere(path, tmp_path, monkeypatch, rows, which):
    checked = filled = 0
    for step in filter(which, range(rows)):
        fill(path, filled, step)
        filled = step + 1
        before = path.read_bytes()
        killed = tmp_path / "killed.h5"
        for state in states(before, watched_append(path, step, monkeypatch)):
            killed.write_bytes(state)
            check(killed, step)
            checked += 1
        assert state == path.read_bytes()
    return checked


# Row 0 makes the first chunks, row 32 a new shared one. 64 chunks fill an index node: row 64 splits the root, row 121 a
# leaf.
@pytest.mark.parametrize(
    "row", [0, pytest.param(32, marks=pytest.mark.slow), 64, pytest.param(121, marks=pytest.mark.slow)]
)
def test_rows_that_change_the_index(path, tmp_path, monkeypatch, row):
    assert kill_everywhere(path, tmp_path, monkeypatch, row + 1, row.__eq__) > 25


def test_a_step_left_by_a_kill_never_labels_the_next_row(path, tmp_path, monkeypatch):
    append(path, 0)
    before = path.read_bytes()
    killed, again = tmp_path / "killed.h5", tmp_path / "again.h5"
    # The last writes of a row are those of its step; one of these kills leaves the step and not the length.
    for state in list(states(before, watched_append(path, 9, monkeypatch)))[-5:]:
        killed.write_bytes(state)
        for later in states(state, watched_append(killed, 50, monkeypatch)):
            again.write_bytes(later)
            data = open_run(again).dataset("wide")
            np.testing.assert_array_equal(data["x"], data["step"] / 3)


@pytest.mark.parametrize("rows", [[0], pytest.param([0, 1, 2, 31, 32, 33, 63, 64, 65], marks=pytest.mark.slow)])
def test_rows_that_go_straight_into_the_file(path, tmp_path, monkeypatch, rows):
    """What is large is written before the commit, as the bytes of its chunk: a kill after any page is harmless.

    The rows are those that change the index (see above) and their neighbours.
    """
    monkeypatch.setattr(append_module, "_LARGE", 4096)
    monkeypatch.setattr(ordered_module, "_LARGE", 4096)
    assert kill_everywhere(path, tmp_path, monkeypatch, rows[-1] + 1, rows.__contains__) > 10 * len(rows)


def test_a_full_disk_leaves_the_file_as_it_was(path, monkeypatch):
    monkeypatch.setattr(append_module, "_LARGE", 4096)
    monkeypatch.setattr(ordered_module, "_LARGE", 4096)
    append(path, 0)
    before = path.read_bytes()

    class Full(io.FileIO):
        def write(self, data):
            if len(data) < 4096:
                return super().write(data)
            super().write(bytes(data)[:1000])
            raise OSError(errno.ENOSPC, "No space left on device")

    @contextlib.contextmanager
    def full(path, shared):
        with Full(path, "r+") as file:
            yield file

    with monkeypatch.context() as patch:
        patch.setattr(append_module, "locked", full)
        with pytest.raises(OSError, match="No space"):
            append(path, 1)
    assert path.read_bytes() == before
    check(path, 1)


@pytest.mark.slow
def test_every_row(path, tmp_path, monkeypatch):
    kill_everywhere(path, tmp_path, monkeypatch, 70, lambda _: True)


@pytest.mark.slow
def test_third_level_of_the_index(path, tmp_path, monkeypatch):
    """A root of 64 leaves splits into parents under a new root: at row 64 + 63 * 57, and a leaf again 57 rows later."""
    kill_everywhere(path, tmp_path, monkeypatch, 3713, (3655, 3712).__contains__)
    levels = {found[0] for found in re.findall(rb"TREE\x01(.)", path.read_bytes(), flags=re.DOTALL)}
    assert levels == {0, 1, 2}


def test_hdf5_by_itself_would_lose_rows(path, tmp_path):
    """Without the order, a kill in the middle loses complete rows, and the check above sees it."""
    fill(path, 0, 64)
    before = path.read_bytes()
    with Spy(path, "r+") as file:
        file.log = log = []
        with h5py.File(file, "r+") as opened:
            row = check_row(WIDE, {"step": 64, "row": np.zeros(N)}, None)
            for name, value in row.items():
                opened["wide"][name].resize(65, axis=0)
                opened["wide"][name][64] = value
    harmed = 0
    killed = tmp_path / "killed.h5"
    for state in states(before, log):
        killed.write_bytes(state)
        try:
            with h5py.File(killed, "r") as opened:
                harmed += bool((opened["wide/row"][:64] != np.arange(64)[:, None]).any())
        except OSError:
            harmed += 1
    assert harmed > 0


def test_what_hdf5_sees_is_the_file_after_the_commit(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(16)))
    with io.FileIO(path, "r+") as raw:
        ordered = OrderedFile(raw)
        for offset, data in [(4, b"aaaa"), (6, b"bbbb"), (2, b"c"), (14, b"dddd"), (5, b"e")]:
            ordered.seek(offset)
            assert ordered.write(memoryview(data)) == len(data)
        assert ordered.tell() == 6
        assert ordered.seek(0, io.SEEK_END) == 18
        buffer = bytearray(30)
        ordered.seek(0)
        assert ordered.readinto(memoryview(buffer)) == 18
        expected = b"\x00\x01c\x03aebbbb\x0a\x0b\x0c\x0ddddd"
        assert bytes(buffer[:18]) == expected
        assert path.read_bytes() == bytes(range(16))
        ordered.commit()
        assert path.read_bytes() == expected
        ordered.truncate(3)
        ordered.commit()
    assert path.read_bytes() == expected[:3]


def test_many_writes_that_overlap_are_one_file(tmp_path):
    path = tmp_path / "file"
    expected = np.random.default_rng(0).bytes(300)
    path.write_bytes(expected)
    expected = bytearray(expected)
    generator = np.random.default_rng(1)
    with io.FileIO(path, "r+") as raw:
        ordered = OrderedFile(raw)
        for number in range(2000):
            start, length = (int(value) for value in generator.integers([330, 40]))
            data = generator.bytes(length)
            if length:
                expected.extend(bytes(max(0, start - len(expected))))
            expected[start : start + length] = data
            ordered.seek(start)
            assert ordered.write(memoryview(data)) == length
            start, length = (int(value) for value in generator.integers([330, 60]))
            buffer = bytearray(length)
            ordered.seek(start)
            read = ordered.readinto(memoryview(buffer))
            assert bytes(buffer[:read]) == expected[start : start + length]
            if number % 500 == 499:
                ordered.commit()
                assert path.read_bytes() == expected
