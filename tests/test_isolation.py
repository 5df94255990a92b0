from __future__ import annotations

import collections
import copy
import dataclasses
import logging
import queue
import random
import weakref

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F  # noqa: N812
import torchmetrics
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from landscape import Objective
from landscape._errors import MeasurementError
from landscape.isolation import isolated


@dataclasses.dataclass(slots=True)
class Slotted:
    count: int
    items: list[int]


class Counters(dict):
    """A dict with an attribute beside its items."""


class Everything(nn.Module):
    """Holds one of each thing that a measurement could disturb."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.b = nn.Linear(4, 2)
        self.b.bias.requires_grad_(False)
        self.norm.eval()
        self.metric = torchmetrics.MeanMetric()
        self.hidden = [nn.BatchNorm1d(2)]  # a plain list: torch does not see it
        self.count = 0
        self.nested = {"list": [1, [2, 3]], "set": {1, 2}, "deque": collections.deque([1, 2], maxlen=3)}
        self.counter = collections.Counter({"x": 2})
        self.ordered = collections.OrderedDict([("first", 1), ("second", 2)])
        self.default = collections.defaultdict(list, {"k": [1]})
        self.subclass = Counters(a=1)
        self.subclass.label = "before"
        self.slotted = Slotted(1, [1])
        self.plain = torch.ones(3)
        self.array = np.arange(4.0)
        self.generators = (torch.Generator().manual_seed(1), np.random.default_rng(1), random.Random(1))
        self.legacy = np.random.RandomState(1)
        self.training_step_outputs: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.norm(self.a(x)))


def disturb(module: Everything) -> None:
    """Change all of it."""
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            tensor.add_(1)
    module.a.weight.grad = torch.ones_like(module.a.weight)
    module.a.bias.grad.mul_(7)
    module.b.weight.grad = None
    module.b.bias.requires_grad_(True)
    module.a.weight.requires_grad_(False)
    module.b.weight = nn.Parameter(torch.zeros(5, 5))
    module.a.bias.data = torch.zeros(4, dtype=torch.float64)
    module.norm.running_mean = torch.full((4,), 9.0)
    module.extra = nn.Linear(2, 2)
    module.register_buffer("late", torch.zeros(1))
    module.a.register_forward_hook(lambda *args: None)
    module.train()
    module.a.eval()
    module.metric.update(3.0)
    module.hidden[0].running_mean.add_(1)
    module.hidden[0].weight.data.add_(1)
    module.hidden[0].eval()
    module.hidden.append(nn.Linear(1, 1))
    module.count += 1
    module.nested["list"][1].append(4)
    module.nested["list"].clear()
    module.nested["set"].add(3)
    module.nested["deque"].extend([3, 4])
    module.nested["new"] = 1
    module.counter["x"] += 1
    module.ordered.move_to_end("first")
    module.default["fresh"].append(1)
    module.default["k"].append(2)
    module.subclass["b"] = 2
    module.subclass.label = "after"
    module.slotted.count = 5
    module.slotted.items.append(2)
    module.plain.add_(1)
    module.array[0] = 9
    torch.rand(2, generator=module.generators[0])
    module.generators[1].random()
    module.generators[2].random()
    module.legacy.rand()
    module.training_step_outputs.append(torch.ones(1))
    module.new_attribute = 1
    torch.rand(1)
    np.random.rand()
    random.random()


def measure(module: Everything) -> None:
    """A measurement that breaks off."""
    with isolated(module):
        disturb(module)
        raise RuntimeError("inside")


def state(module: Everything) -> dict[str, object]:
    """Everything that disturb changes, with identities, as comparable values."""

    def value(tensor: torch.Tensor | None) -> object:
        if tensor is None:
            return None
        return id(tensor), tensor.data_ptr(), str(tensor.dtype), tuple(tensor.shape), tensor.detach().tolist()

    return {
        "parameters": {n: (value(p), p.requires_grad, value(p.grad)) for n, p in module.named_parameters()},
        "buffers": {n: value(b) for n, b in module.named_buffers()},
        "modules": [(n, id(m), m.training) for n, m in module.named_modules()],
        "hooks": len(module.a._forward_hooks),
        "metric": (float(module.metric.mean_value), module.metric._update_count),
        "hidden": [(id(m), m.training, *map(value, m.state_dict(keep_vars=True).values())) for m in module.hidden],
        "count": module.count,
        "nested": (repr(module.nested), *map(id, module.nested.values())),
        "counter": dict(module.counter),
        "ordered": list(module.ordered.items()),
        "default": repr(module.default),
        "subclass": (dict(module.subclass), module.subclass.label),
        "slotted": (repr(module.slotted), id(module.slotted.items)),
        "plain": value(module.plain),
        "array": (id(module.array), module.array.tolist()),
        "generators": [
            module.generators[0].get_state().tolist(),
            module.generators[1].bit_generator.state,
            module.generators[2].getstate(),
            module.legacy.get_state()[1].tolist(),
        ],
        "outputs": (id(module.training_step_outputs), len(module.training_step_outputs)),
        "attributes": sorted(module.__dict__),
        "global generators": [
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),
            np.random.get_state()[2],
            random.getstate(),
        ],
    }


@pytest.fixture
def everything() -> Everything:
    module = Everything()
    module(torch.randn(6, 3)).sum().backward()
    module.a.weight.grad = None
    module.metric.update(1.0)
    return module


@pytest.mark.parametrize("failing", [False, True])
def test_everything_is_put_back_also_after_an_exception(everything, failing):
    before = state(everything)
    if failing:
        with pytest.raises(RuntimeError, match="inside"):
            measure(everything)
    else:
        with isolated(everything):
            disturb(everything)
            assert state(everything) != before
    after = state(everything)
    for key, value in before.items():
        assert after[key] == value, key


def test_a_graph_that_training_holds_stays_valid(everything):
    loss = everything(torch.randn(6, 3)).square().sum()
    with isolated(everything):
        for tensor in [*everything.parameters(), *everything.buffers()]:
            tensor.data.add_(1)
    loss.backward()


def test_type_and_storage_come_back(everything):
    optimizer = torch.optim.SGD(everything.parameters(), lr=0.1)
    before = [(p, p.data_ptr(), p.dtype) for p in everything.parameters()]
    with isolated(everything):
        everything.double()
        nn.utils.vector_to_parameters(
            torch.zeros(sum(p.numel() for p in everything.parameters()), dtype=torch.float64), everything.parameters()
        )
    for parameter, pointer, dtype in before:
        assert (parameter.data_ptr(), parameter.dtype) == (pointer, dtype)
    assert optimizer.param_groups[0]["params"][0] is everything.a.weight


def test_gradient_context_within_and_after():
    module = nn.Linear(2, 2)
    with torch.no_grad(), isolated(module):
        assert torch.is_grad_enabled()
    with torch.inference_mode():
        with isolated(module):
            assert not torch.is_inference_mode_enabled()
            (module(torch.ones(1, 2)).sum()).backward()
        assert torch.is_inference_mode_enabled()
    with torch.autocast("cpu", dtype=torch.bfloat16), isolated(module):
        assert module(torch.ones(1, 2)).dtype == torch.float32
    assert module.weight.grad is None


def test_states_made_in_inference_mode():
    module = nn.Linear(2, 2)
    with torch.inference_mode():
        module.total = torch.zeros(2)
    with isolated(module):
        module.total = module.total + 1
    assert module.total.tolist() == [0, 0]


def test_sparse_gradients():
    module = nn.Embedding(5, 2, sparse=True)
    module(torch.tensor([1, 3])).sum().backward()
    grad = module.weight.grad
    before = grad.to_dense().clone()
    with isolated(module):
        module.weight.grad.mul_(2)
        module.weight.grad = None
    assert module.weight.grad is grad
    assert torch.equal(grad.to_dense(), before)


def test_objects_beside_the_module():
    counters = Slotted(1, [1])
    with isolated(nn.Linear(1, 1), [counters]):
        counters.count = 3
        counters.items.append(1)
    assert counters == Slotted(1, [1])


def test_work_of_others_goes_on(caplog):
    module = nn.Linear(1, 1)
    module.queue = queue.Queue()
    module.logger_ = logging.getLogger("landscape.test")
    module.references = weakref.WeakValueDictionary()
    with caplog.at_level("INFO"), isolated(module):
        module.queue.put(1)
        module.logger_.info("said within")
    assert module.queue.qsize() == 1
    assert caplog.messages == ["said within"]


def test_deep_and_cyclic_structures_end():
    module = nn.Linear(1, 1)
    module.chain = chain = []
    for _ in range(5_000):
        chain.append([])
        chain = chain[0]
    chain.append(module.chain)
    with isolated(module):
        chain.append(1)
    assert chain == [module.chain] or len(chain) == 1


# ---------------------------------------------------------------- Lightning


class Talkative(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True)
        self.log_dict({"twice": 2 * loss})
        self.logger.experiment.log_metrics({"direct": 1.0})
        self.logger.log_metrics({"direct": 1.0}, step=0)
        self.print("a word")
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Measuring(pl.Callback):
    def __init__(self) -> None:
        self.seen: list[tuple[dict, dict, int]] = []
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        before = self._look(trainer)
        self.losses.append(float(Objective.from_lightning(module, [batch]).loss()))
        assert self._look(trainer) == before
        self.seen.append(before)

    @staticmethod
    def _look(trainer):
        logged = {name: float(value) for name, value in trainer.logged_metrics.items()}
        rows = copy.deepcopy(trainer.logger.experiment.metrics)
        return logged, {n: float(v) for n, v in trainer.callback_metrics.items()}, rows, len(trainer._results or {})


def test_logging_is_silent_with_a_trainer_attached(cases, tmp_path, capsys):
    x, y = cases.data(8)
    callback = Measuring()
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=CSVLogger(tmp_path),
        callbacks=[callback],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
        default_root_dir=tmp_path,
    )
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)
    module = Talkative()
    trainer.fit(module, loader)
    assert len(callback.losses) == 2
    assert capsys.readouterr().out.count("a word") == 2
    assert "log" not in module.__dict__
    assert float(trainer.callback_metrics["loss_epoch"]) == pytest.approx(np.mean(callback.losses), rel=1e-6)


def test_used_paths_stay_as_they_are(tmp_path):
    # On Python 3.13 a used path has a slot (`_raw_path`) whose name a property without a setter hides.
    module = nn.Linear(1, 1)
    module.folder = tmp_path / "data"
    before = (str(module.folder), hash(module.folder), module.folder.parts)
    with isolated(module):
        assert module.folder.name == "data"
        module.folder = tmp_path / "elsewhere"
    assert (str(module.folder), hash(module.folder), module.folder.parts) == before


class Base:
    __slots__ = ("hidden", "late")


class Hiding(Base):
    """Hides a slot of its base behind a property without a setter, as pathlib does."""

    __slots__ = ()

    @property
    def hidden(self):
        return Base.hidden.__get__(self)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    items: list[int]


def test_slots_are_put_back_and_unset_where_they_were_unset():
    module = nn.Linear(1, 1)
    module.hiding, module.frozen = Hiding(), Frozen([1])
    Base.hidden.__set__(module.hiding, "before")
    with isolated(module):
        Base.hidden.__set__(module.hiding, "within")
        module.hiding.late = 1
        object.__setattr__(module.frozen, "items", [2])
    assert module.hiding.hidden == "before"
    assert not hasattr(module.hiding, "late")
    assert module.frozen == Frozen([1])


class Refusing(dict):
    """Refuses changes by its own methods, as the outputs of Hugging Face models do."""

    def update(self, *args, **kwargs):
        raise TypeError("no update")

    def clear(self):
        raise TypeError("no clear")


class RefusingList(list):
    def __setitem__(self, *args):
        raise TypeError("no assignment")


def test_containers_that_refuse_changes_are_put_back():
    module = nn.Linear(1, 1)
    module.output, module.steps = Refusing(a=1, b=2), RefusingList([1, 2])
    with isolated(module):
        module.output["c"] = 3
        module.steps.append(3)
    assert list(module.output.items()) == [("a", 1), ("b", 2)]
    assert module.steps == [1, 2]


class Sealed(np.random.BitGenerator):
    """A generator whose state can be read and not set."""

    def __init__(self):
        super().__init__(0)
        self.reads = 0

    @property
    def state(self):
        return {"reads": self.reads}

    @state.setter
    def state(self, value):
        raise TypeError("this generator does not go back")


def test_what_cannot_be_put_back_is_named_and_all_else_is_put_back():
    module = nn.Linear(1, 1)
    module.first, module.sealed, module.last = [1], Sealed(), [1]
    weight = module.weight.detach().clone()

    def measure():
        with isolated(module):
            module.first.append(2)
            module.last.append(2)
            module.weight.data.add_(1)

    with pytest.raises(MeasurementError, match="does not go back"):
        measure()
    assert module.first == module.last == [1]
    assert torch.equal(module.weight, weight)


def test_generators_and_lists_within_arrays_of_objects_are_put_back():
    module = nn.Linear(1, 1)
    module.array = np.array([[1], None], dtype=object)
    module.bits = np.random.PCG64(3)
    before = np.random.Generator(np.random.PCG64(3)).random()
    with isolated(module):
        module.array[0].append(2)
        module.array[1] = "other"
        np.random.Generator(module.bits).random()
    assert module.array.tolist() == [[1], None]
    assert np.random.Generator(module.bits).random() == before


def test_gradients_are_set_aside_and_come_back_as_the_same_tensors():
    module = nn.Linear(2, 1)
    module(torch.ones(1, 2)).sum().backward()
    before = [(parameter.grad, parameter.grad.clone()) for parameter in module.parameters()]
    with isolated(module, set_aside=True):
        assert all(parameter.grad is None for parameter in module.parameters())
        (3 * module(torch.ones(1, 2))).sum().backward()
    for parameter, (own, values) in zip(module.parameters(), before, strict=True):
        assert parameter.grad is own
        assert torch.equal(own, values)
