import fcntl

import h5py
import pytest

from landscape.record import _locks
from landscape.record._locks import locked


def test_locks_are_those_of_hdf5(file_recorder):
    path = file_recorder.path
    with h5py.File(path, "r"):
        with pytest.raises(BlockingIOError), locked(path, shared=False):
            pass
        with locked(path, shared=True):
            pass
    with h5py.File(path, "r+"), pytest.raises(BlockingIOError), locked(path, shared=True):
        pass
    with locked(path, shared=False), pytest.raises(BlockingIOError):
        h5py.File(path, "r")
    with locked(path, shared=False) as file:
        assert file.read(4) == b"\x89HDF"


def test_lock_ends_with_the_block(file_recorder):
    with pytest.raises(ZeroDivisionError), locked(file_recorder.path, shared=False):
        raise ZeroDivisionError
    with h5py.File(file_recorder.path, "r+"):
        pass


def test_no_lock_where_hdf5_takes_none(file_recorder, monkeypatch):
    with h5py.File(file_recorder.path, "r"):
        monkeypatch.setenv("HDF5_USE_FILE_LOCKING", "FALSE")
        with locked(file_recorder.path, shared=False):
            pass
        monkeypatch.delenv("HDF5_USE_FILE_LOCKING")
        monkeypatch.setattr(_locks, "fcntl", None)
        with locked(file_recorder.path, shared=False):
            pass


def test_file_systems_without_locks(file_recorder, monkeypatch):
    def refuse(error):
        def flock(*_):
            raise OSError(error, "refused")

        return flock

    monkeypatch.setattr(fcntl, "flock", refuse(_locks.errno.ENOLCK))
    with locked(file_recorder.path, shared=False):
        pass
    monkeypatch.setattr(fcntl, "flock", refuse(_locks.errno.EIO))
    with pytest.raises(OSError, match="refused"), locked(file_recorder.path, shared=False):
        pass
