"""The first batches of a training are kept aside: copies, until there are enough."""

from __future__ import annotations

import torch

from landscape.callbacks._passing import PassingBatches


def batch(size, value=0.0):
    return torch.full((size, 2), value), torch.zeros(size, dtype=torch.int64)


def offered(wish, sizes):
    passing = PassingBatches()
    passing.want(wish)
    for number, size in enumerate(sizes):
        passing.offer(batch(size, number), number)
    return passing


def test_nothing_is_kept_unless_it_is_wanted():
    passing = PassingBatches()
    passing.offer(batch(4), 0)
    assert (passing.examples, passing.waiting, passing.first(4)) == (0, False, None)


def test_until_there_are_enough():
    passing = offered(10, [4, 4, 4, 4])
    assert passing.examples == 12
    assert [len(x) for x, _ in passing.first(10)] == [4, 4, 4]
    assert [len(x) for x, _ in passing.first(3)] == [4]
    assert not passing.waiting


def test_until_the_first_epoch_ends():
    passing = offered(10, [4])
    assert passing.first(10) is None
    passing.end()
    assert [len(x) for x, _ in passing.first(10)] == [4]
    passing.offer(batch(4), "later")
    assert passing.examples == 4


def test_an_epoch_without_batches_ends_nothing():
    passing = offered(4, [])
    passing.end()
    assert passing.waiting


def test_a_batch_that_several_callbacks_offer():
    passing = offered(10, [])
    for _ in range(3):
        passing.offer(batch(4), (0, 0))
    assert passing.examples == 4


def test_copies_of_the_types_they_have():
    passing = PassingBatches()
    passing.want(2)
    mine = {"x": torch.ones(2, dtype=torch.float16, requires_grad=True), "name": "kept"}
    passing.offer(mine, 0)
    (kept,) = passing.first(2)
    assert (kept["x"].dtype, kept["x"].requires_grad, kept["name"]) == (torch.float16, False, "kept")
    with torch.no_grad():
        mine["x"].zero_()
    assert kept["x"].tolist() == [1, 1]


def test_a_batch_whose_examples_cannot_be_counted_ends_the_set():
    passing = PassingBatches()
    passing.want(8)
    passing.offer({"scalar": torch.zeros(())}, 0)
    assert not passing.waiting
    assert len(passing.first(8)) == 1


def test_a_step_without_a_batch():
    passing = offered(4, [])
    passing.offer(None, 0)
    assert passing.examples == 0
