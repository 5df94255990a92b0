from __future__ import annotations

import pytest
import torch
from torch import nn

from landscape._parameters import MeasuredTensors, measuring_dtype, trainable


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


def test_tensors_are_added_to_a_flat_vector_also_one_by_one(monkeypatch):
    tensors = MeasuredTensors(nn.Linear(3, 2), None)
    parts = [torch.arange(6.0).reshape(2, 3), torch.tensor([7.0, 8.0])]
    together, one_by_one = torch.ones(8), torch.ones(8)
    tensors.add(together, parts)
    monkeypatch.setattr("landscape._parameters._LARGE", 1)
    tensors.add(one_by_one, parts)
    assert together.tolist() == one_by_one.tolist() == [1, 2, 3, 4, 5, 6, 8, 9]
