from __future__ import annotations

import math

import pytest
import torch

from landscape import MeasurementError, _memory
from landscape._memory import budget_bytes, fits, free_bytes
from landscape.curvature._operator import Diagonal

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        (1000, 1000),
        (1.5e9, 1500000000),
        ("8GB", 8 * 10**9),
        ("8 gb", 8 * 10**9),
        ("500 MiB", 500 * 2**20),
        ("1.5G", 1500000000),
        (".5 TB", 5 * 10**11),
        ("123", 123),
        ("64B", 64),
    ],
)
def test_bytes_and_texts(given, expected):
    assert budget_bytes(given, CPU) == expected


@pytest.mark.parametrize("given", ["much", "8 GB free", "-1GB", 0, -5, math.nan, math.inf, True, [1], "", "GB"])
def test_what_is_no_budget_is_refused(given):
    with pytest.raises(ValueError, match="give bytes as a number above 0, a text such as '8GB', or 'auto'"):
        budget_bytes(given, CPU)


def test_auto_is_what_is_free_less_a_margin(monkeypatch):
    monkeypatch.setattr(_memory, "_available", lambda: 10 * 2**30)
    assert budget_bytes("auto", CPU) == 9 * 2**30
    monkeypatch.setattr(_memory, "_available", lambda: 2**30)
    assert budget_bytes("auto", CPU) == 2**30 - 2**28
    monkeypatch.setattr(_memory, "_available", lambda: 2**20)
    assert budget_bytes("auto", CPU) == 0


def test_this_machine_tells_what_is_free():
    assert 2**20 < free_bytes(CPU) < 2**50


def test_a_device_that_does_not_tell_needs_bytes():
    with pytest.raises(MeasurementError, match="the free memory of the device meta is not known here"):
        budget_bytes("auto", torch.device("meta"))
    assert budget_bytes("1GB", torch.device("meta")) == 10**9


def test_vectors_that_fit():
    operator = Diagonal(torch.ones(1000, dtype=torch.float64))
    assert fits(None, operator) == math.inf
    assert fits(8000 * 3 + 7999, operator) == 3
    assert fits("7999", operator) == 0
