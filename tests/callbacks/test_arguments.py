"""Mistakes in arguments are told at once, in a sentence."""

from __future__ import annotations

import pytest

from landscape.callbacks._arguments import at_least, one_of, positive


def test_at_least():
    at_least(2, a=2, b=None, c=3.5)
    with pytest.raises(ValueError, match="b is 1; it must be at least 2"):
        at_least(2, a=2, b=1)


@pytest.mark.parametrize("value", [0, -0.5, float("nan")])
def test_positive(value):
    positive(a=1e-9, b=None)
    with pytest.raises(ValueError, match=f"rho is {value}; it must be a positive number$"):
        positive(rho=value)
    with pytest.raises(ValueError, match="a positive number or None$"):
        positive(examples=value)


def test_one_of():
    one_of(("a", "b"), x="a")
    with pytest.raises(ValueError, match="x is 'c'; it must be 'a' or 'b'"):
        one_of(("a", "b"), x="c")
