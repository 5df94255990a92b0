"""Weights are recorded where their loss cannot be measured, in the types of the module, and named as it names them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from landscape_test_trainings import BUSY, Plain, fit_warned, held_out, loader, make_trainer, run_of, seed_all
from torch import nn

from landscape import FileError
from landscape.averaging import swa
from landscape.callbacks import Compressibility, Sharpness, SWATrajectory


class Kept(Plain):
    def __init__(self):
        super().__init__()
        self.kept = {}

    def on_train_epoch_end(self):
        state = {name: value.detach().clone() for name, value in self.state_dict().items()}
        self.kept[self.trainer.global_step] = state


class Unmeasurable(Kept):
    """Its step needs something that only the training loop has."""

    def training_step(self, batch, batch_idx):
        if not self.trainer.training or not torch.is_grad_enabled() or self.net[0].weight.grad_fn is not None:
            raise RuntimeError("not here")
        if not isinstance(self.net[0].weight, nn.Parameter):
            raise RuntimeError("not here")
        return super().training_step(batch, batch_idx)


class Sometimes(Kept):
    """Its loss cannot be measured in the second epoch."""

    def training_step(self, batch, batch_idx):
        if self.current_epoch == 1 and not isinstance(self.net[0].weight, nn.Parameter):
            raise RuntimeError("not now")
        return super().training_step(batch, batch_idx)


class Mixed(Kept):
    """Weights of several types, cast by hand."""

    def __init__(self):
        super().__init__()
        self.net[0].to(torch.bfloat16)
        self.register_buffer("third", torch.full((3,), 0.3, dtype=torch.float16))
        self.frozen = nn.Parameter(torch.full((2,), 1 / 3, dtype=torch.bfloat16), requires_grad=False)
        self.precise = nn.Parameter(torch.full((2,), 1 / 3, dtype=torch.float64), requires_grad=False)

    def training_step(self, batch, batch_idx):
        x, y = batch
        hidden = torch.tanh(self.net[0](x.to(self.net[0].weight.dtype)))
        return F.cross_entropy(self.net[2](hidden.to(self.net[2].weight.dtype)), y)


class Compiled(Kept):
    def __init__(self):
        super().__init__()
        self.net = torch.compile(self.net, backend="eager")


def check_states(run, module):
    assert len(module.kept) == len(run.trajectory())
    for step, expected in module.kept.items():
        state = run.state_dict(step)
        assert state.keys() == expected.keys()
        for name, value in expected.items():
            assert state[name].dtype == value.dtype
            assert torch.equal(state[name], value)


def test_a_loss_that_cannot_be_measured(tmp_path):
    trainer, _, messages = fit_warned(tmp_path, Unmeasurable, [SWATrajectory()])
    run, module = run_of(trainer), trainer.lightning_module
    rows = run.dataset("swa_trajectory")
    assert rows["status"].values.tolist() == ["failed", "failed"]
    assert all("not here" in reason for reason in rows["reason"].values)
    assert len(messages) == 1
    assert "recorded the weights alone" in messages[0]
    assert run.has_weights
    check_states(run, module)
    averaged = swa(run)
    for name in averaged:
        mean = torch.stack([kept[name].double() for kept in module.kept.values()]).mean(0)
        torch.testing.assert_close(averaged[name], mean.float(), rtol=1e-6, atol=1e-7)
    with pytest.raises(FileError, match="its running mean counts rows whose loss could be measured"):
        run.state_dict(average="swa")


def test_a_loss_that_fails_once(tmp_path):
    trainer, _, _ = fit_warned(tmp_path, Sometimes, [SWATrajectory(), Sharpness(draws=2, steps=1)], max_epochs=3)
    run, module = run_of(trainer), trainer.lightning_module
    rows = run.dataset("swa_trajectory")
    assert rows["status"].values.tolist() == ["ok", "failed", "ok"]
    assert rows["n_averaged"].values.tolist() == [1, -1, 2]
    check_states(run, module)
    averaged, steps = run.state_dict(average="swa"), sorted(module.kept)
    mean = (module.kept[steps[0]]["net.0.weight"].double() + module.kept[steps[2]]["net.0.weight"].double()) / 2
    torch.testing.assert_close(averaged["net.0.weight"], mean.float(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("evaluate", [False, True])
def test_types_cast_by_hand(tmp_path, evaluate):
    trainer, _, _ = fit_warned(tmp_path, Mixed, [SWATrajectory(evaluate=evaluate)])
    check_states(run_of(trainer), trainer.lightning_module)


def test_compiled_parts_have_plain_names_in_the_file(tmp_path):
    callbacks = [SWATrajectory(evaluate=False), Compressibility(tolerances=(0.1,), every_n_epochs=2)]
    trainer, _, messages = fit_warned(tmp_path, Compiled, callbacks)
    run, module = run_of(trainer), trainer.lightning_module
    assert messages == []
    names = ["net.0.weight", "net.0.bias", "net.2.weight", "net.2.bias"]
    assert list(run.layout.names) == list(run.layout_at().names) == names
    assert run.dataset("compressibility")["tensor"].values.tolist() == names
    check_states(run, module)
    module.load_state_dict(run.state_dict())  # as the module that was trained names them


@pytest.mark.slow
def test_buffers_of_a_failed_row_are_there(tmp_path):
    class Busy(BUSY["pytorch_lightning"]):
        def training_step(self, batch, batch_idx):
            if not isinstance(self.net[0].weight, nn.Parameter):
                raise RuntimeError("not here")
            return super().training_step(batch, batch_idx)

    seed_all()
    trainer, module = make_trainer(tmp_path, [SWATrajectory()]), Busy()
    with pytest.warns(UserWarning, match="recorded the weights alone"):
        trainer.fit(module, loader(), held_out())
    state = run_of(trainer).state_dict()
    assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())
