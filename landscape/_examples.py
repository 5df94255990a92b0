"""Find how many examples a batch holds, and where they lie in it.

A batch does not say what an example is. Most have the examples along the first dimension of every tensor. Others are
time-major, packed, lists of images, or objects of a library. So all readings of the batches are listed, the likeliest
first, and `_additivity` tests them by evaluating the loss.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from landscape._containers import is_packed, opened
from landscape._errors import MeasurementError

Path: TypeAlias = tuple[int, ...]
# In a plan: the place is a list with one entry an example; below it, -m: a first dimension with m entries an example.
LISTED = -1
# How much a tensor speaks for a number of examples, by the dimension that has this length.
_VOICES = (1.0, 0.4, 0.2)
_RUN_VOICE = 0.3  # of a first dimension that is a multiple of the number


@dataclasses.dataclass(frozen=True)
class Reading:
    """One way to read some batches.

    Attributes:
        counts: Number of examples in each batch.
        plan: Where the examples lie: the dimension of each tensor (by its path in the batch), that a list has one entry
            an example, or how many consecutive entries of a flattened first dimension belong to an example. Tensors
            without an entry belong to the batch as a whole.
        evidence: What speaks for it, in words.
        flattened: Whether the plan takes a first dimension for runs of entries. Such a reading counts only where
            evaluations agree with it.
    """

    counts: tuple[int, ...]
    plan: Mapping[Path, int]
    evidence: str
    flattened: bool = False

    @property
    def lists_examples(self) -> bool:
        """Whether a batch is a list of its examples."""
        return self.plan.get(()) == LISTED


def readings(batches: Sequence[Any], items: Sequence[int] | None = None) -> list[Reading]:
    """List the possible readings of some batches, the likeliest first.

    The number of examples is the number of dataset items that were collated, or else what the batches declare
    (`num_graphs`, `batch_size`), or else the number that most tensors and lists agree on: the first dimension counts
    most, and lists count with all the tensors in them.

    Args:
        batches: The batches.
        items: Number of dataset items in each, where it is known.

    Returns:
        At least one reading.

    Raises:
        MeasurementError: Nothing in a batch can be counted.
    """
    tables = [_Table(batch) for batch in batches]
    if items is not None:
        counts = tuple(items)
        return _with_runs(tables, Reading(counts, _plan(tables, counts), "items of the dataset that were collated"))
    declared = [_declared(batch) for batch in batches]
    if all(count is not None for count in declared):
        counts = tuple(int(count) for count in declared if count is not None)
        return _with_runs(tables, Reading(counts, _plan(tables, counts), "the batches declare it"))
    found = [*_agreed(tables), *_alone(tables)]
    if not found:
        empty = next((b for b, table in zip(batches, tables, strict=True) if not table.sizes), batches[0])
        raise MeasurementError(
            f"a measurement batch of type {type(empty).__name__} holds no tensor with a batch dimension, so its "
            "examples cannot be counted; give batches whose tensors have the examples along their first dimension"
        )
    return found


def outside(batch: Any, plan: Mapping[Path, int]) -> tuple[int, ...] | None:
    """Return the shape of the first tensor with dimensions that holds no examples by the plan; None without one."""
    sizes = _Table(batch).sizes
    return next((shape for path, shape in sizes.items() if not any(path[: len(at)] == at for at in plan)), None)


class _Table:
    """The places of a batch that may tell its number of examples.

    Attributes:
        sizes: Shape of each tensor by its path; of a packed sequence the number of sequences alone.
        lists: Length of each list or tuple by its path, if its entries are alike and may be one example each.
    """

    def __init__(self, batch: Any):
        self.sizes: dict[Path, tuple[int, ...]] = {}
        self.lists: dict[Path, int] = {}
        for path, value in _places(batch):
            if is_packed(value):
                self.sizes[path] = (int(value.batch_sizes[0]),)
            elif isinstance(value, (torch.Tensor, np.ndarray)):
                if value.ndim:
                    self.sizes[path] = tuple(value.shape)
            elif _alike(value, path):
                self.lists[path] = len(value)

    def under(self, place: Path) -> list[Path]:
        """Return the paths of the tensors within a list."""
        return [path for path in self.sizes if path[: len(place)] == place]


def _places(batch: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if is_packed(batch) or isinstance(batch, (torch.Tensor, np.ndarray)):
        yield path, batch
        return
    inside = opened(batch)
    if inside is None:
        return
    if inside.sequence:
        yield path, inside.children
    for i, child in enumerate(inside.children):
        yield from _places(child, (*path, i))


def _alike(entries: Sequence[Any], path: Path) -> bool:
    """Whether the entries of a list may be one example each, and not the inputs and targets of a whole batch."""
    if not entries:
        return False
    if isinstance(entries[0], torch.Tensor):
        kinds = {(type(entry), getattr(entry, "ndim", None), getattr(entry, "dtype", None)) for entry in entries}
        return len(path) > 0 and len(kinds) == 1
    if is_packed(entries[0]):
        return False
    inside = [opened(entry) for entry in entries]
    if all(one is not None and one.sequence and _alike(one.children, (*path, 0)) for one in inside):
        return False  # lists of lists: the inputs of all examples, then their targets
    names = [
        tuple(entry) if isinstance(entry, Mapping) else one and len(one.children)
        for entry, one in zip(entries, inside, strict=True)
    ]
    return len({(type(entry), name) for entry, name in zip(entries, names, strict=True)}) == 1


def _declared(batch: Any) -> int | None:
    if isinstance(batch, torch.Tensor):
        return None
    for name in ("num_graphs", "batch_size"):  # batches of graphs and TensorDicts say it themselves
        value = getattr(batch, name, None)
        if isinstance(value, torch.Size) and value:
            return int(value[0])
        if isinstance(value, int) and not isinstance(value, (bool, torch.Size)):
            return value
    return None


def _agreed(tables: Sequence[_Table]) -> list[Reading]:
    """Rank the numbers that are common to all batches, by how many tensors agree on them."""
    shared = [path for path in tables[0].sizes if all(path in table.sizes for table in tables)]
    candidates: dict[tuple[int, ...], tuple[bool, int]] = {}  # counts -> whether from lists, dimension
    for path in shared:
        for axis in range(min(len(table.sizes[path]) for table in tables)):
            counts = tuple(table.sizes[path][axis] for table in tables)
            candidates.setdefault(counts, (False, axis))
    for path in tables[0].lists:
        if all(path in table.lists for table in tables) and tables[0].under(path):
            candidates.setdefault(tuple(table.lists[path] for table in tables), (True, 0))
    ranked: list[tuple[Any, Reading]] = []
    for order, (counts, (listed, axis)) in enumerate(candidates.items()):
        plan = _plan(tables, counts)
        # Lists of pictures with one channel agree on that 1 as well as on their length.
        trivial = all(count == 1 for count in counts)
        evidence = "length of lists" if listed else "a dimension that the tensors agree on"
        for made in _with_runs(tables, Reading(counts, plan, evidence)):
            voices = sum(_voice(path, made.plan) for path in tables[0].sizes)
            ranked.append(((-voices, trivial, listed, axis, order), made))
    return [reading for _, reading in sorted(ranked, key=lambda pair: pair[0])]


def _alone(tables: Sequence[_Table]) -> list[Reading]:
    """Read every batch by itself, where the batches have different structures."""
    if len(tables) == 1:
        return []
    each = [_agreed([table]) for table in tables]
    if not all(each):
        return []
    best = [found[0] for found in each]
    plan = dict(best[0].plan) if all(one.plan == best[0].plan for one in best) else {}
    return [Reading(tuple(one.counts[0] for one in best), plan, best[0].evidence)]


def _plan(tables: Sequence[_Table], counts: tuple[int, ...]) -> dict[Path, int]:
    """Say where so many examples lie: in lists first, then along the first dimension that fits in every batch."""
    plan: dict[Path, int] = {}
    first = tables[0]
    for path, length in first.lists.items():
        inside = any(path[: len(at)] == at for at in plan)
        lengths = [table.lists.get(path) for table in tables]
        if inside or length != counts[0] or lengths != list(counts):
            continue
        along = [p for p in first.under(path) if _axes(tables, p, counts)]
        # A list of tensors that have the examples along a dimension themselves holds views, not examples.
        if len(along) < len(first.under(path)) or not along:
            plan[path] = LISTED
    for path in first.sizes:
        if not any(path[: len(at)] == at for at in plan):
            axes = _axes(tables, path, counts)
            if axes:
                plan[path] = axes[0]
    return plan


def _with_runs(tables: Sequence[_Table], reading: Reading) -> list[Reading]:
    """Return the reading, and before it the same with flattened tensors, whose first dimension is a multiple."""
    runs = {}
    for path in tables[0].sizes:
        lengths = [table.sizes.get(path, (0,))[0] for table in tables]
        if any(path[: len(at)] == at for at in reading.plan) or min(reading.counts) < 1:
            continue
        run = lengths[0] // reading.counts[0]
        if run > 1 and lengths == [run * count for count in reading.counts] and max(reading.counts) > 1:
            runs[path] = -run
    if not runs:
        return [reading]
    return [Reading(reading.counts, {**reading.plan, **runs}, f"{reading.evidence}, some flattened", True), reading]


def _axes(tables: Sequence[_Table], path: Path, counts: tuple[int, ...]) -> list[int]:
    shapes = [table.sizes.get(path, ()) for table in tables]
    fewest = min(len(shape) for shape in shapes)
    return [a for a in range(fewest) if all(shape[a] == n for shape, n in zip(shapes, counts, strict=True))]


def _voice(path: Path, plan: Mapping[Path, int]) -> float:
    for at, place in plan.items():
        if path[: len(at)] == at:
            if place < LISTED:
                return _RUN_VOICE
            return 1.0 if place == LISTED else _VOICES[min(place, 2)]
    return 0.0
