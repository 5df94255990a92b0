from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from landscape import MeasurementError, Objective


class Base(nn.Module):
    """A step whose loss is a mean square; subclasses say what the model computes."""

    def training_step(self, batch, batch_idx):
        return F.mse_loss(self(batch), torch.zeros(len(batch), 2))


class Backwards(Base):
    """The head is registered first and used last; a penalty uses the first layer after it."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.stem = nn.Linear(3, 4)

    def forward(self, x):
        return self.head(self.stem(x).tanh())

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) + 0.01 * self.stem.weight.square().sum()


class RootToken(Base):
    """The root holds a parameter that is used first, as vision transformers do."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.ones(3))
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(x + self.token)


class Functional(Base):
    """The last weights are used by a function within the forward of the module that holds them."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(3)
        self.weight = nn.Parameter(torch.randn(2, 3))

    def forward(self, x):
        return F.linear(self.norm(x), self.weight)


class Attention(Base):
    """torch's attention gives all of its weights to one function; the last of them is the output's."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2)
        self.stem = nn.Linear(3, 4)

    def forward(self, x):
        h = self.stem(x)[None]
        return self.attention(h, h, h, need_weights=False)[0][0, :, :2]


class Tied(Base):
    """The head is the embedding's weight."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Linear(3, 3, bias=False)
        self.hidden = nn.Linear(3, 3)
        self.head = nn.Linear(3, 3, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        return self.head(self.hidden(self.embedding(x)))[:, :2]


class Outside(Base):
    """The step itself uses a weight outside of every forward."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 3))
        self.net = nn.Linear(3, 3)

    def training_step(self, batch, batch_idx):
        return F.mse_loss(self.net(batch) @ self.weight.T, torch.zeros(len(batch), 2))


class Recurrent(Base):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(3, 2, num_layers=2)
        self.stem = nn.Linear(3, 3)

    def forward(self, x):
        return self.rnn(self.stem(x)[None])[0][0]


class Scripted(Base):
    def __init__(self):
        super().__init__()
        self.head = torch.jit.script(nn.Linear(3, 2))
        self.stem = nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.stem(x))


LSTM = [f"rnn.{kind}_l{layer}" for layer in (0, 1) for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated")
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Backwards, ["head.weight", "head.bias"]),
        (RootToken, ["head.weight", "head.bias"]),
        (Functional, ["weight"]),
        (Attention, ["attention.out_proj.weight", "attention.out_proj.bias"]),
        (Tied, ["embedding.weight"]),
        (Outside, ["weight"]),
        (Recurrent, LSTM),
        (Scripted, ["head.weight", "head.bias"]),
    ],
)
def test_the_last_layer_is_the_one_that_is_used_last(kind, expected):
    objective = Objective.from_lightning(kind(), [torch.randn(5, 3)], parameters="last_layer")
    assert list(objective.layout.names) == expected


def test_frozen_layers_are_passed_over():
    module = Backwards()
    module.head.requires_grad_(False)
    objective = Objective.from_lightning(module, [torch.randn(5, 3)], parameters="last_layer")
    assert list(objective.layout.names) == ["stem.weight", "stem.bias"]


def test_skipped_batches_are_passed_over():
    class Skipping(Backwards):
        def training_step(self, batch, batch_idx):
            return None if len(batch) == 2 else super().training_step(batch, batch_idx)

    batches = [torch.randn(2, 3), torch.randn(5, 3)]
    objective = Objective.from_lightning(Skipping(), batches, parameters="last_layer")
    assert list(objective.layout.names) == ["head.weight", "head.bias"]


@pytest.mark.filterwarnings("ignore::landscape._errors.WeightingWarning")
def test_steps_that_differentiate_by_their_parameters_are_watched():
    class Inner(Backwards):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            (slope,) = torch.autograd.grad(loss, self.head.weight, create_graph=True)
            return loss + slope.square().sum()

    objective = Objective.from_lightning(Inner(), [torch.randn(5, 3)], parameters="last_layer")
    assert list(objective.layout.names) == ["head.weight", "head.bias"]


def test_a_loss_without_parameters_has_no_last_layer():
    class Constant(Backwards):
        def training_step(self, batch, batch_idx):
            return batch.square().mean()

    with pytest.raises(MeasurementError, match="name the layer instead"):
        Objective.from_lightning(Constant(), [torch.randn(5, 3)], parameters="last_layer")


def test_no_hook_is_left_behind():
    module = Backwards()
    Objective.from_lightning(module, [torch.randn(5, 3)], parameters="last_layer")
    from torch.nn.modules import module as hooks

    assert not hooks._global_forward_hooks
    assert not hooks._global_forward_pre_hooks
