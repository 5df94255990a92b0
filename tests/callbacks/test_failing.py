"""One warning for all failures of a callback."""

from __future__ import annotations

import warnings

import pytest

from landscape import MeasurementError
from landscape.callbacks._failing import Failures, sentence


def test_one_warning():
    failures = Failures("Mine", raising=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(3):
            with failures.passing("do it"):
                raise OSError(f"number {number}")
    assert [str(w.message) for w in caught] == ["Mine could not do it: OSError: number 0. The training goes on"]
    failures.renew()
    with pytest.warns(UserWarning, match="Mine could not end: OSError"), failures.ending("end"):
        raise OSError


def test_raising():
    failures = Failures("Mine", raising=True)
    with pytest.raises(OSError, match="no"), failures.passing("do it"):
        raise OSError("no")
    with pytest.warns(UserWarning, match="Mine could not end"), failures.ending("end"):
        raise OSError("no")


def test_an_interrupt_always_passes():
    failures = Failures("Mine", raising=False)
    for context in (failures.passing, failures.ending):
        with pytest.raises(KeyboardInterrupt), context("do it"):
            raise KeyboardInterrupt


def test_sentences():
    assert sentence(MeasurementError("too\n  large")) == "too large"
    assert sentence(KeyError("name")) == "KeyError: 'name'"
    assert sentence(ValueError()) == "ValueError: no message"
