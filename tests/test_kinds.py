"""Types that a walk through objects passes by, kinds of containers, slots."""

from __future__ import annotations

import collections
import logging
import pathlib
import queue
import random
import threading
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from landscape import _kinds
from landscape._kinds import container_kind, is_passed_by, slots_of
from landscape.isolation import isolated


class Pair(NamedTuple):
    first: int
    second: int


class Base:
    __slots__ = ("left", "right")


class Derived(Base):
    __slots__ = ("own",)

    def right(self):
        """Hides the slot of the base."""


@pytest.mark.parametrize("kind", [int, str, type(None), type, torch.dtype, torch.Size, np.float32, type(torch)])
def test_values_that_cannot_change_are_passed_by(kind):
    assert is_passed_by(kind)


@pytest.mark.parametrize("kind", [queue.Queue, logging.Logger, threading.Thread, type("Trainer", (), {})])
def test_what_runs_on_its_own_is_passed_by(kind):
    assert is_passed_by(kind)
    assert is_passed_by(type("Derived", (kind,), {}))


@pytest.mark.parametrize("kind", [list, dict, object, nn.Linear, torch.Tensor, np.ndarray, random.Random, pathlib.Path])
def test_state_is_not_passed_by(kind):
    assert not is_passed_by(kind)


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (dict, dict),
        (collections.Counter, dict),
        (collections.OrderedDict, collections.OrderedDict),
        (type("Ordered", (collections.OrderedDict,), {}), collections.OrderedDict),
        (list, list),
        (collections.deque, collections.deque),
        (set, set),
        (Pair, tuple),
        (frozenset, None),
        (nn.ModuleList, None),
        (str, None),
    ],
)
def test_the_builtin_kind_of_a_container(kind, builtin):
    assert container_kind(kind) is builtin


def test_slots_of_all_bases_and_none_of_c_classes():
    assert [slot.__name__ for slot in slots_of(Derived)] == ["own", "left", "right"]
    assert slots_of(random.Random) == slots_of(torch.Generator) == ()


def test_types_are_looked_at_once():
    module = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    with isolated(module):
        known = [look.cache_info().misses for look in (is_passed_by, container_kind, slots_of)]
    with isolated(module):
        assert [look.cache_info().misses for look in (is_passed_by, container_kind, slots_of)] == known
    assert all(look.cache_info().hits for look in (_kinds.is_passed_by, _kinds.slots_of))
