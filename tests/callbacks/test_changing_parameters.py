"""Layers that are unfrozen, frozen, pruned or moved during the fit: each row is of the parameters that train then."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F  # noqa: N812
from landscape_test_trainings import Blobs, Plain, assert_identical, fit_warned, loader, make_trainer, run_of, seed_all
from pytorch_lightning.callbacks import BaseFinetuning, ModelPruning
from torch import nn
from torch.nn.utils import prune

from landscape import FileError
from landscape._layout import ParameterLayout
from landscape.averaging import swa
from landscape.callbacks import (
    Compressibility,
    HessianSpectrum,
    LearningCoefficient,
    LossSurface,
    ModeConnectivity,
    Sharpness,
    SWATrajectory,
)
from landscape.surface import project_run, trajectory_directions

pytestmark = pytest.mark.filterwarnings("ignore:.*frozen.*", "ignore:The dataloader")


class Two(Plain):
    """A body and a head; keeps its own copies of the state and of what trains at the end of every epoch."""

    def __init__(self):
        super().__init__()
        self.kept, self.trained = {}, {}

    def on_train_epoch_end(self):
        if not self.trainer.sanity_checking:
            step = self.trainer.global_step
            self.kept[step] = {name: value.detach().clone() for name, value in self.state_dict().items()}
            self.trained[step] = [name for name, p in self.named_parameters() if p.requires_grad]

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)


class Unfreeze(BaseFinetuning):
    """The first layer trains from the second epoch on."""

    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.net[0])

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.net[0], optimizer, lr=0.1, initial_denom_lr=1)


class Freeze(pl.Callback):
    """The first layer trains in the first two epochs and in the fifth."""

    def on_train_epoch_start(self, trainer, pl_module):
        pl_module.net[0].requires_grad_(trainer.current_epoch in (0, 1, 4))


class Average(pl.Callback):
    """A frozen layer follows another one, as in momentum encoders, by `.data` and without a gradient."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pl_module.teacher.weight.data.mul_(0.9).add_(pl_module.net[2].weight.data, alpha=0.1)


class Student(Two):
    def __init__(self):
        super().__init__()
        self.teacher = nn.Linear(8, 3)
        self.backbone = nn.Linear(4, 50).requires_grad_(False)
        self.teacher.requires_grad_(False)
        self.teacher.load_state_dict(self.net[2].state_dict())

    def training_step(self, batch, batch_idx):
        x, y = batch
        hidden = self.net[1](self.net[0](x))
        return F.cross_entropy(self.net[2](hidden), y) + F.mse_loss(self.net[2](hidden), self.teacher(hidden))


def pruning():
    return ModelPruning("l1_unstructured", parameters_to_prune=None, amount=0.3, make_pruning_permanent=False)


CHANGES = {"unfrozen": Unfreeze, "frozen": Freeze, "pruned": pruning}


def train(folder, change, callbacks, module=Two, **options):
    return fit_warned(folder, module, [change(), *callbacks], **{"max_epochs": 6} | options)


def measures():
    common = {"examples": None}
    return [
        SWATrajectory(**common),
        HessianSpectrum(k=2, layers=True, trace_tol=1e-6, trace_max_matvecs=200, **common),
        Sharpness(measures=["gradient_norm", "sam"], **common),
        Compressibility(tolerances=(0.1,), every_n_epochs=2, **common),
        LearningCoefficient(chains=1, draws=4, layers=True, every_n_epochs=3, **common),
        HessianSpectrum(k=2, track=True, name="tracked", **common),
        SWATrajectory(name="alone", evaluate=False),
    ]


def dense(state, names):
    """Loss and Hessian in float64 over all training examples, of the parameters with these names."""
    blobs = Blobs()
    w = {name: value.double() for name, value in state.items()}
    shapes = {name: w[name].shape for name in names}
    start = torch.cat([w[name].reshape(-1) for name in names])

    def weight(parts, layer):
        name = f"net.{layer}.weight"
        return parts[f"{name}_orig"] * parts[f"{name}_mask"] if f"{name}_orig" in parts else parts[name]

    def bias(parts, layer):
        name = f"net.{layer}.bias"
        return parts[f"{name}_orig"] * parts[f"{name}_mask"] if f"{name}_orig" in parts else parts[name]

    def loss(vector):
        pieces = vector.split([shape.numel() for shape in shapes.values()])
        parts = w | {name: piece.reshape(shapes[name]) for name, piece in zip(names, pieces, strict=True)}
        hidden = torch.tanh(F.linear(blobs.x.double(), weight(parts, 0), bias(parts, 0)))
        return F.cross_entropy(F.linear(hidden, weight(parts, 2), bias(parts, 2)), blobs.y)

    return float(loss(start)), torch.autograd.functional.hessian(loss, start)


@pytest.fixture(scope="module", params=CHANGES)
def trained(request, tmp_path_factory):
    change = CHANGES[request.param]
    _, without, _ = train(tmp_path_factory.mktemp("without"), change, [])
    trainer, left, messages = train(tmp_path_factory.mktemp("with"), change, measures())
    return without, trainer, left, messages


@pytest.mark.slow
def test_training_is_the_same_with_all_measures_on(trained):
    without, _, left, messages = trained
    assert_identical(without, left)
    assert messages == []


@pytest.mark.slow
def test_each_row_is_of_what_trains_then(trained):
    _, trainer, _, _ = trained
    module, run = trainer.lightning_module, run_of(trainer)
    data = run.dataset("hessian_spectrum")
    assert set(data["status"].values) == {"ok"}
    assert len(np.unique(data["n_parameters"])) > 1 or len(np.unique(data["trainable"])) == 1
    for row, step in enumerate(data["step"].values):
        names = module.trained[step]
        loss, curvature = dense(module.kept[step], names)
        assert data["n_parameters"].values[row] == len(curvature)
        assert data["train_loss"].values[row] == pytest.approx(loss, rel=1e-4)
        top = float(torch.linalg.eigvalsh(curvature)[-1])
        assert data["lambda_max"].values[row] == pytest.approx(top, rel=1e-4)
        assert data["trace"].values[row] == pytest.approx(float(curvature.trace()), rel=1e-4)
        tracked = run.dataset("tracked")
        assert tracked["lambda_max"].values[row] == pytest.approx(top, rel=1e-2)
        layers = {label: data["layer_trace"].sel(layer=label).values[row] for label in data["layer"].values}
        ends = np.cumsum([0, *(module.kept[step][name].numel() for name in names)])
        for label, value in layers.items():
            own = [i for i, name in enumerate(names) if name.rpartition(".")[0] == label]
            expected = sum(float(curvature.diagonal()[ends[i] : ends[i + 1]].sum()) for i in own) if own else np.nan
            assert value == pytest.approx(expected, rel=1e-4, nan_ok=True)


@pytest.mark.slow
def test_state_dicts_are_those_of_the_module(trained):
    _, trainer, _, _ = trained
    module, run = trainer.lightning_module, run_of(trainer)
    for step, expected in module.kept.items():
        state = run.state_dict(step)
        assert state.keys() == expected.keys()
        for name, value in expected.items():
            assert state[name].dtype == value.dtype
            assert torch.equal(state[name], value), (step, name)
        flat = torch.cat([expected[name].reshape(-1) for name in module.trained[step]])
        assert run.weights(step).tolist() == flat.tolist()
        assert run.layout_at(step).names == tuple(module.trained[step])


@pytest.mark.slow
def test_axes_hold_what_trains_and_nothing_else(trained):
    _, trainer, _, _ = trained
    run = run_of(trainer)
    bits, chains = run.dataset("compressibility"), run.dataset("learning_coefficient")
    assert set(bits["status"].values) == set(chains["status"].values) == {"ok"}
    for row, step in enumerate(bits["step"].values):
        then = {name.removesuffix("_orig") for name in trainer.lightning_module.trained[step]}
        known = {
            str(label) for label in bits["tensor"].values if np.isfinite(bits["tensor_bits"].values[row, 0, :]).any()
        }
        held = bits["tensor_bits"].isel(step=row, tolerance=0)
        assert {str(label) for label in held["tensor"].values[np.isfinite(held.values)]} == then <= known | then
        assert float(held.sum()) == pytest.approx(float(bits["ideal_bits"].values[row, 0]))
    for row, step in enumerate(chains["step"].values):
        then = {name.rpartition(".")[0] for name in trainer.lightning_module.trained[step]}
        flags = chains["layer_flag"].isel(step=row)
        assert {str(label) for label in flags["layer"].values[(flags.values >= 0).all(axis=1)]} == then


@pytest.mark.slow
def test_the_mean_begins_anew_where_others_train(trained):
    _, trainer, _, _ = trained
    module, run = trainer.lightning_module, run_of(trainer)
    steps = sorted(module.kept)
    counts = run.dataset("swa_trajectory")["n_averaged"].values
    for row, step in enumerate(steps):
        since = next((i + 1 for i in range(row - 1, -1, -1) if module.trained[steps[i]] != module.trained[step]), 0)
        assert counts[row] == row - since + 1
        averaged = run.state_dict(step, average="swa")
        for name in module.trained[step]:
            mean = torch.stack([module.kept[each][name].double() for each in steps[since : row + 1]]).mean(0)
            torch.testing.assert_close(averaged[name], mean.float(), rtol=1e-6, atol=1e-7)


def test_an_average_over_several_sets_is_by_name(tmp_path):
    trainer, _, _ = train(tmp_path, Unfreeze, [SWATrajectory(evaluate=False)], max_epochs=3)
    module, run = trainer.lightning_module, run_of(trainer)
    averaged = swa(run)
    for name in module.kept[3]:
        mean = torch.stack([kept[name].double() for kept in module.kept.values()]).mean(0)
        torch.testing.assert_close(averaged[name], mean.float(), rtol=1e-6, atol=1e-7)
    trajectory = run.trajectory()
    assert trajectory.layout.total == 67
    for step, vector in zip(trajectory.steps, trajectory, strict=True):
        expected = torch.cat([module.kept[step][name].reshape(-1) for name in trajectory.layout.names])
        assert vector.tolist() == expected.double().tolist()
    assert run.trajectory(stop=3).layout.total == 27
    directions = trajectory_directions(run, 1)
    assert np.isfinite(project_run(run, directions.center, directions).coordinates).all()
    with pytest.raises(FileError, match="other parameters trained, up to step 3; begin the mean after that"):
        run.state_dict(average="swa", start=1)


class PruneLater(pl.Callback):
    """The last layer is pruned from the second epoch on, which renames its weight."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            prune.l1_unstructured(pl_module.net[2], "weight", amount=0.3)


def test_an_average_over_renamed_parameters_is_refused(tmp_path):
    trainer, _, _ = train(tmp_path, PruneLater, [SWATrajectory(evaluate=False)], max_epochs=3)
    module, run = trainer.lightning_module, run_of(trainer)
    with pytest.raises(FileError, match=r"parameters were renamed or replaced at step 6, as pruning does"):
        swa(run)
    averaged = swa(run, start=6)
    mean = (module.kept[6]["net.2.weight_orig"].double() + module.kept[9]["net.2.weight_orig"].double()) / 2
    torch.testing.assert_close(averaged["net.2.weight_orig"], mean.float(), rtol=1e-6, atol=1e-7)
    assert torch.equal(averaged["net.2.weight_mask"], module.kept[9]["net.2.weight_mask"])


def test_frozen_parameters_are_stored_again_only_when_they_move(tmp_path):
    trainer, _, _ = train(tmp_path, Average, [SWATrajectory(evaluate=False)], module=Student, max_epochs=3)
    module, run = trainer.lightning_module, run_of(trainer)
    moving = run.dataset("swa_trajectory_layout_2")
    assert moving.attrs["moving_names"] == ["teacher.weight"]
    assert set(moving.attrs["constant_names"]) == {"teacher.bias", "backbone.weight", "backbone.bias"}
    for step, expected in module.kept.items():
        state = run.state_dict(step)
        assert all(torch.equal(state[name], value) for name, value in expected.items())


def test_a_refrozen_layer_is_stored_once(tmp_path):
    trainer, _, _ = train(tmp_path, Freeze, [SWATrajectory(evaluate=False)], max_epochs=6)
    run = run_of(trainer)
    frozen = run.dataset("swa_trajectory_layout_2")
    assert frozen["step"].values.tolist() == [9, 12, 18]
    assert frozen["moving_at"].values.tolist() == [9, 9, 18]
    assert run.dataset("swa_trajectory")["layout"].values.tolist() == [1, 1, 2, 2, 1, 2]
    assert np.isnan(frozen["moving"].values[1]).all()


@pytest.mark.slow
@pytest.mark.parametrize("since", [1, 2])
def test_paths_join_equal_sets_of_parameters_alone(tmp_path, since):
    connect = ModeConnectivity(since=since, points=3, curve_steps=2, examples=None)
    trainer, _, messages = train(tmp_path, Unfreeze, [connect], max_epochs=3)
    data = run_of(trainer).dataset("mode_connectivity")
    if since == 1:
        assert data["status"].values.tolist() == ["failed"]
        assert "choose since= after the last change" in data["reason"].values[0]
        assert len(messages) == 1
    else:
        assert data["status"].values.tolist() == ["ok"]
        assert data["reason"].values[0].startswith("end_a, control, end_b left out")
        module = trainer.lightning_module
        expected = torch.cat([(module.kept[9][n] - module.kept[6][n]).reshape(-1).double() for n in module.trained[9]])
        assert data["distance"].values[0] == pytest.approx(float(expected.norm()), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("directions", ["random", "trajectory"])
def test_surfaces_show_the_weights_of_the_same_parameters(tmp_path, directions):
    surface = LossSurface(directions=directions, dimensions=1, points=3, examples=None)
    callbacks = [SWATrajectory(evaluate=False), surface]
    trainer, _, messages = train(tmp_path, Unfreeze, callbacks, max_epochs=4)
    module, row = trainer.lightning_module, run_of(trainer).dataset("loss_surface").isel(step=0)
    assert messages == []
    assert str(row["reason"].values).startswith("center, directions left out")
    assert row["trajectory_step"].values[:4].tolist() == [6, 9, 12, -1]
    for visit, step in enumerate((6, 9, 12)):
        assert row["trajectory_loss"].values[visit] == pytest.approx(
            dense(module.kept[step], module.trained[step])[0], rel=1e-5
        )


@pytest.mark.slow
def test_a_resumed_training_goes_on_in_its_file(tmp_path):
    whole, _, _ = train(tmp_path / "whole", Freeze, [SWATrajectory(components=2)], max_epochs=6)
    first, _, _ = train(tmp_path / "run", Freeze, [SWATrajectory(components=2)], max_epochs=4)
    first.save_checkpoint(tmp_path / "last.ckpt")
    seed_all()
    second = make_trainer(tmp_path / "run", [Freeze(), SWATrajectory(components=2)], max_epochs=6)
    second.fit(Two(), loader(), ckpt_path=tmp_path / "last.ckpt", weights_only=False)
    one, other = run_of(whole), run_of(first)
    assert (
        one.dataset("swa_trajectory")["step"].values.tolist() == other.dataset("swa_trajectory")["step"].values.tolist()
    )
    for name in ("n_averaged", "layout", "n_parameters", "trainable"):
        assert (
            one.dataset("swa_trajectory")[name].values.tolist() == other.dataset("swa_trajectory")[name].values.tolist()
        )
    kept = first.lightning_module.kept | second.lightning_module.kept
    for step, expected in kept.items():
        state = other.state_dict(step)
        assert all(torch.equal(state[name], value) for name, value in expected.items())


def test_fingerprints():
    one, other = ParameterLayout(("a.w",), ((2, 3),)), ParameterLayout(("a._orig_mod.w",), ((2, 3),))
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != ParameterLayout(("a.w",), ((3, 2),)).fingerprint
    assert other.plain() == one
