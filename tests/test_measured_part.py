from __future__ import annotations

import pytest
import torch
from torch import nn

from landscape import MeasurementError, Objective
from landscape._graph import nodes
from landscape._private import TorchDispatchMode
from landscape.averaging import bayesian_average
from landscape.curvature import fisher, ggn, hessian, pyhessian_spectrum, top_eigenpairs, trace
from landscape.sharpness import gradient_norm


def network(width: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 3), nn.Tanh(), nn.Linear(3, 2))


def batches(*sizes: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.randn(size, 3), torch.arange(size) % 2) for size in sizes]


def pair(parameters, sizes=(5, 8), **settings):
    """The objective of the whole network and that of a part, in float64, with the indices of the part."""
    model, data, loss = network(), batches(*sizes), nn.CrossEntropyLoss()
    whole = Objective(model, loss, data, dtype=torch.float64, **settings)
    part = Objective(model, loss, data, dtype=torch.float64, parameters=parameters, **settings)
    slices = dict(zip(whole.layout.names, whole.layout.slices(), strict=True))
    return whole, part, torch.cat([torch.arange(whole.n_parameters)[slices[name]] for name in part.layout.names])


PARTS = [("last_layer", ["4.weight", "4.bias"]), (["0", "*.bias"], ["0.weight", "0.bias", "2.bias", "4.bias"])]


@pytest.mark.parametrize(("parameters", "names"), PARTS)
def test_a_part_has_the_rows_and_columns_of_the_whole(parameters, names):
    whole, part, indices = pair(parameters)
    assert list(part.layout.names) == names
    assert part.n_parameters == len(indices) < whole.n_parameters
    torch.testing.assert_close(part.vector(), whole.vector()[indices], rtol=0, atol=0)
    torch.testing.assert_close(part.loss(), whole.loss(), rtol=0, atol=0)
    torch.testing.assert_close(part.gradient(), whole.gradient()[indices], rtol=0, atol=1e-16)
    for operator in (hessian, ggn, fisher):
        block = operator(whole).dense()[indices][:, indices]
        torch.testing.assert_close(operator(part).dense(), block, rtol=0, atol=1e-15)


def test_measures_of_a_part_are_those_of_the_block():
    whole, part, indices = pair("last_layer")
    block = hessian(whole).dense()[indices][:, indices]
    assert top_eigenpairs(hessian(part), 2).values[0] == pytest.approx(
        float(torch.linalg.eigvalsh(block)[-1]), rel=1e-12
    )
    assert trace(hessian(part)).value == pytest.approx(float(block.trace()), rel=1e-12)
    assert float(gradient_norm(part).value) == pytest.approx(float(whole.gradient()[indices].norm()), rel=1e-12)


@pytest.mark.parametrize("make", ["restrict", "to", "split", "at", "shard"])
def test_what_is_made_of_it_measures_the_same_part(make):
    _, part, _ = pair("last_layer")
    other = {
        "restrict": lambda: part.restrict(batches(4)),
        "to": lambda: part.to(torch.float32),
        "split": lambda: part.split(2)[0],
        "at": lambda: part.at(part.vector() + 1),
        "shard": lambda: part.shard(),
    }[make]()
    assert other.layout == part.layout
    assert other.parameters == ("last_layer",)
    assert other.describe()["parameters"] == ["last_layer"]


def test_it_says_what_it_measures():
    whole, part, _ = pair("last_layer")
    assert whole.describe()["parameters"] == "all"
    described = part.describe()
    assert (described["parameters"], described["n_parameters"], described["n_trainable"]) == (["last_layer"], 8, 39)
    assert "parameters=['last_layer'], P=8" in repr(part)


class Largest(TorchDispatchMode):
    """The largest tensor of floating-point type that an operation makes anew."""

    def __init__(self):
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in given:
                self.size = max(self.size, tensor.numel())
        return result


def test_no_vector_and_no_graph_reach_beyond_the_part():
    model = network(width=2000)  # the constants have 14,003 numbers, the activations at most 6,000
    objective = Objective(model, nn.CrossEntropyLoss(), batches(3), parameters="last_layer")
    whole = Objective(model, nn.CrossEntropyLoss(), objective.batches)
    with Largest() as largest:
        objective.gradient()
        top_eigenpairs(hessian(objective), 1)
    assert largest.size <= 6000
    with Largest() as largest:
        whole.gradient()
    assert largest.size > 14000

    def graph(objective: Objective) -> int:
        with objective.session():
            parts = objective.layout.unflatten(objective.vector())
            return sum(1 for _ in nodes([objective.batch_loss(0, [p.requires_grad_() for p in parts])]))

    assert graph(objective) < graph(whole) / 2


def test_changes_outside_of_the_part_do_not_matter():
    model = network()
    objective = Objective(model, nn.CrossEntropyLoss(), batches(5), parameters=["4", "2.bias"])
    model[0].requires_grad_(False)
    assert objective.current()
    model[2].bias.requires_grad_(False)
    assert not objective.current()
    model[4].requires_grad_(False)
    assert not objective.current()


def test_constants_are_the_present_ones():
    model, data = network(), batches(5)
    objective = Objective(model, nn.CrossEntropyLoss(), data, dtype=torch.float64, parameters="4")
    with torch.no_grad():
        model[0].weight.mul_(2)
    fresh = Objective(model, nn.CrossEntropyLoss(), data, dtype=torch.float64)
    torch.testing.assert_close(objective.loss(), fresh.loss(), rtol=0, atol=0)


def test_adapters_in_a_frozen_model_of_half_precision():
    class Adapted(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = nn.Linear(3, 2).bfloat16().requires_grad_(False)
            self.lora_A = nn.Linear(3, 1, bias=False)
            self.lora_B = nn.Linear(1, 2, bias=False)
            self.other = nn.Linear(2, 2)

        def forward(self, x):
            return self.other(self.base(x.to(self.base.weight.dtype)).to(x.dtype) + self.lora_B(self.lora_A(x)))

    objective = Objective(Adapted(), nn.CrossEntropyLoss(), batches(6), parameters="lora")
    assert list(objective.layout.names) == ["lora_A.weight", "lora_B.weight"]
    assert objective.dtype == torch.float32
    assert trace(hessian(objective)).method == "exact"


@pytest.mark.filterwarnings("ignore::landscape._errors.WeightingWarning")
def test_a_step_may_differentiate_by_parameters_outside_of_the_part():
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def training_step(self, batch, batch_idx):
            loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            (slope,) = torch.autograd.grad(loss, self.net[4].weight, create_graph=True)
            return loss + slope.square().sum()

    module, data = Inner(), batches(5)
    whole = Objective.from_lightning(module, data, dtype=torch.float64)
    part = Objective.from_lightning(module, data, dtype=torch.float64, parameters="net.0")
    assert part.differentiates == "parameters"
    torch.testing.assert_close(part.gradient(), whole.gradient()[:16], rtol=1e-12, atol=0)
    torch.testing.assert_close(hessian(part).dense(), hessian(whole).dense()[:16, :16], rtol=1e-10, atol=1e-14)


def test_a_part_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"'head' matches no trainable parameter; there are 0.weight"):
        Objective(network(), nn.CrossEntropyLoss(), batches(5), parameters="head")
    with pytest.raises(ValueError, match="parameters is"):
        Objective(network(), nn.CrossEntropyLoss(), batches(5), parameters=3)


def test_a_part_that_the_loss_does_not_use_is_refused():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            return self.used(x)

    objective = Objective(Unused(), nn.CrossEntropyLoss(), batches(5), parameters="spare")
    with pytest.raises(MeasurementError, match=r"of the measured part \(parameters=\['spare'\]\)"):
        objective.gradient()


def test_what_stands_for_the_whole_model_refuses_a_part():
    _, part, _ = pair("last_layer")
    with pytest.raises(MeasurementError, match="PyHessian measures all trainable parameters"):
        pyhessian_spectrum(part)
    with pytest.raises(MeasurementError, match="state dicts hold all trainable parameters"):
        bayesian_average(part, [part.module.state_dict()])


def test_a_part_that_the_step_reaches_past_the_module_is_refused_and_other_parameters_are_not():
    class Closure(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 2)
            weight = self.first.weight
            self.hidden = [lambda x: x @ weight.T]

        def forward(self, x):
            return self.last(self.hidden[0](x))

    model, data = Closure(), batches(5)
    part = Objective(model, nn.CrossEntropyLoss(), data, dtype=torch.float64, parameters="last")
    assert part.derivatives.gradient(part).ok
