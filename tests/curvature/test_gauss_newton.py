from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from landscape import MeasurementError, Objective
from landscape.curvature import fisher, ggn, hessian

WEIGHT = torch.tensor([0.3, 1.0, 2.5])
LABELS = torch.arange(12) % 3
SPREAD = torch.softmax(torch.sin(torch.arange(36.0)).reshape(12, 3), dim=1)
BITS = (torch.arange(36).reshape(12, 3) % 2).float()
VALUES = torch.sin(torch.arange(36.0) ** 2).reshape(12, 3)
# Of a model that is linear in its parameters, the Gauss-Newton matrix is the Hessian, and so is the Fisher information
# of a canonical loss.


def old_sum(z, y):
    with pytest.warns(UserWarning, match="size_average"):
        return F.cross_entropy(z, y, size_average=False)


LOSSES = {
    "cross entropy": (F.cross_entropy, LABELS),
    "weights": (lambda z, y: F.cross_entropy(z, y, WEIGHT.to(z)), LABELS),
    "ignored": (lambda z, y: F.cross_entropy(z, y, ignore_index=2), LABELS),
    "smoothed": (lambda z, y: F.cross_entropy(z, y, WEIGHT.to(z), ignore_index=0, label_smoothing=0.2), LABELS),
    "probabilities": (F.cross_entropy, SPREAD),
    "weighted probabilities": (lambda z, y: F.cross_entropy(z, y, WEIGHT.to(z), label_smoothing=0.1), SPREAD),
    "sum": (lambda z, y: F.cross_entropy(z, y, reduction="sum"), LABELS),
    "by hand": (lambda z, y: (F.cross_entropy(z, y, reduction="none") * WEIGHT.to(z)[y]).mean() * 7, LABELS),
    "scaled": (lambda z, y: 1e-3 * F.cross_entropy(z, y) + 5, LABELS),
    "nll": (lambda z, y: F.nll_loss(F.log_softmax(z, dim=1), y, WEIGHT.to(z)), LABELS),
    "nll, other calls": (lambda z, y: F.nll_loss(z.log_softmax(-1).view(-1, 3), y.view(-1)), LABELS),
    "bce": (F.binary_cross_entropy_with_logits, BITS),
    "weighted bce": (
        lambda z, y: F.binary_cross_entropy_with_logits(z, y, WEIGHT.to(z), pos_weight=2 * WEIGHT.to(z)),
        BITS,
    ),
    "bce of probabilities": (lambda z, y: F.binary_cross_entropy(torch.sigmoid(z), y, WEIGHT.to(z)), BITS),
    "mse": (F.mse_loss, VALUES),
    "mse sum": (lambda z, y: F.mse_loss(z, y, reduction="sum"), VALUES),
    "mse weighted": (lambda z, y: F.mse_loss(z, y, weight=WEIGHT.to(z).expand(z.shape)), VALUES),
    "old sum": (old_sum, LABELS),
    "mse by hand": (lambda z, y: F.mse_loss(z, y, reduction="none").sum(dim=1).mean(), VALUES),
}
if hasattr(F, "linear_cross_entropy"):
    LOSSES["fused"] = (
        lambda z, y: F.linear_cross_entropy(z, torch.arange(9.0).reshape(3, 3).sin().to(z), y, weight=WEIGHT.to(z)),
        LABELS,
    )
HUBER = (lambda z, y: F.huber_loss(z, y, delta=0.7), VALUES)


def linear(loss_fn, target):
    torch.manual_seed(0)
    x = torch.randn(12, 4)
    return Objective(nn.Linear(4, 3).double(), loss_fn, [(x[:5], target[:5]), (x[5:], target[5:])])


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-11 * float(expected.abs().max()))


@pytest.mark.parametrize("name", [*LOSSES, "huber"])
def test_gauss_newton_of_a_linear_model_is_its_hessian(name):
    objective = linear(*LOSSES.get(name, HUBER))
    close(ggn(objective).dense(), hessian(objective).dense())


@pytest.mark.parametrize("name", LOSSES)
def test_fisher_of_a_linear_model_is_its_hessian(name):
    objective = linear(*LOSSES[name])
    close(fisher(objective).dense(), hessian(objective).dense())


@pytest.mark.parametrize("name", LOSSES)
def test_drawn_labels_have_the_information_of_the_distribution(name):
    objective = linear(*LOSSES[name])
    exact = hessian(objective).dense()
    drawn = fisher(objective, "mc", draws=4000, seed=1)
    assert float(torch.linalg.matrix_norm(drawn.dense() - exact) / torch.linalg.matrix_norm(exact)) < 0.04
    assert "kind='mc', draws=4000, seed=1" in repr(drawn)
    few = {seed: fisher(objective, "mc", draws=40, seed=seed).dense() for seed in (1, 2)}
    assert not torch.equal(few[1], few[2])
    assert torch.equal(few[1], fisher(objective, "mc", draws=40, seed=1, memory_budget=0).dense())


@pytest.mark.parametrize("name", [*LOSSES, "huber"])
def test_empirical_fisher_is_made_of_each_examples_share_of_the_gradient(name):
    loss_fn, target = LOSSES.get(name, HUBER)
    objective = linear(loss_fn, target)
    vector = objective.vector().requires_grad_()
    weight, bias = vector.split([12, 3])
    # Cotangents on the outputs of every batch, then the gradient of each example alone.
    total = torch.zeros(15, 15, dtype=torch.float64)
    kept = {"ignored": 2, "smoothed": 0}.get(name)
    counted = 12 if kept is None else int((target != kept).sum())
    for (x, y), share in zip(objective.batches, objective.batch_weights, strict=True):
        z = x @ weight.reshape(3, 4).T + bias
        scale = objective._scales[0 if len(x) == 5 else 1]
        (slopes,) = torch.autograd.grad(share * scale * loss_fn(z, y), z, retain_graph=True)
        for example, slope in zip(z, slopes, strict=True):
            (gradient,) = torch.autograd.grad(example, vector, slope, retain_graph=True)
            total += counted * torch.outer(gradient, gradient)
    operator = fisher(objective, "empirical")
    close(operator.dense(), total)
    assert operator.n == counted


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("budget", [0, 2**30])
def test_embeddings(sparse, budget):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 3, sparse=sparse), nn.Flatten(), nn.Tanh(), nn.Linear(6, 4)).double()
    tokens, y = torch.randint(5, (9, 2)), torch.arange(9) % 4
    objective = Objective(model, nn.CrossEntropyLoss(), [(tokens, y)])
    vector = objective.vector()

    def outputs(flat):
        model[0].sparse = False  # the reference's own way cannot go through sparse gradients
        return torch.func.functional_call(model, objective.layout.named(flat), (tokens,))

    jacobian = torch.autograd.functional.jacobian(outputs, vector).reshape(36, -1)
    inner = torch.autograd.functional.hessian(lambda z: F.cross_entropy(z, y), outputs(vector)).reshape(36, 36)
    model[0].sparse = sparse
    close(ggn(objective, memory_budget=budget).dense(), jacobian.T @ inner @ jacobian)


def test_regression_without_a_dimension_of_outputs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)).double()
    x, y = torch.randn(6, 4), torch.randn(6)
    operator = fisher(Objective(model, nn.MSELoss(), [(x, y)]), "empirical")
    inputs = torch.cat([x.double(), torch.ones(6, 1).double()], dim=1)
    gradients = 2 * (model(x.double()) - y).detach()[:, None] * inputs
    close(operator.dense(), gradients.T @ gradients / 6)
    assert operator.n == 6


def test_one_example_without_a_batch_dimension():
    model = nn.Sequential(nn.Linear(4, 3), nn.Flatten(0)).double()
    x = torch.randn(1, 4)
    objective = Objective(model, nn.CrossEntropyLoss(), [(x, torch.tensor(1))])
    gradient = objective.gradient()
    close(fisher(objective, "empirical").dense(), torch.outer(gradient, gradient))
    close(fisher(objective).dense(), hessian(objective).dense())


class Step(nn.Module):
    """A module with a training step of several habits."""

    def __init__(self, habit: str):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        self.habit = habit

    def training_step(self, batch, index):
        x, y = batch
        scores = self.body(x)
        if self.habit == "plain":
            return {"loss": nn.CrossEntropyLoss()(scores, y)}
        if self.habit == "logs another loss":
            with torch.no_grad():
                F.mse_loss(scores, torch.zeros_like(scores))
            F.cross_entropy(scores.detach(), y)
            F.l1_loss(scores, torch.zeros_like(scores))  # computed, and not used
            return F.cross_entropy(scores, y)
        if self.habit == "on outputs besides":
            return F.cross_entropy(scores, y) + 1e-2 * scores.logsumexp(1).square().mean()
        if self.habit == "two losses":
            return F.cross_entropy(scores, y) + F.mse_loss(scores, torch.zeros_like(scores))
        if self.habit == "own formula":
            return -scores.log_softmax(1).gather(1, y[:, None]).mean()
        return F.cross_entropy(scores, y) + 1e-2 * self.body[0].weight.square().sum()


def step(habit, cases):
    torch.manual_seed(0)
    return Objective.from_lightning(Step(habit).double(), [cases.data(12)])


def test_outputs_are_found_in_a_training_step(cases):
    module = step("plain", cases).module
    expected = ggn(Objective(module.body, nn.CrossEntropyLoss(), [cases.data(12)])).dense()
    for habit in ("plain", "logs another loss"):
        operator = ggn(step(habit, cases))
        assert operator.outputs == "cross_entropy"
        close(operator.dense(), expected)


def test_what_is_computed_from_the_outputs_besides_belongs_to_the_loss(cases):
    objective = step("on outputs besides", cases)

    def whole(scores, y):
        return F.cross_entropy(scores, y) + 1e-2 * scores.logsumexp(1).square().mean()

    def own(scores, y):
        return -scores.log_softmax(1).gather(1, y[:, None]).mean() + 1e-2 * scores.logsumexp(1).square().mean()

    expected = ggn(Objective(objective.module.body, own, [cases.data(12)]))
    assert expected.outputs == "the loss function"
    close(ggn(objective).dense(), expected.dense())
    close(ggn(Objective(objective.module.body, whole, [cases.data(12)])).dense(), expected.dense())


@pytest.mark.parametrize(
    ("habit", "message"),
    [
        ("two losses", r"calls several loss functions \(cross_entropy, mse_loss\).*landscape_loss"),
        ("own formula", r"calls no loss function of torch.nn.functional.*Objective\(model, loss_fn, batches\)"),
        ("penalty", r"not only through the input of cross_entropy.*weight_decay"),
    ],
)
def test_steps_without_one_output_are_refused(cases, habit, message):
    for measure in (ggn, fisher):
        with pytest.raises(MeasurementError, match=message):
            measure(step(habit, cases))


@pytest.mark.filterwarnings("ignore:the loss of Linear is measured as the mean over the batches")  # a squared mean
def test_losses_that_are_no_likelihood_are_refused(cases):
    with pytest.raises(MeasurementError, match=r"distribution behind huber_loss is not known"):
        fisher(linear(*HUBER))
    focal = Objective(nn.Linear(4, 3), lambda z, y: F.cross_entropy(z, y) ** 2, [cases.data(12)])
    with pytest.raises(MeasurementError, match=r"not a multiple of what cross_entropy returns"):
        fisher(focal)
    unnormalised = Objective(nn.Linear(4, 3), F.nll_loss, [cases.data(12)])
    with pytest.raises(MeasurementError, match=r"probabilities that sum to 1"):
        fisher(unnormalised)
    assert ggn(focal).dense().abs().max() > 0


def test_losses_without_curvature_and_without_parameters(cases):
    objective = linear(F.l1_loss, VALUES)
    assert float(ggn(objective).dense().abs().max()) == 0
    with pytest.raises(MeasurementError, match=r"does not depend on any trainable parameter"):
        ggn(Objective(nn.Linear(4, 3), lambda z, y: F.cross_entropy(z.detach(), y), [cases.data(12)]))
    with pytest.raises(MeasurementError, match=r"loss on the measured examples is nan"):
        ggn(Objective(nn.Linear(4, 3), F.cross_entropy, [(torch.full((2, 4), torch.nan), LABELS[:2])]))


def test_settings_are_checked(cases):
    objective = Objective(cases.mlp(), nn.CrossEntropyLoss(), [cases.data(12)])
    with pytest.raises(ValueError, match=r"kind is 'true'; it must be one of exact, mc, empirical"):
        fisher(objective, "true")
    with pytest.raises(ValueError, match=r"draws is 0"):
        fisher(objective, "mc", draws=0)


def test_nothing_is_left_behind(cases):
    module = cases.Eventful()
    operator = ggn(Objective.from_lightning(module, [cases.data()]), memory_budget=0)
    state = torch.get_rng_state()
    operator @ torch.ones(operator.shape[0])
    assert torch.equal(torch.get_rng_state(), state)
    assert module.calls == 0
    assert not module._forward_hooks
    model = cases.mlp()
    ggn(Objective(model, nn.CrossEntropyLoss(), [cases.data()]))
    assert not model._forward_hooks


def test_a_loss_within_vmap_is_cut_before_the_whole_loss_function():
    objective = linear(lambda z, y: torch.vmap(F.cross_entropy)(z, y).mean(), LABELS)
    operator = ggn(objective)
    close(operator.dense(), hessian(objective).dense())
    assert operator.outputs == "the loss function"
