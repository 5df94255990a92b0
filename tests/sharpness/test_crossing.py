"""The search for where an excess crosses zero, on functions whose crossing is known."""

from __future__ import annotations

import math

import pytest

from landscape.sharpness._crossing import crossing


@pytest.mark.parametrize("exact", [3e-5, 0.7, 1.0, 4e4])
@pytest.mark.parametrize("power", [1, 2, 5])
def test_powers(exact, power):
    sizes = []

    def excess(size):
        sizes.append(size)
        return (size / exact) ** power - 1

    found = crossing(excess, 1.0, 0.01)
    assert found.inner <= exact <= found.outer <= 1.01 * found.inner
    assert found.at == pytest.approx(exact, rel=1e-4)
    assert len(set(sizes)) < 30


def test_a_step_is_bracketed():
    found = crossing(lambda size: -0.5 if size <= 0.3 else 0.5, 1.0, 0.01)
    assert found.inner <= 0.3 < found.outer


def test_an_excess_that_is_no_number_counts_as_beyond():
    for beyond in (math.nan, math.inf):
        found = crossing(lambda size, beyond=beyond: -1.0 if size <= 0.3 else beyond, 1.0, 0.01)
        assert found.at == found.inner <= 0.3 < found.outer


def test_no_crossing():
    assert crossing(lambda size: -1.0, 1.0, 0.01).at == math.inf
    assert crossing(lambda size: 1.0, 1.0, 0.01).at == 0.0
    assert math.isnan(crossing(lambda size: 1.0, 1.0, 0.01).inner)
