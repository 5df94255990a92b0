import json
from pathlib import Path

import h5py
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from landscape.record._attributes import normalise, read_attributes, write_attributes


@pytest.fixture
def group():
    with h5py.File("attributes", "w", driver="core", backing_store=False) as file:
        yield file.create_group("g")


def test_plain_values_stay_plain_and_the_rest_is_named_json(group):
    write_attributes(group, {"text": "é", "n": 3, "x": 0.5, "options": {"lr": [0.1, None]}, "on": True})
    assert group.attrs["text"] == "é"
    assert group.attrs["n"] == 3
    assert group.attrs["x"] == 0.5
    assert json.loads(group.attrs["options"]) == {"lr": [0.1, None]}
    assert group.attrs["on"] == "true"
    assert group.attrs["json_attributes"].tolist() == ["on", "options"]


def test_what_json_does_not_know_becomes_text(group):
    values = {
        "path": Path("a/b"),
        "type": int,
        "set": {3, 1},
        "array": np.arange(2.0),
        "scalar": np.float32(0.5),
        "flag": np.bool_(False),
        "bytes": b"ab",
        "nested": {1: (np.int64(2), Path("c"))},
        "nul": "a\0b",
        "surrogate": "\ud800",
        "huge": 2**64,
    }
    write_attributes(group, values)
    expected = {
        "path": "a/b",
        "type": "<class 'int'>",
        "set": [1, 3],
        "array": [0.0, 1.0],
        "scalar": 0.5,
        "flag": False,
        "bytes": "ab",
        "nested": {"1": [2, "c"]},
        "nul": "a\0b",
        "surrogate": "\ud800",
        "huge": 2**64,
    }
    assert read_attributes(group) == expected
    assert normalise(values) == expected


def test_a_value_may_change_its_kind(group):
    write_attributes(group, {"a": [1], "b": None})
    write_attributes(group, {"a": "plain"})
    assert read_attributes(group) == {"a": "plain", "b": None}
    write_attributes(group, {"b": 1})
    assert read_attributes(group) == {"a": "plain", "b": 1}
    assert "json_attributes" not in group.attrs


def test_long_values_fit(group):
    names = [f"layer.{index}.weight" for index in range(20_000)]
    write_attributes(group, {"names": names})
    assert read_attributes(group)["names"] == names


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@hypothesis.settings(max_examples=40)
@hypothesis.given(value=values)
def test_any_plain_value_reads_back(value):
    with h5py.File("attributes", "w", driver="core", backing_store=False) as file:
        write_attributes(file, {"value": value})
        assert read_attributes(file) == normalise({"value": value}) == {"value": value}
