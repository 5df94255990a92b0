from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape._layout import ParameterLayout

LAYOUT = ParameterLayout(("a", "b", "scalar"), ((2, 3), (4,), ()))


def test_sizes_offsets_and_slices():
    assert LAYOUT.sizes == (6, 4, 1)
    assert LAYOUT.offsets == (0, 6, 10, 11)
    assert LAYOUT.total == 11
    assert LAYOUT.slices() == [slice(0, 6), slice(6, 10), slice(10, 11)]
    assert ParameterLayout((), ()).total == 0


@pytest.mark.parametrize("make", [np.arange, torch.arange])
def test_unflatten_gives_views(make):
    vector = make(11)
    parts = LAYOUT.unflatten(vector)
    assert [tuple(part.shape) for part in parts] == [(2, 3), (4,), ()]
    parts[1][0] = 100
    assert vector[6] == 100
    assert set(LAYOUT.named(vector)) == {"a", "b", "scalar"}
    with pytest.raises(ValueError, match=r"expected a vector of shape \(11,\), found \(10,\)"):
        LAYOUT.unflatten(vector[:10])


def test_layout_of_tensors():
    assert ParameterLayout.of([("w", torch.zeros(2, 3)), ("s", torch.zeros(()))]) == ParameterLayout(
        ("w", "s"), ((2, 3), ())
    )
