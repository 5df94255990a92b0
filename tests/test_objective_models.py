"""The objective of models and batches of all kinds."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from landscape import Objective
from landscape.curvature import hessian

F64 = torch.float64


# ---------------------------------------------------------------- models and batches of all kinds


def test_tied_unused_and_frozen_parameters(cases):
    model = cases.Words().double()
    tokens = torch.randint(0, 7, (6, 5))
    objective = Objective(model, nn.CrossEntropyLoss(), [(tokens, tokens.roll(1, 1))])
    assert set(objective.layout.names) == {"unused", "embedding.weight", "hidden.weight", "hidden.bias"}
    assert objective.n_parameters == 28 + 20 + 3
    loss = F.cross_entropy(model(tokens), tokens.roll(1, 1))
    torch.testing.assert_close(objective.gradient(), cases.autograd_gradient(model, loss))
    reference = cases.dense_hessian(model, lambda: F.cross_entropy(model(tokens), tokens.roll(1, 1)))
    torch.testing.assert_close(hessian(objective).dense(), reference, rtol=1e-9, atol=1e-12)
    # A step along the shared tensor moves both of its places.
    vector = objective.vector() * 1.1
    moved = copy.deepcopy(model)
    nn.utils.vector_to_parameters(vector, [p for p in moved.parameters() if p.requires_grad])
    assert moved.output.weight is moved.embedding.weight
    expected = cases.number(F.cross_entropy(moved(tokens), tokens.roll(1, 1)))
    assert float(objective.loss(vector)) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("network", ["ConvNet", "Encoder", "Attention", "Recurrent"])
def test_hessian_of_other_architectures(cases, network):
    model = getattr(cases, network)().double().eval()
    x = torch.randn(6, 1, 6, 6, dtype=F64) if network == "ConvNet" else torch.randn(6, 5, 4, dtype=F64)
    y = torch.randint(0, 3, (6,))
    if network == "ConvNet":
        model.train()(x)  # give the batch normalisation statistics of its own
        model.eval()
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        reference = cases.dense_hessian(model, lambda: F.cross_entropy(model(x), y))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    torch.testing.assert_close(hessian(objective).dense(), reference, rtol=1e-8, atol=1e-11)


def test_loss_agrees_with_the_loss_beside_its_gradient(cases):
    # The transformer's inference fast path zeroes padded positions, the training path does not.
    model = cases.Encoder().double()
    objective = Objective(model, nn.CrossEntropyLoss(), [(torch.randn(6, 5, 4), torch.randint(0, 3, (6,)))])
    # Fused attention, which a loss alone takes, rounds in another order.
    beside = float(objective.loss_and_gradient()[0])
    assert float(objective.loss()) == pytest.approx(beside, rel=1e-13)
    assert objective.evaluate().loss == pytest.approx(beside, rel=1e-13)
    with objective.session(), objective.same_kernels():
        assert float(objective.loss()) == beside
        other = objective.at(objective.vector())
    assert torch.backends.mha.get_fastpath_enabled()
    # An objective that is made among other kernels chooses its own afterwards.
    assert float(other.loss_and_gradient()[0]) == beside
    hessian(other) @ torch.ones(other.n_parameters, dtype=torch.float64)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_activation_checkpointing_does_not_disturb_derivatives(cases, use_reentrant):
    class Checkpointed(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net[2:](checkpoint(self.net[:2], x, use_reentrant=use_reentrant))

    x, y = cases.data()
    plain = cases.mlp().double()
    reference = Objective(plain, nn.CrossEntropyLoss(), [(x, y)])
    objective = Objective(Checkpointed(plain), nn.CrossEntropyLoss(), [(x, y)])
    elsewhere = objective.vector() + 0.3
    torch.testing.assert_close(objective.gradient(elsewhere), reference.gradient(elsewhere))
    torch.testing.assert_close(hessian(objective, elsewhere).dense(), hessian(reference, elsewhere).dense())


@pytest.mark.parametrize("in_place", [True, False])
def test_compiled_modules_are_measured_eagerly(cases, in_place):
    x, y = cases.data()
    plain = cases.mlp().double()
    reference = Objective(plain, nn.CrossEntropyLoss(), [(x, y)])
    expected = hessian(reference).dense()
    model = copy.deepcopy(plain)
    if in_place:
        model.compile(backend="eager")
    else:
        model = torch.compile(model, backend="eager")
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    assert objective.layout.names[0] == ("0.weight" if in_place else "_orig_mod.0.weight")
    torch.testing.assert_close(hessian(objective).dense(), expected)
    torch.testing.assert_close(objective.loss(objective.vector() + 0.1), reference.loss(reference.vector() + 0.1))


def test_compiled_loss_function_is_measured_eagerly(cases):
    x, y = cases.data()
    model = cases.mlp().double()
    compiled = torch.compile(lambda scores, y: F.cross_entropy(scores, y), backend="aot_eager")
    expected = hessian(Objective(model, nn.CrossEntropyLoss(), [(x, y)])).dense()
    torch.testing.assert_close(hessian(Objective(model, compiled, [(x, y)])).dense(), expected)


def test_nested_and_dict_batches(cases):
    x, y = cases.data(24)
    net = cases.mlp().double()

    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, batch):
            return self.net(batch["inputs"][0] + batch["inputs"][1]["shift"])

    def loss_fn(scores, batch):
        return F.cross_entropy(scores, batch["labels"])

    batches = [
        {"inputs": [part, {"shift": torch.zeros(len(part), 1)}], "labels": label, "name": "train"}
        for part, label in zip(x.split(20), y.split(20), strict=True)
    ]
    objective = Objective(Nested(), loss_fn, batches)
    assert objective.n_examples == 24
    assert objective.batches[0]["inputs"][0].dtype == F64
    assert objective.batches[0]["labels"].dtype == torch.int64
    assert float(objective.loss()) == pytest.approx(cases.number(F.cross_entropy(net(x.double()), y)), rel=1e-13)
    assert [part.n_examples for part in objective.split(8)] == [8, 8, 4, 4]


def test_a_step_may_take_its_batch_apart(cases):
    x, y = cases.data(24)
    net = cases.mlp()
    kept = x.clone()

    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, batch):
            return self.net(batch["x"].mul_(2))

    batch = {"x": x, "y": y}
    objective = Objective(InPlace(), lambda scores, b: F.cross_entropy(scores, b.pop("y")), [batch])
    for _ in range(2):
        assert float(objective.loss()) == pytest.approx(cases.number(F.cross_entropy(net(2 * kept), y)), rel=1e-6)
    assert torch.equal(batch["x"], kept)
    assert set(batch) == {"x", "y"}


def test_data_are_held_whatever_becomes_of_the_users_tensors(cases):
    x, y = cases.data(24)
    objective = Objective(cases.mlp(), nn.CrossEntropyLoss(), [(x, y)])
    before, fingerprint = float(objective.loss()), objective.fingerprint
    x.zero_()
    assert float(objective.loss()) == before
    assert objective.fingerprint == fingerprint


def test_a_loader_gets_its_generator_back(cases):
    x, y = cases.data(24)
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(TensorDataset(x, y), batch_size=10, shuffle=True, generator=generator)
    before = generator.get_state()
    assert Objective(cases.mlp(), nn.CrossEntropyLoss(), loader).n_examples == 24
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("sparse", [False, True])
def test_embeddings(sparse):
    model = nn.Sequential(nn.Embedding(7, 4, sparse=sparse), nn.Tanh(), nn.Linear(4, 3)).double()
    tokens, y = torch.randint(0, 7, (9,)), torch.randint(0, 3, (9,))
    objective = Objective(model, nn.CrossEntropyLoss(), [(tokens, y)])
    direction = torch.randn(objective.n_parameters, dtype=F64)
    ends = [objective.gradient(objective.vector() + s * 1e-5 * direction) for s in (1, -1)]
    torch.testing.assert_close(hessian(objective) @ direction, (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-8)


def test_half_precision_is_measured_in_float32(cases):
    x, y = cases.data()
    model = cases.mlp().bfloat16()
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    assert objective.dtype == torch.float32
    expected = F.cross_entropy(copy.deepcopy(model).float()(x), y)
    assert float(objective.loss()) == pytest.approx(cases.number(expected), rel=1e-6)
    assert model[0].weight.dtype == torch.bfloat16


def test_a_penalty_on_the_models_own_weights_takes_part(cases):
    model = cases.mlp().double()
    x, y = cases.data()

    class Penalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model
            self.register_buffer("weight", torch.ones(3))

        def forward(self, scores, y):
            return F.cross_entropy(scores, y, self.weight) + sum((p**2).sum() for p in self.model.parameters())

    objective = Objective(model, Penalised(), [(x, y)])
    plain = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    torch.testing.assert_close(objective.gradient(), plain.gradient() + 2 * plain.vector())


def test_measuring_within_inference_mode(cases):
    model = cases.mlp()
    with torch.inference_mode():
        x, y = cases.data()
        objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
        assert torch.isfinite(hessian(objective) @ objective.gradient()).all()


def test_buffers_can_be_substituted(cases):
    model = cases.ConvNet().double().eval()
    x, y = torch.randn(6, 1, 6, 6, dtype=F64), torch.randint(0, 3, (6,))
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    buffers = {"norm.running_mean": torch.full((3,), 0.5)}
    moved = copy.deepcopy(model)
    moved.norm.running_mean.fill_(0.5)
    expected = cases.number(F.cross_entropy(moved(x), y))
    assert float(objective.loss(buffers=buffers)) == pytest.approx(expected, rel=1e-13)
    assert objective.evaluate(buffers=buffers).loss == pytest.approx(expected, rel=1e-13)
    assert float(model.norm.running_mean.abs().max()) == 0
    with pytest.raises(ValueError, match="no buffers named running_mean"):
        objective.loss(buffers={"running_mean": torch.zeros(3)})


def test_train_mode_uses_batch_statistics_and_keeps_the_running_ones(cases):
    model = cases.ConvNet().double().eval()
    x, y = torch.randn(6, 1, 6, 6, dtype=F64), torch.randint(0, 3, (6,))
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)], mode="train")
    expected = cases.number(F.cross_entropy(copy.deepcopy(model).train()(x), y))
    assert float(objective.loss()) == pytest.approx(expected, rel=1e-13)
    assert int(model.norm.num_batches_tracked) == 0
    assert not model.norm.training


def test_train_mode_leaves_to_the_module_what_stays_frozen(cases):
    class FrozenNorm(cases.ConvNet):
        def train(self, mode=True):
            super().train(mode)
            self.norm.eval()
            return self

    model = FrozenNorm().double()
    x, y = torch.randn(6, 1, 6, 6, dtype=F64), torch.randint(0, 3, (6,))
    train, evaluation = (Objective(model, nn.CrossEntropyLoss(), [(x, y)], mode=mode) for mode in ("train", "eval"))
    assert float(train.loss()) == float(evaluation.loss())
