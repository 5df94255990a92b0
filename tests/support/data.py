"""Kinds that differ in their batches: containers, where the examples stand, and who cuts the batches."""

from __future__ import annotations

import dataclasses
from collections import UserDict
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from landscape_test_support.kind import BATCH, Kind, Learns, N, loader, network, points
from landscape_test_support.losses import Classifier
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import Dataset, IterableDataset, TensorDataset


class Items(Dataset):
    """A list as a dataset."""

    def __init__(self, items: list[Any]):
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def _pairs() -> list[Any]:
    return list(zip(*points(), strict=True))


class Reads(Learns):
    """An LSTM read at its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 2), nn.Linear(2, 3)


class TimeMajor(Reads):
    """Sequences of shape (time, batch, features); the targets say how many examples there are."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        return F.cross_entropy(self.head(self.lstm(x)[0][-1]), y)


class Packed(Reads):
    """Sequences of different lengths, packed."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        packed, y = batch
        return F.cross_entropy(self.head(self.lstm(packed)[1][0][-1]), y)


def time_major() -> Any:
    """Return a loader whose collation stacks sequences along the second dimension."""
    pairs = list(zip(*_sequences(), strict=True))
    return loader(Items(pairs), collate_fn=lambda items: (_stack(items, 0, dim=1), _stack(items, 1)))


def packed() -> Any:
    """Return a loader whose collation packs sequences of different lengths."""
    x, y = _sequences()
    pairs = [(sequence[: 1 + index % 4], label) for index, (sequence, label) in enumerate(zip(x, y, strict=True))]

    def collate(items: list[Any]) -> tuple[PackedSequence, torch.Tensor]:
        return pack_sequence([item[0] for item in items], enforce_sorted=False), _stack(items, 1)

    return loader(Items(pairs), collate_fn=collate)


class Detector(Learns):
    """Detection: a list of images of different sizes and a list of dictionaries of targets."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        images, targets = batch
        scores = self.head(torch.stack([image.mean(dim=(1, 2)) for image in images]))
        return F.cross_entropy(scores, torch.stack([target["label"] for target in targets]))


def images() -> Any:
    """Return a loader of lists."""
    generator = torch.Generator().manual_seed(6)
    items = [
        (torch.randn(3, 4 + index % 3, 5, generator=generator), {"label": torch.tensor(index % 3)})
        for index in range(N)
    ]
    return loader(Items(items), collate_fn=lambda items: tuple(map(list, zip(*items, strict=True))))


class Graph:
    """A batch of graphs, joined into one: node features, edges, the graph of each node, a label for each graph."""

    def __init__(self, x: torch.Tensor, edges: torch.Tensor, graph: torch.Tensor, y: torch.Tensor):
        self.x, self.edges, self.graph, self.y = x, edges, graph, y

    def to(self, *args: Any, **kwargs: Any) -> Graph:
        """Move the tensors; only what is a floating-point tensor changes its type."""
        return Graph(
            *(tensor.to(*args, **kwargs) if tensor.is_floating_point() else tensor for tensor in vars(self).values())
        )


class GraphNet(Learns):
    """One round of messages and a sum over the nodes of each graph."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.others, self.head = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 3)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x = batch.x.to(self.own.weight)
        messages = torch.zeros_like(x).index_add(0, batch.edges[1], x[batch.edges[0]])
        nodes = torch.tanh(self.own(x) + self.others(messages))
        pooled = nodes.new_zeros(len(batch.y), 4).index_add(0, batch.graph, nodes)
        return F.cross_entropy(self.head(pooled), batch.y)


def graphs() -> Any:
    """Return a loader of graphs of 2 to 4 nodes."""
    generator = torch.Generator().manual_seed(8)
    items = []
    for index in range(N):
        nodes = 2 + index % 3
        edges = torch.stack([torch.arange(nodes), torch.arange(nodes).roll(1)])
        items.append((torch.randn(nodes, 3, generator=generator), edges, torch.tensor(index % 3)))

    def collate(items: list[Any]) -> Graph:
        sizes = torch.tensor([len(item[0]) for item in items])
        starts = sizes.cumsum(0) - sizes
        edges = torch.cat([item[1] + start for item, start in zip(items, starts, strict=True)], dim=1)
        graph = torch.arange(len(items)).repeat_interleave(sizes)
        return Graph(torch.cat([item[0] for item in items]), edges, graph, _stack(items, 2))

    return loader(Items(items), collate_fn=collate)


@dataclasses.dataclass
class Fields:
    """A batch as a dataclass."""

    x: torch.Tensor
    y: torch.Tensor


class Encoded(UserDict):
    """A batch as the collators of transformers make it."""

    def to(self, *args: Any, **kwargs: Any) -> Encoded:
        """Move the tensors."""
        return Encoded({key: value.to(*args, **kwargs) for key, value in self.items()})


class ReadsFields(Classifier):
    """Reads a dataclass."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return F.cross_entropy(self.net(batch.x), batch.y)


class ReadsMapping(Classifier):
    """Reads a mapping that is no dict."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return F.cross_entropy(self.net(batch["x"]), batch["y"])


def fields() -> Any:
    """Return a loader of dataclasses."""
    return loader(Items(_pairs()), collate_fn=lambda items: Fields(_stack(items, 0), _stack(items, 1)))


def encoded() -> Any:
    """Return a loader of mappings."""
    return loader(Items(_pairs()), collate_fn=lambda items: Encoded(x=_stack(items, 0), y=_stack(items, 1)))


class Skips(Classifier):
    """Returns None for a batch without a label above 0."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor | None:
        x, y = batch
        known = y >= 0
        return F.cross_entropy(self.net(x)[known], y[known]) if known.any() else None


def unlabelled() -> Any:
    """Return a loader whose second batch, in the dataset's order, has no label."""
    x, y = points()
    y[BATCH : 2 * BATCH] = -1
    return loader(TensorDataset(x, y), shuffle=False)


class Stream(IterableDataset):
    """Items that come one after the other."""

    def __iter__(self) -> Iterator[Any]:
        yield from _pairs()


def stream() -> Any:
    """Return a loader of a stream."""
    return loader(Stream(), shuffle=False, generator=None)


class Triplets:
    """A batch sampler: each batch holds items of all classes, in threes."""

    def __init__(self) -> None:
        labels = points()[1]
        by_class = [torch.nonzero(labels == label).flatten().tolist() for label in range(3)]
        self.threes = list(zip(*by_class, strict=False))

    def __len__(self) -> int:
        return -(-len(self.threes) // 3)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, len(self.threes), 3):
            yield [index for three in self.threes[start : start + 3] for index in three]


class TripletLoss(Learns):
    """A triplet loss over consecutive threes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, _ = batch
        anchor, near, far = self.net(x).unflatten(0, (-1, 3)).unbind(1)
        return F.softplus((anchor - near).pow(2).sum(1) - (anchor - far).pow(2).sum(1)).mean()


def triplets() -> Any:
    """Return a loader with a batch sampler of its own."""
    dataset = TensorDataset(*points())
    return torch.utils.data.DataLoader(dataset, batch_sampler=Triplets())


def _sequences() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(N, 4, 2, generator=torch.Generator().manual_seed(5))
    return x, (x.sum(dim=(1, 2)) > 0).long()


def _stack(items: list[Any], place: int, dim: int = 0) -> torch.Tensor:
    return torch.stack([item[place] for item in items], dim=dim)


def _labels(batch: Any) -> int:
    return len(batch[1])


def _known(batch: Any) -> float:
    return float((batch[1] >= 0).sum())


KINDS = [
    Kind("time-major", "an LSTM over (time, batch, features)", TimeMajor, time_major, count=_labels),
    Kind("packed", "an LSTM over packed sequences", Packed, packed, count=_labels),
    Kind("detection", "lists of images, lists of dictionaries", Detector, images),
    Kind("graphs", "an object of tensors: nodes, edges, labels", GraphNet, graphs, count=lambda batch: len(batch.y)),
    Kind("dataclass", "batches as a dataclass", ReadsFields, fields, count=lambda batch: len(batch.x)),
    Kind(
        "UserDict",
        "batches as collators of transformers make them",
        ReadsMapping,
        encoded,
        count=lambda batch: len(batch["x"]),
    ),
    Kind("skipped batches", "the step returns None for some batches", Skips, unlabelled, share=_known),
    Kind("iterable dataset", "a stream of items", Classifier, stream),
    Kind("batch_sampler", "a triplet loss with its own batch sampler", TripletLoss, triplets, batches=list),
]
