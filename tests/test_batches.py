from __future__ import annotations

import types

import pytest
import torch

from landscape import MeasurementError, _batches

CPU = torch.device("cpu")


def test_examples_are_counted_in_nested_batches():
    assert _batches.n_examples((torch.zeros(5, 2), torch.zeros(5))) == 5
    assert _batches.n_examples({"name": "a", "inputs": [torch.tensor(1.0), torch.zeros(7)]}) == 7
    assert _batches.n_examples(types.SimpleNamespace(num_graphs=3)) == 3
    assert _batches.n_examples((torch.zeros(0, 2),)) == 0
    with pytest.raises(MeasurementError, match="no tensor with a batch dimension.*give batches"):
        _batches.n_examples({"a": 1.0, "b": torch.tensor(2.0)})


def test_cast_copies_and_converts_floating_point_only():
    batch = {"x": torch.ones(2), "y": torch.ones(2, dtype=torch.int64), "flag": torch.ones(2, dtype=torch.bool), "n": 3}
    out = _batches.cast(batch, CPU, torch.float64)
    assert [out[key].dtype for key in ("x", "y", "flag")] == [torch.float64, torch.int64, torch.bool]
    same = _batches.cast(batch, CPU, torch.float32)
    assert same["x"].data_ptr() != batch["x"].data_ptr()
    assert out["n"] == 3


def test_fresh_copies_containers_and_tensors():
    batch = {"x": torch.ones(2), "nested": [torch.zeros(1)]}
    out = _batches.fresh(batch)
    out["x"].add_(1)
    out["nested"].append(1)
    out.pop("x")
    assert batch["x"].tolist() == [1, 1]
    assert len(batch["nested"]) == 1


def test_split_cuts_every_tensor_and_keeps_the_rest():
    pieces = list(
        _batches.split({"x": torch.arange(5), "y": torch.arange(10).view(5, 2), "scalar": torch.tensor(1)}, 2)
    )
    assert [piece["x"].tolist() for piece in pieces] == [[0, 1], [2, 3], [4]]
    assert [piece["y"].shape for piece in pieces] == [(2, 2), (2, 2), (1, 2)]
    assert all(piece["scalar"] == 1 for piece in pieces)
    with pytest.raises(MeasurementError, match=r"holds a tensor of shape \(3,\).*group=None"):
        list(_batches.split((torch.zeros(5), torch.zeros(3)), 2))


def test_fingerprint_sees_values_shapes_types_and_order():
    x = torch.arange(6, dtype=torch.float32)
    prints = {
        _batches.fingerprint(batches)
        for batches in (
            [(x,)],
            [(x.view(2, 3),)],
            [(x.double(),)],
            [(x + 1e-6,)],
            [(x[:3],), (x[3:],)],
            [(x[3:],), (x[:3],)],
            [(x, "a")],
            [(x.bfloat16(),)],
            [(x > 1,)],
            [(x[:0],)],
        )
    }
    assert len(prints) == 10
    assert _batches.fingerprint([(x.clone(),)]) == _batches.fingerprint([(x,)])
    assert len(_batches.fingerprint([(x,)])) == 64
