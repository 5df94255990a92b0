"""Parameters that a module refers to outside its tables: their terms belong to loss, gradient and curvature."""

from __future__ import annotations

import dataclasses
import functools
from collections import UserDict, deque, namedtuple

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from landscape import Objective
from landscape._substitution import Places
from landscape.curvature import hessian

GLOBAL_LIST: list[torch.Tensor] = []
Pair = namedtuple("Pair", ["first", "second"])


class Slotted:
    __slots__ = ("weight",)

    def __init__(self, weight):
        self.weight = weight


@dataclasses.dataclass(frozen=True)
class Frozen:
    weight: nn.Parameter


def global_decay():
    return sum(w.square().sum() for w in GLOBAL_LIST)


def helper(scale, weight=None):
    return scale * weight.square().sum()


class Decayed(nn.Module):
    """A network that adds the squared norm of its first weight by a reference of one kind."""

    def __init__(self, kind):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        weight = self.net[0].weight
        self.penalty = KINDS[kind](self, weight)

    def forward(self, x):
        return self.net(x), self.penalty()


def in_list(module, weight):
    module.held = [weight]
    return lambda: module.held[0].square().sum()


def in_nested(module, weight):
    module.held = {"decay": [(1.0, [weight])]}
    return lambda: module.held["decay"][0][1][0].square().sum()


def in_tuple(module, weight):
    module.held = (1.0, (weight, "text"))
    return lambda: module.held[1][0].square().sum()


def in_namedtuple(module, weight):
    module.held = Pair(weight, None)
    return lambda: module.held.first.square().sum()


def in_set(module, weight):
    module.held = {weight}
    return lambda: sum(w.square().sum() for w in module.held)


def in_deque(module, weight):
    module.held = deque([weight])
    return lambda: module.held[0].square().sum()


def in_user_dict(module, weight):
    module.held = UserDict(w=weight)
    return lambda: module.held["w"].square().sum()


def in_slots(module, weight):
    module.held = Slotted(weight)
    return lambda: module.held.weight.square().sum()


def in_dataclass(module, weight):
    module.held = Frozen(weight)
    return lambda: module.held.weight.square().sum()


def in_closure(module, weight):
    return lambda: weight.square().sum()


def in_default(module, weight):
    def penalty(w=weight):
        return w.square().sum()

    return penalty


def in_keyword_default(module, weight):
    def penalty(*, w=weight):
        return w.square().sum()

    return penalty


def in_partial_argument(module, weight):
    return functools.partial(torch.sum, functools.partial(torch.square, weight)()) and functools.partial(
        lambda w: w.square().sum(), weight
    )


def in_partial_keyword(module, weight):
    return functools.partial(helper, 1.0, weight=weight)


def in_bound_method(module, weight):
    class Holder:
        def __init__(self):
            self.weight = weight

        def square(self):
            return self.weight.square().sum()

    return Holder().square


def in_plain_attribute(module, weight):
    module.__dict__["untracked"] = weight
    return lambda: module.untracked.square().sum()


def in_unregistered_module(module, weight):
    other = nn.Linear(3, 4, bias=False)
    other.weight = weight
    module.held = [other]
    return lambda: module.held[0].weight.square().sum()


def in_global(module, weight):
    GLOBAL_LIST[:] = [weight]
    return global_decay


KINDS = {
    function.__name__: function
    for function in (
        in_list,
        in_nested,
        in_tuple,
        in_namedtuple,
        in_set,
        in_deque,
        in_user_dict,
        in_slots,
        in_dataclass,
        in_closure,
        in_default,
        in_keyword_default,
        in_partial_argument,
        in_partial_keyword,
        in_bound_method,
        in_plain_attribute,
        in_unregistered_module,
        in_global,
    )
}
X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(20) % 2


def measured_loss(output, target):
    scores, penalty = output
    return F.cross_entropy(scores, target) + 0.5 * penalty


def dense(module):
    """Gradient and Hessian in float64, with the penalty written out."""
    shapes = {name: p.shape for name, p in module.named_parameters()}
    start = torch.cat([p.detach().reshape(-1) for p in module.parameters()])

    def loss(vector):
        parts = dict(zip(shapes, vector.split([s.numel() for s in shapes.values()]), strict=True))
        w = {name: parts[name].reshape(shapes[name]) for name in shapes}
        hidden = torch.tanh(F.linear(X, w["net.0.weight"], w["net.0.bias"]))
        scores = F.linear(hidden, w["net.2.weight"], w["net.2.bias"])
        return F.cross_entropy(scores, Y) + 0.5 * w["net.0.weight"].square().sum()

    return torch.autograd.functional.jacobian(loss, start), torch.autograd.functional.hessian(loss, start)


@pytest.mark.parametrize("kind", KINDS)
def test_terms_of_outside_references_are_differentiated(kind):
    torch.manual_seed(0)
    module = Decayed(kind).double()
    objective = Objective(module, measured_loss, [(X[:8], Y[:8]), (X[8:], Y[8:])])
    gradient, curvature = dense(module)
    torch.testing.assert_close(objective.gradient(), gradient)
    identity = torch.eye(len(gradient), dtype=torch.float64)
    torch.testing.assert_close(hessian(objective) @ identity, curvature)
    torch.testing.assert_close(module.penalty(), module.net[0].weight.square().sum())  # the own tensors are back


def test_the_same_objects_come_back():
    module = Decayed("in_tuple")
    held, weight = module.held, module.net[0].weight
    objective = Objective(module, measured_loss, [(X.float(), Y)])
    objective.gradient()
    assert module.held is held
    assert module.net[0].weight is weight
    assert held[1][0] is weight


def test_a_loss_function_that_holds_parameters():
    torch.manual_seed(0)
    net = nn.Linear(3, 2).double()
    held = list(net.parameters())
    decayed = lambda output, target: F.cross_entropy(output, target) + sum(p.square().sum() for p in held)  # noqa: E731
    objective = Objective(net, decayed, [(X, Y)])
    plain = Objective(net, F.cross_entropy, [(X, Y)])
    torch.testing.assert_close(objective.gradient(), plain.gradient() + 2 * plain.vector())
    torch.testing.assert_close(objective.loss(plain.vector() * 0), plain.loss(plain.vector() * 0))


def test_a_list_that_is_replaced_is_found_again():
    module = Decayed("in_list").double()
    places = Places(module)
    module.held = [module.net[0].weight]
    other = torch.ones(4, 3, dtype=torch.float64)
    with places.filled({"net.0.weight": other}):
        assert float(module.penalty().detach()) == 12.0
    assert module.held[0] is module.net[0].weight


def test_a_step_that_empties_the_list():
    module = Decayed("in_list")
    places = Places(module)
    with places.filled({"net.0.weight": torch.ones(4, 3)}):
        module.held.clear()
    assert module.net[0].weight.requires_grad


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_networks_are_searched_once(kind):
    torch.manual_seed(0)
    net = kind(3, 4, batch_first=True).double()
    places = Places(net)
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    tensors = {name: torch.randn_like(p) for name, p in net.named_parameters()}
    for _ in range(3):
        with places.filled(tensors):
            found = net(x)[0]
        expected = torch.func.functional_call(net, tensors, (x,))[0]
        torch.testing.assert_close(found, expected)
    assert places.searches <= 3


def test_parametrized_and_normalised_weights():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 2)).double()
    objective = Objective(plain, F.cross_entropy, [(X, Y)])
    loss = F.cross_entropy(plain(X), Y)
    expected = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(plain.parameters()))])
    torch.testing.assert_close(objective.gradient(), expected)
