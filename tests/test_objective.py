from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from landscape import MeasurementError, Objective
from landscape._weighing import Watch
from landscape.curvature import hessian, top_eigenpairs

F64 = torch.float64


def number(value):
    return float(value.detach())


def autograd_gradient(model, loss):
    parameters = [p for p in model.parameters() if p.requires_grad]
    parts = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([part.reshape(-1) for part in parts])


# ---------------------------------------------------------------- one definition of the loss


@pytest.mark.parametrize("cut", [[250, 6], [1, 255], [100, 100, 56]])
def test_uneven_batches_give_what_one_batch_gives(cases, cut):
    x, y = cases.data(256)
    model = cases.mlp()
    whole = Objective(model, nn.CrossEntropyLoss(), [(x, y)], dtype=F64)
    parts = Objective(model, nn.CrossEntropyLoss(), zip(x.split(cut), y.split(cut), strict=True), dtype=F64)
    assert parts.n_examples == 256
    assert float(parts.loss()) == pytest.approx(float(whole.loss()), rel=1e-13)
    torch.testing.assert_close(parts.gradient(), whole.gradient(), rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(hessian(parts).dense(), hessian(whole).dense(), rtol=1e-10, atol=1e-13)
    top, reference = (top_eigenpairs(hessian(o), 3, method="lanczos").values for o in (parts, whole))
    np.testing.assert_allclose(top, reference, rtol=1e-9)


def test_loss_gradient_and_evaluation_are_those_of_the_model(cases):
    x, y = cases.data()
    model = cases.mlp().double()
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    scores = model(x.double())
    loss = F.cross_entropy(scores, y)
    assert objective.dtype == F64
    value = float(loss.detach())
    assert float(objective.loss()) == pytest.approx(value, rel=1e-14)
    torch.testing.assert_close(objective.gradient(), autograd_gradient(model, loss))
    evaluation = objective.evaluate()
    assert evaluation.loss == pytest.approx(value, rel=1e-14)
    assert evaluation.error == float((scores.argmax(1) != y).double().mean())


def test_loss_at_another_vector_leaves_the_model_alone(cases):
    x, y = cases.data()
    model = cases.mlp().double()
    before = copy.deepcopy(model.state_dict())
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    vector = objective.vector() + 0.1
    moved = copy.deepcopy(model)
    nn.utils.vector_to_parameters(vector, moved.parameters())
    assert float(objective.loss(vector)) == pytest.approx(number(F.cross_entropy(moved(x.double()), y)), rel=1e-14)
    assert float(objective.loss(vector.numpy())) == float(objective.loss(vector))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_another_default_point(cases):
    x, y = cases.data(24)
    objective = Objective(cases.mlp().double(), nn.CrossEntropyLoss(), [(x, y)])
    vector = objective.vector() * 1.1
    moved = objective.at(vector)
    assert objective.at_module
    assert not moved.at_module
    assert torch.equal(moved.vector(), vector)
    assert float(moved.loss()) == float(objective.loss(vector))
    torch.testing.assert_close(moved.gradient(), objective.gradient(vector))
    torch.testing.assert_close(hessian(moved).dense(), hessian(objective, vector).dense())
    torch.testing.assert_close(moved.split(24)[0].gradient(), objective.gradient(vector))
    with pytest.raises(ValueError, match="expected a vector"):
        objective.at(vector[:3])


LOSSES = {
    "ignore_index": nn.CrossEntropyLoss(ignore_index=0),
    "class weights": nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0])),
    "smoothed": nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0]), label_smoothing=0.2, ignore_index=1),
    "summed": nn.CrossEntropyLoss(reduction="sum"),
    "summed with weights": nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0]), reduction="sum"),
    "nll": lambda scores, y: F.nll_loss(F.log_softmax(scores, 1), y, ignore_index=2),
    "own sum": nn.MultiMarginLoss(reduction="sum"),
    "tiny": lambda scores, y: 1e-6 * F.cross_entropy(scores, y),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_averaged_over_its_own_denominator(cases, name):
    x, y = cases.data(64)
    order = y.argsort()  # so that batches differ much in classes
    x, y = x[order], y[order]
    model = cases.mlp()
    whole = Objective(model, LOSSES[name], [(x, y)], dtype=F64)
    parts = Objective(model, LOSSES[name], zip(x.split(25), y.split(25), strict=True), dtype=F64)
    assert float(parts.loss()) == pytest.approx(float(whole.loss()), rel=1e-12)
    torch.testing.assert_close(parts.gradient(), whole.gradient(), rtol=1e-9, atol=1e-18)
    assert parts.evaluate().error == pytest.approx(whole.evaluate().error, nan_ok=True)


def test_sum_and_mean_reduction_measure_one_loss(cases):
    x, y = cases.data(64)
    weight = torch.tensor([0.2, 1.0, 3.0])
    mean, total = (
        Objective(cases.mlp(), nn.CrossEntropyLoss(weight, reduction=r), [(x, y)], dtype=F64) for r in ("mean", "sum")
    )
    assert float(total.loss()) == pytest.approx(float(mean.loss()), rel=1e-12)


def test_summed_regression_and_binary_losses_are_means_over_examples(cases):
    x, _ = cases.data(30)
    target = torch.rand(30, 3)
    for loss_fn in (nn.MSELoss(reduction="sum"), nn.BCEWithLogitsLoss(reduction="sum")):
        model = cases.mlp().double()
        expected = number(loss_fn(model(x.double()), target.double())) / 30
        batches = zip(x.split(11), target.split(11), strict=True)
        assert float(Objective(model, loss_fn, batches).loss()) == pytest.approx(expected, rel=1e-12)


def test_binary_errors_count_labels_with_any_reduction(cases):
    x, _ = cases.data(30)
    target = (torch.rand(30, 3) > 0.5).float()
    model = cases.mlp().double()
    wrong = float(((model(x.double()) > 0) != (target > 0.5)).double().mean())
    assert Objective(model, nn.BCEWithLogitsLoss(), [(x, target)]).evaluate().error == pytest.approx(wrong)
    assert np.isnan(Objective(model, nn.MSELoss(), [(x, target)]).evaluate().error)


def test_a_batch_whose_targets_are_all_ignored_counts_nothing(cases):
    x, y = cases.data(20)
    ignored = torch.full((5,), -100)
    model = cases.mlp().double()
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y), (x[:5], ignored)])
    assert float(objective.loss()) == pytest.approx(number(F.cross_entropy(model(x.double()), y)), rel=1e-13)
    assert torch.isfinite(hessian(objective).dense()).all()


# ---------------------------------------------------------------- models and batches of all kinds


def test_tied_unused_and_frozen_parameters(cases):
    model = cases.Words().double()
    tokens = torch.randint(0, 7, (6, 5))
    objective = Objective(model, nn.CrossEntropyLoss(), [(tokens, tokens.roll(1, 1))])
    assert set(objective.layout.names) == {"unused", "embedding.weight", "hidden.weight", "hidden.bias"}
    assert objective.n_parameters == 28 + 20 + 3
    loss = F.cross_entropy(model(tokens), tokens.roll(1, 1))
    torch.testing.assert_close(objective.gradient(), autograd_gradient(model, loss))
    reference = cases.dense_hessian(model, lambda: F.cross_entropy(model(tokens), tokens.roll(1, 1)))
    torch.testing.assert_close(hessian(objective).dense(), reference, rtol=1e-9, atol=1e-12)
    # A step along the shared tensor moves both of its places.
    vector = objective.vector() * 1.1
    moved = copy.deepcopy(model)
    nn.utils.vector_to_parameters(vector, [p for p in moved.parameters() if p.requires_grad])
    assert moved.output.weight is moved.embedding.weight
    expected = number(F.cross_entropy(moved(tokens), tokens.roll(1, 1)))
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
    assert torch.backends.mha.get_fastpath_enabled()


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
    assert float(objective.loss()) == pytest.approx(number(F.cross_entropy(net(x.double()), y)), rel=1e-13)
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
        assert float(objective.loss()) == pytest.approx(number(F.cross_entropy(net(2 * kept), y)), rel=1e-6)
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
    assert float(objective.loss()) == pytest.approx(number(expected), rel=1e-6)
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
    expected = number(F.cross_entropy(moved(x), y))
    assert float(objective.loss(buffers=buffers)) == pytest.approx(expected, rel=1e-13)
    assert objective.evaluate(buffers=buffers).loss == pytest.approx(expected, rel=1e-13)
    assert float(model.norm.running_mean.abs().max()) == 0
    with pytest.raises(ValueError, match="no buffers named running_mean"):
        objective.loss(buffers={"running_mean": torch.zeros(3)})


def test_train_mode_uses_batch_statistics_and_keeps_the_running_ones(cases):
    model = cases.ConvNet().double().eval()
    x, y = torch.randn(6, 1, 6, 6, dtype=F64), torch.randint(0, 3, (6,))
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)], mode="train")
    expected = number(F.cross_entropy(copy.deepcopy(model).train()(x), y))
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


# ---------------------------------------------------------------- Lightning


def test_training_step_is_the_loss(cases):
    module = cases.Eventful()
    x, y = cases.data(30)
    objective = Objective.from_lightning(module, zip(x.split(20), y.split(20), strict=True))
    expected = number(F.cross_entropy(module.eval().net(x), y))
    assert float(objective.loss()) == pytest.approx(expected, rel=1e-6)
    assert 0 <= objective.evaluate().error <= 1
    assert module.calls == 0
    assert module.training_step_outputs == []
    assert module.history == {"loss": []}
    assert float(module.running) == 0
    assert module.accuracy._update_count == 0
    assert "training_step" in objective.describe()["loss"]


def test_landscape_loss_replaces_the_training_step(cases):
    module = cases.ManualWithLoss()
    x, y = cases.data()
    objective = Objective.from_lightning(module, [(x, y)])
    assert float(objective.loss()) == pytest.approx(number(F.cross_entropy(module.net(x), y)), rel=1e-6)


def test_description_is_plain(cases):
    objective = Objective(cases.mlp(), nn.CrossEntropyLoss(), [cases.data()])
    described = objective.describe()
    assert described["n_parameters"] == objective.n_parameters == 139
    assert described["n_examples"] == 40
    assert all(isinstance(value, (str, int, float, type(None))) for value in described.values())
    assert "P=139" in repr(objective)


# ---------------------------------------------------------------- refusals, each a sentence with a way out


class _DroppingOut(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 3)

    def forward(self, x):
        return F.dropout(self.net(x), 0.5)


@pytest.mark.parametrize("source", ["torch", "numpy"])
def test_random_loss_is_refused_unless_its_noise_is_fixed(cases, source):
    x, y = cases.data()
    model = _DroppingOut() if source == "torch" else cases.mlp()

    def loss_fn(scores, y):
        return F.cross_entropy(scores, y) * (1 if source == "torch" else 1 + np.random.rand())

    with pytest.raises(MeasurementError, match=r"not a function of the parameters.*noise_seed=0"):
        Objective(model, loss_fn, [(x, y)])
    objective = Objective(model, loss_fn, [(x, y)], noise_seed=0)
    assert float(objective.loss()) == float(objective.loss()) == float(objective.loss_and_gradient()[0])


def refusal(name, cases):
    x, y = cases.data()
    model, cross = cases.mlp(), nn.CrossEntropyLoss()
    if name == "manual":
        return Objective.from_lightning(cases.Manual(), [(x, y)])
    if name == "no step":
        return Objective.from_lightning(type("Bare", (pl.LightningModule,), {})(), [(x, y)])
    if name == "frozen":
        return Objective(model.requires_grad_(False), cross, [(x, y)])
    if name == "lazy":
        return Objective(nn.Sequential(nn.LazyLinear(3)), cross, [(x, y)])
    if name == "complex":
        return Objective(nn.Linear(4, 3, dtype=torch.complex64), cross, [(x, y)])
    if name == "non-scalar":
        return Objective(model, nn.CrossEntropyLoss(reduction="none"), [(x, y)])
    if name == "none":
        return Objective(model, lambda scores, y: None, [(x, y)])
    if name == "number":
        return Objective(model, lambda scores, y: 1.0, [(x, y)])
    if name == "no batches":
        return Objective(model, cross, [])
    if name == "no examples":
        return Objective(model, cross, [(x[:0], y[:0])])
    if name == "no tensor":
        return Objective(model, cross, [("a", "b")])
    if name == "ignored":
        return Objective(model, cross, [(x, torch.full_like(y, -100))])
    if name == "detached":
        return Objective(model, lambda scores, y: F.cross_entropy(scores.detach(), y), [(x, y)]).gradient()
    raise AssertionError(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("manual", r"manual optimisation.*Add a method landscape_loss"),
        ("no step", r"no training_step; give a LightningModule"),
        ("frozen", r"no trainable parameter.*unfreeze some"),
        ("lazy", r"no shape yet; run one batch"),
        ("complex", r"is complex; keep its real and imaginary parts"),
        ("non-scalar", r"shape \(40,\), not a scalar; reduce it to its mean"),
        ("none", r"returned None"),
        ("number", r"returned float; a scalar tensor"),
        ("no batches", r"no batches to measure; give at least one"),
        ("no examples", r"hold no examples; give at least one"),
        ("no tensor", r"no tensor with a batch dimension.*give batches"),
        ("ignored", r"every target .* is ignored.*measure batches with some counted targets"),
        ("detached", r"does not depend on any trainable parameter; look for a detach"),
    ],
)
def test_refusals_say_what_and_what_to_do(cases, name, message):
    with pytest.raises(MeasurementError, match=message):
        refusal(name, cases)


def test_unknown_mode_and_wrong_vector(cases):
    with pytest.raises(ValueError, match="mode is 'test'"):
        Objective(cases.mlp(), nn.CrossEntropyLoss(), [cases.data()], mode="test")
    objective = Objective(cases.mlp(), nn.CrossEntropyLoss(), [cases.data()])
    with pytest.raises(ValueError, match=r"expected a vector of shape \(139,\), found \(3,\)"):
        objective.loss(torch.zeros(3))
    with pytest.raises(ValueError, match="size is 0"):
        objective.split(0)


class Auxiliary(nn.Module):
    """Classifies, and calls a loss function of classes in its own forward too, where `inside` says so."""

    def __init__(self, inside):
        super().__init__()
        self.inside = inside
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        scores = self.layer(x)
        return scores + F.cross_entropy(scores, x.argmax(1) % 3) if self.inside else scores


@pytest.mark.parametrize(("inside", "watch"), [(False, Watch.LOSS), (True, Watch.STEP)])
def test_no_more_is_watched_than_what_tells_the_error_rate(inside, watch):
    model, (x, y) = Auxiliary(inside), (torch.randn(9, 4), torch.randint(0, 3, (9,)))
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    assert objective._watch is watch
    predicted = model.layer(x).argmax(1)
    wrong = [(predicted != y).float().mean(), *([(predicted != x.argmax(1) % 3).float().mean()] if inside else [])]
    assert objective.evaluate().error == pytest.approx(float(sum(wrong)) / len(wrong))


def test_nothing_is_watched_where_the_loss_knows_no_classes():
    objective = Objective(nn.Linear(2, 1), nn.MSELoss(), [(torch.randn(3, 2), torch.randn(3, 1))])
    assert objective._watch is Watch.NOTHING
    assert math.isnan(objective.evaluate().error)
