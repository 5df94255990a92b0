"""Kinds that differ in their training: parameters that come and go, and steps that optimise by themselves."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from landscape_test_support.kind import Kind, Learns, network
from landscape_test_support.losses import Classifier, labelled
from pytorch_lightning.callbacks import BaseFinetuning, ModelPruning
from torch import nn
from torch.nn.utils import prune


class Finetuned(Classifier):
    """A backbone that begins to train in the second epoch."""

    def configure_optimizers(self) -> Any:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.SGD(trained, lr=self.lr, momentum=0.9)


class Unfreezes(BaseFinetuning):
    """Freezes the first layer, and unfreezes it when the second epoch begins."""

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.net[0])

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.net[0], optimizer)


def _pruning() -> list[Any]:
    return [ModelPruning("l1_unstructured", amount=0.3, use_global_unstructured=True, make_pruning_permanent=False)]


def _pruned_copy(module: nn.Module) -> nn.Module:
    """Copy a pruned module: its masked weights are no leaves, so they are made anew."""
    made, state = Classifier(), module.state_dict()
    for name in [name for name in state if name.endswith("_orig")]:
        owner, _, parameter = name.removesuffix("_orig").rpartition(".")
        prune.identity(made.get_submodule(owner), parameter)
    made.load_state_dict(copy.deepcopy(state))
    return made


class Adversarial(Learns):
    """A GAN with manual optimisation; `landscape_loss` is the generator's loss."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.critic = network(outputs=4, inputs=3), network(outputs=1)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        first, second = self.optimizers()
        first.zero_grad()
        self.manual_backward(self.landscape_loss(batch))
        first.step()
        second.zero_grad()
        x, _ = batch
        real, made = self.critic(x), self.critic(self.generator(x[:, :3]).detach())
        self.manual_backward(F.softplus(-real).mean() + F.softplus(made).mean())
        second.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(part.parameters(), lr=0.02) for part in (self.generator, self.critic)]

    def landscape_loss(self, batch: Any) -> torch.Tensor:
        x, _ = batch
        return F.softplus(-self.critic(self.generator(x[:, :3]))).mean()


class Manual(Classifier):
    """Manual optimisation without a `landscape_loss`."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


_BY_ITSELF = ("accumulation", "clipping")  # Lightning refuses both under manual optimisation

KINDS = [
    Kind("finetuning", "a layer is unfrozen in the second epoch", Finetuned, labelled, callbacks=lambda: [Unfreezes()]),
    Kind(
        "pruning",
        "`ModelPruning` renames parameters",
        Classifier,
        labelled,
        callbacks=_pruning,
        copied=_pruned_copy,
        leaves_out=("float64", "resume"),
    ),
    Kind("GAN", "manual optimisation with `landscape_loss`", Adversarial, labelled, leaves_out=_BY_ITSELF),
    Kind("manual optimisation", "without `landscape_loss`", Manual, labelled, only=("eval",)),
]
