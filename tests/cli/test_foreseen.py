"""What no check foresaw becomes a sentence about the files."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from landscape import FileError
from landscape.cli._foreseen import of_files


def test_an_error_that_nobody_foresaw_names_the_file_and_the_reason():
    with pytest.raises(FileError, match=r"a.h5 holds .* \(KeyError: 'x'\)"), of_files([Path("a.h5")]):
        raise KeyError("x")
    both = [Path("a.h5"), Path("b.h5")]
    with pytest.raises(FileError, match=r"One of 2 files, a.h5 the first, holds"), of_files(both):
        raise ValueError("y" * 1000)


@pytest.mark.parametrize("error", [FileError("known"), click.UsageError("known"), OSError("known")])
def test_errors_with_a_sentence_of_their_own_pass(error):
    with pytest.raises(type(error)) as caught, of_files([Path("a.h5")]):
        raise error
    assert caught.value is error


def test_the_traceback_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("LANDSCAPE_TRACEBACK", "1")
    with pytest.raises(KeyError), of_files([Path("a.h5")]):
        raise KeyError("x")
