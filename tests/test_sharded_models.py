"""Modules whose tensors are spread over processes are refused before one of them is touched."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from torch import nn

from landscape import MeasurementError, Objective
from landscape._sharded_models import is_freed, require_unsharded, sharded
from landscape.isolation import isolated

CURE = "landscape measure"


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def data() -> list[tuple[torch.Tensor, torch.Tensor]]:
    x = torch.randn(16, 4)
    return [(x, x[:, :3].argmax(1))]


@pytest.fixture
def mesh() -> Iterator[object]:
    """A mesh of this process alone, over which torch shards as over many."""
    from torch.distributed.device_mesh import init_device_mesh

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield init_device_mesh("cpu", (1,))
    finally:
        dist.destroy_process_group()


def free(tensor: torch.Tensor) -> None:
    tensor.data.untyped_storage().resize_(0)


def test_fully_sharded_modules_are_refused_with_one_sentence(mesh) -> None:
    from torch.distributed.fsdp import fully_shard

    whole, part = network(), network()
    fully_shard(whole, mesh=mesh)
    fully_shard(part[2], mesh=mesh)
    x, y = data()[0]
    for model, found in ((whole, "FSDPSequential is sharded over processes"), (part, "2 of Sequential is sharded")):
        with pytest.raises(MeasurementError, match=f"{found}.* by fully_shard .*{CURE}"):
            Objective(model, F.cross_entropy, [(x, y)])
        with pytest.raises(MeasurementError, match=found), isolated(model):
            pass
    F.cross_entropy(whole(x), y).backward()  # after a forward pass the parameters are whole for a while
    with pytest.raises(MeasurementError, match="sharded over processes"):
        Objective.from_lightning(whole, [(x, y)])


def test_tensor_parallel_parameters_are_named(mesh) -> None:
    from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

    model = parallelize_module(network(), mesh, {"2": ColwiseParallel()})
    before = [parameter.to_local().clone() for parameter in model[2].parameters()]
    with pytest.raises(MeasurementError, match="2.weight of Sequential is a DTensor, of which each process holds a"):
        Objective(model, F.cross_entropy, data())
    assert all(torch.equal(p.to_local(), kept) for p, kept in zip(model[2].parameters(), before, strict=True))


@pytest.mark.parametrize("names_kept", [True, False])
def test_the_first_fsdp_is_found_from_outside_and_from_inside(mesh, names_kept) -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel

    inner = network()
    # A mesh of one process makes torch warn that it does not shard.
    with pytest.warns(UserWarning, match="NO_SHARD"):
        outer = FullyShardedDataParallel(inner, use_orig_params=names_kept, device_id=torch.device("cpu"))
    assert "FullyShardedDataParallel is sharded over processes by FSDP" in str(sharded(outer))
    inside = "0.weight of Sequential is a piece" if names_kept else "_flat_param of Sequential is a flat parameter"
    assert inside in str(sharded(inner))


def test_a_sharded_module_that_the_measured_one_leads_to_is_refused(mesh) -> None:
    from torch.distributed.fsdp import fully_shard

    class Student(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.teachers = network(), [fully_shard(network(), mesh=mesh)]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x) + self.teachers[0](x).detach()

    with pytest.raises(MeasurementError, match="FSDPSequential that the measured module leads to is sharded"):
        Objective(Student(), F.cross_entropy, data())


def test_freed_memory_is_not_read() -> None:
    model = network()
    free(model[0].weight)
    assert is_freed(model[0].weight.data)
    with pytest.raises(MeasurementError, match="0.weight of Sequential has no memory at present"), isolated(model):
        pass
    holder = network()
    holder.cache = [torch.ones(3), torch.ones(2)]
    free(holder.cache[0])
    with isolated(holder):
        holder.cache[1].zero_()
    assert holder.cache[1].tolist() == [1.0, 1.0]
    assert is_freed(holder.cache[0])


def test_deepspeed_marks_its_parameters() -> None:
    model = network()
    model[2].bias.ds_id = 3
    with pytest.raises(MeasurementError, match=r"2.bias of Sequential is spread over processes by DeepSpeed"):
        require_unsharded(network(), model)


def test_whole_modules_pass() -> None:
    lazy = nn.Sequential(nn.LazyLinear(3))
    meta = nn.Linear(2, 2, device="meta")
    sparse = nn.Module()
    sparse.table = nn.Parameter(torch.eye(3).to_sparse())
    empty = nn.Module()
    empty.register_buffer("none", torch.zeros(0))
    for model in (network(), lazy, meta, sparse, empty, nn.Identity()):
        require_unsharded(model)
