"""Copies of samplers and streams share no position with the original."""

from __future__ import annotations

import functools
import logging
import random
import threading

import numpy as np
import pytest
import torch

from landscape.callbacks import _copies
from landscape.callbacks._copies import NotCopied, independent_copy

LOGGER = logging.getLogger(__name__)
GENERATOR = np.random.default_rng(0)
LETTERS = iter("abc")


class Holds:
    def __init__(self, **held):
        vars(self).update(held)


def counter():
    """A function whose closure holds a position."""
    inner = iter(range(9))
    return lambda: next(inner)


def draws():
    return [GENERATOR.normal() for _ in range(2)]


def tells():
    LOGGER.info("nothing that moves")
    return np.random.rand()


class Method:
    def __iter__(self):
        return iter(draws())


class Default:
    def __init__(self):
        self.read = lambda source=LETTERS: next(source)


class Property:
    @property
    def value(self):
        return GENERATOR.normal()


def test_state_is_copied():
    mine = Holds(order=[3, 1, 2], generator=torch.Generator().manual_seed(1), rng=random.Random(2), read=tells)
    copied = independent_copy(mine)
    copied.order.sort()
    copied.rng.random()
    torch.rand(3, generator=copied.generator)
    assert mine.order == [3, 1, 2]
    assert torch.equal(mine.generator.get_state(), torch.Generator().manual_seed(1).get_state())
    assert mine.rng.random() == random.Random(2).random()


def test_iterators_of_known_kinds_are_copied():
    mine = Holds(inner=iter([1, 2, 3]))
    assert list(independent_copy(mine).inner) == list(mine.inner) == [1, 2, 3]


def test_what_is_shared_is_not_copied():
    data = Holds(size=3)
    assert independent_copy(Holds(data=data), [data]).data is data


@pytest.mark.parametrize(
    "held",
    [
        counter(),
        functools.partial(counter()),
        [counter()],
        {"key": (counter(),)},
        draws,
        Method(),
        torch.utils.data.Subset(Method(), [0]),
        Default(),
        Property(),
        staticmethod(counter()),
        (value for value in range(3)),
        threading.Lock(),
    ],
)
def test_positions_that_a_copy_would_share(held):
    with pytest.raises(NotCopied):
        independent_copy(Holds(held=held))


@pytest.mark.parametrize("held", [np.zeros(65), torch.zeros(65, dtype=torch.float64), list(range(9))])
def test_what_is_large_is_not_copied(held, monkeypatch):
    monkeypatch.setattr(_copies, "_LARGEST_COPY", 512)
    with pytest.raises(NotCopied, match="Holds holds more than 0 MiB"):
        independent_copy(Holds(held=held))
    assert independent_copy(Holds(held=held), [held]).held is held


def test_many_objects_are_not_copied():
    with pytest.raises(NotCopied, match="Holds holds a list of 20000 objects"):
        independent_copy(Holds(items=[Holds()] * 20_000))
    batches = [[index, index + 1] for index in range(20_000)]
    copied = independent_copy(Holds(items=batches)).items
    assert copied == batches
    assert copied[0] is not batches[0]
    with pytest.raises(NotCopied, match="more than 256 MiB"):
        independent_copy(Holds(items=[[0] * 500] * 20_000))


def test_a_position_that_is_held_twice():
    inner = iter(range(9))
    with pytest.raises(NotCopied, match="range_iterator"):
        independent_copy(Holds(inner=inner, read=lambda: next(inner)))


def test_the_trainer_is_not_copied():
    with pytest.raises(NotCopied, match="Holds leads to the Trainer"):
        independent_copy(Holds(module=Holds(trainer=type("Trainer", (), {})())))


def test_circles_and_long_lists():
    mine = Holds(names=["name"] * 20_000)
    mine.itself = mine
    copied = independent_copy(mine)
    assert copied.itself is copied
    assert copied.names == mine.names
