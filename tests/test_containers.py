"""Batches of any structure are opened and rebuilt in their own kind."""

from __future__ import annotations

import collections
import dataclasses
import types

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from landscape._containers import holds_tensors, leaves, mapped, opened


class Encoding(collections.UserDict):
    """What Hugging Face's collators return derives from UserDict."""


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: torch.Tensor
    length: int


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x


class Data:
    """A graph batch: an object with a store that holds a mapping."""

    def __init__(self, **tensors):
        self._store = types.SimpleNamespace(mapping=tensors)


Pair = collections.namedtuple("Pair", ["a", "b"])  # noqa: PYI024

ONE = torch.ones(2)
STRUCTURES = {
    "tuple": ((ONE, 3), lambda b: b[0]),
    "list": ([ONE, "a"], lambda b: b[0]),
    "dict": ({"x": ONE, "n": None}, lambda b: b["x"]),
    "ordered dict": (collections.OrderedDict(x=ONE), lambda b: b["x"]),
    "default dict": (collections.defaultdict(list, x=ONE), lambda b: b["x"]),
    "user dict": (Encoding(x=ONE, text="a"), lambda b: b["x"]),
    "read-only mapping": (types.MappingProxyType({"x": ONE}), lambda b: b["x"]),
    "named tuple": (Pair(ONE, 1), lambda b: b.a),
    "deque": (collections.deque([ONE]), lambda b: b[0]),
    "frozen dataclass": (Frozen(ONE, 2), lambda b: b.x),
    "slots": (Slotted(ONE), lambda b: b.x),
    "object": (types.SimpleNamespace(x=ONE), lambda b: b.x),
    "store in an object": (Data(x=ONE), lambda b: b._store.mapping["x"]),
    "nested": ([{"x": (Frozen(ONE, 2),)}], lambda b: b[0]["x"][0].x),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures_keep_their_kind(name):
    batch, read = STRUCTURES[name]
    other = mapped(lambda leaf: leaf * 3 if isinstance(leaf, torch.Tensor) else leaf, batch)
    assert type(other) is type(batch)
    assert torch.equal(read(other), 3 * ONE)
    assert torch.equal(read(batch), ONE)  # nothing is changed in place
    assert any(leaf is read(batch) for leaf in leaves(batch))
    assert holds_tensors(batch)


def test_leaves_stand_in_order_and_whatever_cannot_be_opened_is_one():
    kept = object()
    assert leaves([1, {"a": "b", "c": [None, kept]}]) == [1, "b", None, kept]
    assert opened(torch.nn.Linear(2, 2)) is None  # a module is not data
    assert opened(object()) is None
    assert not holds_tensors([1, "a", {"b": kept}])


def test_packed_sequences_are_rebuilt_with_other_data():
    packed = pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])
    other = mapped(lambda leaf: leaf.double() * 2 if leaf.is_floating_point() else leaf, packed)
    assert other.data.dtype == torch.float64
    assert torch.equal(other.data, 2 * packed.data.double())
    assert torch.equal(other.batch_sizes, packed.batch_sizes)
    assert len(leaves(packed)) == 4


def test_an_object_that_refers_to_itself_is_opened_once_a_level():
    batch = types.SimpleNamespace(x=ONE)
    batch.me = types.SimpleNamespace(parent=None, x=ONE)
    assert torch.equal(mapped(lambda leaf: leaf, batch).me.x, ONE)
