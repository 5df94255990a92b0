"""Networks of torch_geometric over its own batches of graphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from landscape_test_field.harness import check
from landscape_test_support.kind import BATCH, Kind, Learns
from torch import nn

geometric = pytest.importorskip("torch_geometric")
from torch_geometric.data import Data  # noqa: E402
from torch_geometric.loader import DataLoader  # noqa: E402
from torch_geometric.nn import GCN, GIN, global_add_pool  # noqa: E402


def graph(index: int, generator: torch.Generator) -> Data:
    """Return a ring of three to five nodes with a label."""
    nodes = 3 + index % 3
    ring = torch.arange(nodes)
    edges = torch.cat([torch.stack([ring, ring.roll(1)]), torch.stack([ring.roll(1), ring])], dim=1)
    return Data(x=torch.randn(nodes, 4, generator=generator), edge_index=edges, y=torch.tensor([index % 3]))


def graphs() -> Any:
    """Return a loader of batches of graphs."""
    generator = torch.Generator().manual_seed(0)
    items = [graph(index, generator) for index in range(32)]
    return DataLoader(items, batch_size=BATCH, shuffle=True, generator=torch.Generator().manual_seed(7))


class GraphClassifier(Learns):
    """A GIN, summed over the nodes of a graph."""

    lr = 0.02

    def __init__(self) -> None:
        super().__init__()
        self.gin, self.head = GIN(4, 6, num_layers=2, norm="batch_norm"), nn.Linear(6, 3)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        nodes = self.gin(batch.x, batch.edge_index)
        return F.cross_entropy(self.head(global_add_pool(nodes, batch.batch)), batch.y)


class NodeClassifier(Learns):
    """A GCN that classifies the nodes of a training mask in one large graph."""

    def __init__(self) -> None:
        super().__init__()
        self.gcn = GCN(4, 6, num_layers=2, out_channels=3, dropout=0.2)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        scores = self.gcn(batch.x, batch.edge_index)
        return F.cross_entropy(scores[batch.train_mask], batch.y[batch.train_mask])


def one_graph() -> Any:
    """Return a loader of a single graph of 30 nodes."""
    generator = torch.Generator().manual_seed(1)
    edges = torch.randint(30, (2, 90), generator=generator)
    x = torch.randn(30, 4, generator=generator)
    mask = torch.rand(30, generator=generator) < 0.7
    return DataLoader([Data(x=x, edge_index=edges, y=x[:, :3].argmax(dim=1), train_mask=mask)], batch_size=1)


def test_gin_classifies_graphs(tmp_path):
    check(Kind("GIN", "", GraphClassifier, graphs, count=lambda batch: batch.num_graphs), tmp_path)


def test_gcn_classifies_nodes(tmp_path):
    made = Kind("GCN", "", NodeClassifier, one_graph, count=lambda batch: 1)
    check(made, tmp_path)
