from __future__ import annotations

import pytest
import torch
from torch import nn

from landscape._parameters import measuring_dtype, trainable


def test_tied_parameters_stand_once_and_frozen_ones_not_at_all(cases):
    names = [name for name, _ in trainable(cases.Words())]
    assert sorted(names) == ["embedding.weight", "hidden.bias", "hidden.weight", "unused"]


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ([torch.bfloat16], torch.float32),
        ([torch.float16, torch.float32], torch.float32),
        ([torch.float32, torch.float64], torch.float64),
    ],
)
def test_the_measuring_type_is_the_widest(types, expected):
    assert measuring_dtype([nn.Parameter(torch.zeros(1, dtype=t)) for t in types]) == expected
