from __future__ import annotations

import math

import pytest
import torch

from landscape._differences import Ladder, compare, largest_error

LADDER = Ladder((1e-7, 1e-6, 1e-5), 1e-4, 1e-3, torch.finfo(torch.float64).eps)


def quotient(function, at=0.3):
    at = torch.tensor(at, dtype=torch.float64)
    return lambda step: (function(at + step) - function(at - step)) / (2 * step)


def test_a_right_derivative_is_confirmed_by_one_step():
    found = compare(quotient(torch.sin), torch.tensor(0.3).double().cos(), LADDER, 1.0)
    assert found.agrees is True
    assert found.steps == (1e-7,)
    assert found.error < 1e-7


def test_a_wrong_derivative_is_contradicted_by_two_steps():
    found = compare(quotient(torch.sin), 1.01 * torch.tensor(0.3).double().cos(), LADDER, 1.0)
    assert found.agrees is False
    assert found.steps == (1e-7, 1e-6)
    assert found.error == pytest.approx(0.01 / 1.01, rel=1e-4)


def test_a_derivative_that_is_a_little_off_is_neither():
    found = compare(quotient(torch.sin), 1.0005 * torch.tensor(0.3).double().cos(), LADDER, 1.0)
    assert found.agrees is None


def test_a_jump_does_not_contradict():
    # The steps from 1e-6 on cross it, so its share of a quotient changes with the step.
    jumping = lambda x: x + (x > 0.3 + 5e-7) * 0.1  # noqa: E731
    assert compare(quotient(jumping), torch.tensor(2.0).double(), LADDER, 1.0).agrees is None
    assert compare(quotient(jumping), torch.tensor(1.0).double(), LADDER, 1.0).agrees is True


def test_rounding_does_not_contradict():
    # A slope of 1e-9 beside a value of 1e6: the quotients are zero, or multiples of a rounding unit over the step.
    offset = lambda x: 1e6 + 1e-9 * x  # noqa: E731
    assert compare(quotient(offset), torch.tensor(1e-9).double(), LADDER, 1e6).agrees is None
    single = lambda x: torch.sin(x.float()).double()  # noqa: E731
    assert compare(quotient(single), torch.tensor(0.3).double().cos(), LADDER, 1.0).agrees is not False


def test_what_is_no_number_does_not_contradict():
    found = compare(quotient(lambda x: x * math.nan), torch.tensor(1.0).double(), LADDER, 1.0)
    assert found.agrees is None
    assert math.isnan(largest_error([found]))


def test_a_flat_function_contradicts_a_slope():
    assert compare(quotient(torch.round), torch.tensor(1.0).double(), LADDER, 1.0).agrees is False


def test_vectors_are_compared_by_their_norm():
    at = torch.tensor([1.0, 2.0], dtype=torch.float64)
    forward = lambda step: ((at + step) ** 2 - at**2) / step  # noqa: E731
    assert compare(forward, 2 * at, LADDER, 1.0).agrees is True
    wrong = compare(forward, torch.tensor([2.0, 0.0]).double(), LADDER, 1.0)
    assert wrong.agrees is False
    assert wrong.error == pytest.approx(4 / 20**0.5, rel=1e-5)
