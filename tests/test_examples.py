"""What an example is: counted, cut and joined in batches of any structure."""

from __future__ import annotations

import types

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence

from landscape._containers import leaves, mapped
from landscape._examples import outside, readings
from landscape._pieces import join, take


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(shape)


def pictures(count: int, channels: int = 3) -> list[torch.Tensor]:
    return [zeros(channels, 5 + k % 4, 6) for k in range(count)]


BATCHES = {
    "pair": ([(zeros(16, 5), zeros(16))], [16]),
    "input alone": ([(zeros(16, 4),)], [16]),
    "tokens and masks": ([(zeros(12, 9), (zeros(12, 9), zeros(12, 9)))], [12]),
    "one example": ([(zeros(1, 5), zeros(1))], [1]),
    "empty": ([(zeros(0, 5), zeros(0))], [0]),
    "time first": ([(zeros(20, 37, 2), zeros(37))], [37]),
    "time first, hidden state": ([(zeros(20, 37, 2), zeros(2, 37, 8), zeros(37))], [37]),
    "time first, as long as wide": ([(zeros(8, 8, 2), zeros(8)), (zeros(8, 5, 2), zeros(5))], [8, 5]),
    "padded to unlike lengths": ([(zeros(16, 23), zeros(16)), (zeros(16, 31), zeros(16))], [16, 16]),
    "shared grid": ([(zeros(6, 10), zeros(10), zeros(6, 10))], [6]),
    "packed": ([(pack_sequence([zeros(n, 2) for n in (9, 7, 5)]), zeros(3))], [3]),
    "pictures and targets": ([(pictures(8), [{"y": zeros(1)} for _ in range(8)])], [8]),
    "pictures with one channel": ([(pictures(8, 1), [zeros(1) for _ in range(8)])], [8]),
    "pictures in two batches": ([(pictures(n), [{"y": zeros(1)} for _ in range(n)]) for n in (8, 2)], [8, 2]),
    "list of dicts": ([[{"image": image, "box": zeros(2)} for image in pictures(7, 1)]], [7]),
    "two dicts": ([[{"image": image, "box": zeros(2)} for image in pictures(2, 1)]], [2]),
    "list of pairs": ([[(image, torch.tensor(1)) for image in pictures(8, 1)]], [8]),
    "two views of each": ([[[zeros(16, 2), zeros(16, 3)], [zeros(16), zeros(16)]]], [16]),
    "texts beside": ([{"text": ["a"] * 4, "x": zeros(4, 2)}], [4]),
    "declared graphs": ([types.SimpleNamespace(x=zeros(9, 2), edge_index=zeros(2, 20), num_graphs=3)], [3]),
    "declared size": ([types.SimpleNamespace(x=zeros(4, 2), batch_size=torch.Size([4]))], [4]),
    "flattened targets": ([(zeros(4, 5), zeros(20)), (zeros(2, 5), zeros(10))], [4, 2]),
    "flattened targets first": ([{"labels": zeros(20), "tokens": zeros(4, 5)}], [4]),
    "time first, a multiple": ([(zeros(2, 10), zeros(10))], [10]),
    "a scalar beside": ([{"name": "a", "inputs": [torch.tensor(1.0), zeros(7)]}], [7]),
}


@pytest.mark.parametrize("name", BATCHES)
def test_examples_are_counted(name):
    batches, counts = BATCHES[name]
    assert list(readings(batches)[0].counts) == counts


def test_what_the_loader_collated_is_believed():
    # Two sequences of seven steps, time first: without the loader's word the first dimension would count.
    assert readings([(zeros(7, 2), zeros(7, 2))])[0].counts == (7,)
    known = readings([(zeros(7, 2), zeros(7, 2))], [2])[0]
    assert known.counts == (2,)
    assert take((zeros(7, 2), zeros(7, 2)), known.plan, [0])[0].shape == (7, 1)


def test_flattened_tensors_are_cut_in_runs_and_read_whole_by_another_reading():
    batch = (torch.arange(4), torch.arange(12))
    flat, plain = readings([batch])[:2]
    assert flat.flattened
    assert not plain.flattened
    piece = take(batch, flat.plan, [3, 1])
    assert piece[1].tolist() == [9, 10, 11, 3, 4, 5]
    assert join([piece, piece], flat.plan)[1].tolist() == 2 * piece[1].tolist()
    assert outside(batch, plain.plan) == (12,)


CUT = [name for name, (batches, counts) in BATCHES.items() if counts[0] > 2 and "declared graphs" not in name]


@pytest.mark.parametrize("name", CUT)
def test_parts_joined_are_the_whole(name):
    (batch, *_), (count, *_) = BATCHES[name]
    reading = readings(BATCHES[name][0])[0]
    numbered = _numbered(batch)
    parts = [take(numbered, reading.plan, range(2)), take(numbered, reading.plan, range(2, count))]
    whole = join(parts, reading.plan)
    assert type(whole) is type(numbered)
    unpacked = [_unpacked(whole), _unpacked(numbered)]
    assert all(_same(a, b) for a, b in zip(*unpacked, strict=True))
    assert readings([parts[0]], [2])[0].counts == (2,)


def _numbered(batch):
    """The same structure with other numbers everywhere."""
    counter = iter(range(10_000))
    return mapped(lambda leaf: leaf + next(counter) if isinstance(leaf, torch.Tensor) else leaf, batch)


def _unpacked(batch):
    """The leaves; of a packed sequence its sequences, whose order in memory is nobody's business."""
    if isinstance(batch, tuple) and isinstance(batch[0], PackedSequence):
        return [*unpack_sequence(batch[0]), *batch[1:]]
    return leaves(batch)


def _same(a, b):
    return torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a is b or a == b


def test_values_are_those_of_the_chosen_examples():
    y = torch.arange(4)
    batch = {"x": torch.arange(12).view(3, 4), "y": y, "z": y, "grid": torch.arange(3), "names": list("abcd")}
    reading = readings([batch])[0]
    assert reading.counts == (4,)
    piece = take(batch, reading.plan, [3, 1])
    assert piece["x"].tolist() == [[3, 1], [7, 5], [11, 9]]
    assert piece["y"].tolist() == [3, 1]
    assert piece["names"] == ["d", "b"]
    assert piece["grid"].tolist() == [0, 1, 2]
    assert outside(batch, reading.plan) == (3,)
    assert join([piece, piece], reading.plan)["x"].shape == (3, 4)
    with pytest.raises(ValueError, match="differ where they hold no examples"):
        join([piece, piece | {"grid": torch.arange(1, 4)}], reading.plan)


def test_packed_sequences_keep_their_order():
    sequences = [torch.full((n, 1), float(n)) for n in (2, 5, 3)]
    batch = (pack_sequence(sequences, enforce_sorted=False), zeros(3))
    reading = readings([batch])[0]
    piece = take(batch, reading.plan, [0, 2])[0]
    assert [len(sequence) for sequence in unpack_sequence(piece)] == [2, 3]
    whole = join([take(batch, reading.plan, [1]), take(batch, reading.plan, [0])], reading.plan)[0]
    assert [len(sequence) for sequence in unpack_sequence(whole)] == [5, 2]
